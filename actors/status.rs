//! What can be seen of the tree from outside.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use walrust_engine::BreakerState;
use walrust_ltx::Txid;

use crate::settings::DatabaseSettings;

/// The tree at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The databases, by name.
    pub databases: Vec<DatabaseStatus>,
    /// Why the newest configuration was not applied, if it was not.
    pub config_error: Option<String>,
}

/// The uploads of all databases at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploaderStatus {
    /// Whether requests to storage are held back.
    pub breaker: BreakerState,
    /// Uploads that wait: for their turn, for a retry, for a limit.
    pub queued: usize,
    /// Their bytes.
    pub bytes_queued: u64,
    /// Uploads that were started and have not ended.
    pub under_way: usize,
    /// Their bytes.
    pub bytes_under_way: u64,
    /// Databases that are being opened and wait until storage may be asked.
    pub asking: usize,
}

/// One database at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseStatus {
    /// Its name in the bucket.
    pub name: String,
    /// Path of the database file.
    pub path: PathBuf,
    /// What it is doing.
    pub phase: DatabasePhase,
    /// TXID of the last state that storage has confirmed.
    pub txid: Option<Txid>,
    /// Whether everything that was committed, as far as is known, is in storage.
    pub up_to_date: bool,
    /// For how long something has been waiting to be in storage; zero if nothing is.
    pub lag: Duration,
    /// Committed frames in the WAL.
    pub wal_pages: u32,
    /// Files that are staged and not confirmed by storage.
    pub staged_files: usize,
    /// Bytes of those files.
    pub staged_bytes: u64,
    /// The last failure, until something succeeds again.
    pub last_error: Option<String>,
    /// How often its actor was started.
    pub incarnation: u64,
    /// How often it was started or given other settings.
    pub revision: u64,
}

impl DatabaseStatus {
    /// A database of which nothing is known but its settings.
    pub(crate) fn new(settings: &DatabaseSettings, phase: DatabasePhase) -> Self {
        Self {
            name: settings.name.clone(),
            path: settings.path.clone(),
            phase,
            txid: None,
            up_to_date: false,
            lag: Duration::ZERO,
            wal_pages: 0,
            staged_files: 0,
            staged_bytes: 0,
            last_error: None,
            incarnation: 0,
            revision: 0,
        }
    }
}

/// What a database is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabasePhase {
    /// Its files are being opened and its position looked up.
    Opening,
    /// It is being replicated.
    Replicating,
    /// It cannot be replicated at the moment and will be opened again.
    Degraded,
    /// Another writer owns its name; it stays stopped until it is resumed or the daemon is started anew.
    WriterConflict,
    /// Somebody has paused it; nothing of it is open.
    Paused,
    /// Its actor died and will be started again.
    Restarting,
    /// Its actor died too often and is left alone for a while.
    Quarantined,
}

impl DatabasePhase {
    /// Every phase.
    pub const ALL: [Self; 7] = [
        Self::Opening,
        Self::Replicating,
        Self::Degraded,
        Self::WriterConflict,
        Self::Paused,
        Self::Restarting,
        Self::Quarantined,
    ];
}

impl fmt::Display for DatabasePhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "opening",
            Self::Replicating => "replicating",
            Self::Degraded => "degraded",
            Self::WriterConflict => "writer conflict",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Quarantined => "quarantined",
        })
    }
}
