//! What can be seen of databases and uploads from outside the tree.

use std::fmt;

use walrust_engine::BreakerState;
use walrust_ltx::Txid;

/// One database at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseStatus {
    /// Its name in the bucket.
    pub name: String,
    /// What it is doing.
    pub phase: DatabasePhase,
    /// TXID of the last state that storage has confirmed.
    pub txid: Option<Txid>,
    /// Whether everything that was committed, as far as is known, is in storage.
    pub up_to_date: bool,
    /// The last failure, until something succeeds again.
    pub last_error: Option<String>,
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
    /// Another writer owns its name; it stays stopped until the daemon is started anew.
    WriterConflict,
}

impl fmt::Display for DatabasePhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "opening",
            Self::Replicating => "replicating",
            Self::Degraded => "degraded",
            Self::WriterConflict => "writer conflict",
        })
    }
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
}
