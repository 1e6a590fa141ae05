//! The supervision tree of walrust.
//!
//! ```text
//! RootSupervisor
//! |-- UploaderActor          brings staged files to storage
//! |-- SnapshotSchedulerActor tells databases when a snapshot is due
//! |-- RetentionActor         decides which files of a history stay
//! |-- ValidationActor        proves now and then that histories can be restored
//! |-- WebhookActor           tells receivers outside the process about events
//! |-- WatcherActor           tells databases that their WAL may have changed
//! `-- DatabaseActor x N      one database each: its pin, position and checkpoints
//! ```
//!
//! Actors decide and wire; the decisions themselves are in `walrust_engine`, the blocking work in
//! `walrust_sqlite`, the requests in `walrust_storage`. ractor is used here and nowhere else.

#![forbid(unsafe_code)]

mod blocking;
mod crash_point;
mod database;
mod event;
mod lost_state;
mod manifest_update;
mod one_by_one;
mod replicator;
mod request_rate;
mod retention;
mod root;
mod run_files;
mod service;
mod services;
mod settings;
mod snapshot_scheduler;
mod status;
mod uploader;
mod validation;
mod watcher;
mod webhook;
mod webhook_url;

pub use blocking::BLOCKING_JOBS;
pub use database::Cause;
pub use replicator::{Replicator, ReplicatorError};
pub use root::{Applied, NotShipped};
pub use settings::{
    CompactionSettings, DatabaseSettings, Secret, Settings, UploadLimits, ValidationSettings,
    WebhookSettings,
};
pub use status::{DatabasePhase, DatabaseStatus, Status, UploaderStatus};
pub use webhook_url::{WebhookUrl, WebhookUrlError};
