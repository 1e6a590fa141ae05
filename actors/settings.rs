//! What the tree is told to do: validated settings, no raw configuration.

use std::path::PathBuf;
use std::time::Duration;

use walrust_engine::{CheckpointSettings, RestartSettings, RetryPolicy};
use walrust_sqlite::WalPin;

/// Settings of the whole tree.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The databases, each with its own settings.
    pub databases: Vec<DatabaseSettings>,
    /// Pace of failed uploads.
    pub retry: RetryPolicy,
    /// Uploads at once, over all databases.
    pub upload_concurrency: usize,
    /// When children that crash are started again.
    pub restart: RestartSettings,
    /// Name of this host, for `manifest.json`.
    pub host: String,
}

/// Settings of one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// Its name in the bucket; unique.
    pub name: String,
    /// Path of the database file; unique.
    pub path: PathBuf,
    /// The least time between two uploads of this database.
    pub sync_interval: Duration,
    /// How its WAL is pinned.
    pub wal_pin: WalPin,
    /// When its WAL is checkpointed.
    pub checkpoint: CheckpointSettings,
    /// Where its local state lives; beside it by default.
    pub state_directory: Option<PathBuf>,
}
