//! When a database is due for a snapshot.

use std::time::Duration;

/// Thresholds of one database; zero means never for this reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// A database that changed gets a snapshot this long after its last one.
    pub interval: Duration,
    /// After this many TXIDs.
    pub max_changes: u64,
    /// At the latest this long after the first change behind the last snapshot.
    pub max_interval: Duration,
    /// When a database that changed has been idle for this long.
    pub on_idle: Duration,
    /// When the daemon starts, if the database changed since its last snapshot.
    pub on_startup: bool,
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(3600),
            max_changes: 0,
            max_interval: Duration::ZERO,
            on_idle: Duration::ZERO,
            on_startup: false,
        }
    }
}
