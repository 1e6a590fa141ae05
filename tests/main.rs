//! What a user sees: the program, its files and the objects in storage.
//!
//! Every test runs the real binary against a directory or against the S3 server of the test run,
//! and waits for events with a deadline, never for time. A missing server or tool is a failure.

mod bad_input;
mod checkpoints;
mod cli;
mod compact;
mod config;
mod control;
mod crashes;
mod daemon;
mod damage;
mod explain;
mod export;
mod fault_proxy;
mod faults_capture;
mod faults_page;
mod faults_restore;
mod faults_upload;
mod follow;
mod forced_restore;
mod format;
mod history;
mod host;
mod interruptions;
mod killer;
mod layout;
mod litestream;
mod litestream_program;
mod lost_state;
mod memory;
mod names;
mod pauses;
mod pins;
mod point_in_time;
mod pragma;
mod recording_server;
mod replica;
mod replicate;
mod restore;
mod small_history;
mod snapshot;
mod storage;
mod system_calls;
mod tenants;
mod traced;
mod verify;
mod walrust;
