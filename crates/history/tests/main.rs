//! What is done to histories in storage, seen by who restores from them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod branches;
mod compaction;
mod concurrent_runs;
mod crashing_store;
mod damaged_manifest;
mod pieces;
mod retention;
mod scene;
mod through;
mod turnstile;
mod verify;
