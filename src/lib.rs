//! walrust: continuous replication of SQLite databases to S3-compatible storage.
//!
//! The facade over the crates: [`Replicator`] is the daemon as a value, `walrust_history` brings
//! databases back, [`config`] reads what a user wrote. The `walrust` program is a thin shell
//! around them.

#![deny(unsafe_code)]

pub mod cli;
pub mod config;
pub mod control;
mod error;
mod follower;
mod names;
mod orphans;
mod pattern;
pub mod problems;
pub mod resolver;
pub mod runtime;
pub mod settings;
mod storage_source;
pub mod tenant;
pub mod tenants;

pub use error::{Error, ExitCode};
pub use walrust_actors::{DatabasePhase, DatabaseSettings, DatabaseStatus, Replicator, Settings};
pub use walrust_storage::{ObjectStore, S3Options, StorageUrl};
