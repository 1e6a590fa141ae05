//! The snapshots of a database: who wants one, and how far it is.

use std::sync::Arc;
use std::time::SystemTime;

use ractor::RpcReplyPort;
use walrust_ltx::Txid;
use walrust_sqlite::StagedFile;

use super::Refusal;
use super::snapshot_reading::Reading;

/// Gets the TXID of a snapshot, or why there is none.
type Reply = RpcReplyPort<Result<Txid, Refusal>>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SnapshotWork {
    /// Who asked for a snapshot that was not begun.
    pub(super) requests: Vec<Reply>,
    /// Who waits for the snapshot that was begun.
    pub(super) waiters: Vec<Reply>,
    /// A snapshot whose pages are being read.
    pub(super) reading: Option<Reading>,
    /// A snapshot that waits until the incremental before it is confirmed.
    pub(super) staged: Option<StagedFile>,
    /// The snapshot whose upload was offered and has not ended.
    pub(super) outstanding: Option<Arc<StagedFile>>,
    /// TXID of the newest one in storage.
    pub(super) last: Option<Txid>,
    /// When it was stored.
    pub(super) last_at: Option<SystemTime>,
}

impl SnapshotWork {
    /// Whether a snapshot is on its way: read, waiting for the history before it, or uploaded.
    pub(super) fn is_under_way(&self) -> bool {
        self.reading.is_some() || self.staged.is_some() || self.outstanding.is_some()
    }

    /// Whether nothing is under way and nobody waits for anything.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_under_way() && self.requests.is_empty() && self.waiters.is_empty()
    }

    /// The database is let go of, and with it what was under way.
    pub(super) fn give_up(&mut self) {
        self.reading = None;
        self.staged = None;
        self.outstanding = None;
    }
}
