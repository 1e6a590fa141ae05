//! Tests of the stores: one suite for all of them, and the failures of each.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod conformance;
mod directory;
mod environment;
mod fake_server;
mod s3_errors;
mod s3_quirks;
mod stores;
