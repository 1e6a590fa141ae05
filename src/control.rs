//! The control socket: how commands talk to the running daemon.
//!
//! HTTP over a unix socket that only its owner may use. Requests and answers are JSON:
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`StatusReport`] |
//! | `POST /v1/sync` with [`SyncRequest`] | [`SyncReport`] |
//! | `POST /v1/snapshot`, `/v1/pause`, `/v1/resume` with [`DatabaseRequest`] | [`DatabaseAnswer`] |
//!
//! A request that cannot be carried out is answered with a status of 400 or above and [`Problem`].

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use walrust_actors::{Cause, DatabasePhase, DatabaseStatus, Status, UploaderStatus};
use walrust_engine::BreakerState;

use crate::problems::Problems;

mod client;
mod server;
mod socket;

pub use client::Client;
pub use server::{Listening, Served, Server};
pub use socket::{SOCKET_VARIABLE, Socket};

/// The daemon and its databases at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusReport {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Where everything goes.
    pub storage: String,
    /// Why the newest configuration was not applied, if it was not.
    pub config_error: Option<String>,
    /// The uploads of all databases; `None` while their actor is restarted.
    pub uploads: Option<UploadReport>,
    /// The databases, by name.
    pub databases: Vec<DatabaseReport>,
    /// Databases that are not replicated, since it is not known what they were stored under before.
    #[serde(default)]
    pub left_out: Vec<LeftOutReport>,
}

/// A database that is not replicated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutReport {
    /// Path of the database file.
    pub path: PathBuf,
    /// Why, in words.
    pub error: String,
}

/// The uploads at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UploadReport {
    /// What the circuit breaker does: `closed` lets requests through, `open` holds them back,
    /// `half_open` waits for one that finds out.
    pub breaker: String,
    /// Uploads that wait.
    pub queued: usize,
    /// Uploads that are under way.
    pub under_way: usize,
    /// Databases that are being opened and wait until storage may be asked.
    #[serde(default)]
    pub asking: usize,
}

/// One database at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatabaseReport {
    /// Its name in storage.
    pub name: String,
    /// Path of the database file.
    pub path: PathBuf,
    /// What it is doing: `replicating`, `degraded`, ...
    pub state: String,
    /// Whether everything that was committed is in storage.
    pub up_to_date: bool,
    /// For how many seconds something has been waiting to be in storage.
    pub lag_seconds: f64,
    /// TXID of the newest state in storage, 16 hex digits.
    pub txid: Option<String>,
    /// Pages in the WAL.
    pub wal_pages: u32,
    /// Files that wait for storage.
    pub staged_files: usize,
    /// Bytes of those files.
    pub staged_bytes: u64,
    /// What is wrong, in words.
    pub error: Option<String>,
    /// How often its actor was started.
    pub incarnation: u64,
    /// How often it was started or given other settings.
    pub revision: u64,
}

/// Ship everything now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyncRequest {
    /// Names of databases; empty: all.
    pub names: Vec<String>,
    /// How long to wait for storage.
    pub timeout_seconds: f64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyncReport {
    /// One for each database.
    pub databases: Vec<SyncResult>,
}

/// What came of shipping one database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncResult {
    /// Its name.
    pub name: String,
    /// TXID that storage has, 16 hex digits.
    pub txid: Option<String>,
    /// Why storage does not have everything, if so.
    pub error: Option<String>,
    /// What stands in the way then: `storage`, `database` or `other`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<CauseName>,
    /// Whether it is paused, so that nothing was done.
    #[serde(default)]
    pub paused: bool,
}

/// Something about one database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DatabaseRequest {
    /// Its name.
    pub name: String,
}

/// Something was done to one database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DatabaseAnswer {
    /// Its name.
    pub name: String,
    /// TXID of the snapshot, if one was asked for, 16 hex digits.
    pub txid: Option<String>,
    /// Why not everything is in storage of a database that was paused, if so.
    pub warning: Option<String>,
    /// What the database was doing when it was asked to resume: `paused`, `writer_conflict`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// In words.
    pub error: String,
    /// What stands in the way: `storage`, `database` or `other`.
    pub cause: CauseName,
}

/// What stands in the way of a request; decides the exit code of the command that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CauseName {
    /// Storage, or the way to it.
    Storage,
    /// The database, its WAL, or its local state.
    Database,
    /// Anything else.
    Other,
}

impl From<Cause> for CauseName {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Storage => Self::Storage,
            Cause::Database => Self::Database,
            Cause::Other => Self::Other,
        }
    }
}

impl From<CauseName> for Cause {
    fn from(name: CauseName) -> Self {
        match name {
            CauseName::Storage => Self::Storage,
            CauseName::Database => Self::Database,
            CauseName::Other => Self::Other,
        }
    }
}

impl StatusReport {
    /// The report of this process.
    #[must_use]
    pub fn new(
        status: Status,
        uploads: Option<UploaderStatus>,
        storage: String,
        problems: &Problems,
    ) -> Self {
        let left_out = problems.left_out.iter().cloned();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            storage,
            config_error: problems.config_error(),
            uploads: uploads.map(|uploads| UploadReport {
                breaker: match uploads.breaker {
                    BreakerState::Closed => "closed",
                    BreakerState::Open => "open",
                    BreakerState::HalfOpen => "half_open",
                }
                .to_owned(),
                queued: uploads.queued,
                under_way: uploads.under_way,
                asking: uploads.asking,
            }),
            databases: status.databases.into_iter().map(DatabaseReport::from).collect(),
            left_out: left_out.map(|(path, error)| LeftOutReport { path, error }).collect(),
        }
    }
}

impl From<DatabaseStatus> for DatabaseReport {
    fn from(status: DatabaseStatus) -> Self {
        Self {
            state: state_name(status.phase).to_owned(),
            up_to_date: status.up_to_date,
            lag_seconds: seconds(status.lag),
            txid: status.txid.map(|txid| txid.to_string()),
            wal_pages: status.wal_pages,
            staged_files: status.staged_files,
            staged_bytes: status.staged_bytes,
            error: status.last_error,
            incarnation: status.incarnation,
            revision: status.revision,
            name: status.name,
            path: status.path,
        }
    }
}

pub(crate) fn state_name(phase: DatabasePhase) -> &'static str {
    match phase {
        DatabasePhase::Opening => "opening",
        DatabasePhase::Replicating => "replicating",
        DatabasePhase::Degraded => "degraded",
        DatabasePhase::WriterConflict => "writer_conflict",
        DatabasePhase::Paused => "paused",
        DatabasePhase::Restarting => "restarting",
        DatabasePhase::Quarantined => "quarantined",
    }
}

/// Whole milliseconds, as seconds.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}
