//! Tests of the supervision tree through its public interface, over a store that can fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod changes;
mod crashes;
mod fault_store;
mod faults;
mod faults_upload;
mod healing;
mod manifests;
mod openings;
mod panics;
mod resting;
mod retention;
mod scene;
mod shipping;
mod snapshot_reading;
mod snapshots;
mod unshipped;
mod uploads;
mod validation;
mod webhooks;
mod writers;
