//! What a database does next.
//!
//! Invariants: what storage has is confirmed before anything else is done; commits go in order, one
//! file at a time; a database that is to be let go of syncs once more and then no more, whatever its
//! writers do; and whoever waits for something, a file that is on its way or a time that will come, is
//! woken by it.

use std::time::{Duration, Instant};

use crate::{CheckpointKind, CheckpointPolicy, Pacing, WalFill};

/// How often a WAL that grows is looked at while its frames have to wait.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A database at one moment.
#[derive(Clone, Copy, Debug)]
pub struct DatabaseView<'a> {
    /// Storage has a file that is not confirmed.
    pub stored: bool,
    /// Storage is back, and files are waiting for it.
    pub gathers: bool,
    /// A file of the history is on its way to storage.
    pub outstanding: bool,
    /// The history cannot be continued.
    pub history_ends: bool,
    /// A snapshot is wanted, and none is being made.
    pub wants_snapshot: bool,
    /// Something may be there to ship.
    pub wants_sync: bool,
    /// Somebody waits until everything is shipped.
    pub asked: bool,
    /// The database is to be let go of.
    pub draining: bool,
    /// A sync has begun since then.
    pub last_sync_begun: bool,
    /// Before this a sync would find nothing.
    pub next_look: Option<Instant>,
    /// When a job last looked at the WAL.
    pub looked: Instant,
    /// The least time between two uploads.
    pub pacing: &'a Pacing,
    /// When the WAL is checkpointed.
    pub checkpoint: &'a CheckpointPolicy,
    /// How full the WAL is.
    pub wal: &'a WalFill,
}

/// What a database does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseStep {
    /// Move the position to the file that storage has.
    Confirm,
    /// Stage what was committed since, and make one file of all that waits.
    Gather,
    /// End the history: a snapshot begins a new chain.
    EndHistory,
    /// Begin a snapshot.
    Snapshot,
    /// Stage what was committed.
    Sync,
    /// Checkpoint the WAL.
    Checkpoint(CheckpointKind),
    /// See how full the WAL is, and choose the lock that fits it.
    Settle,
    /// Let go of the database.
    Leave,
    /// Look again after this.
    Wait(Duration),
    /// Something that is under way comes first.
    Await,
    /// There is nothing to do.
    Rest,
}

/// Decides what a database does next.
#[must_use]
pub fn plan_database(view: &DatabaseView<'_>, now: Instant) -> DatabaseStep {
    if view.stored {
        return DatabaseStep::Confirm;
    }
    if view.gathers {
        return DatabaseStep::Gather;
    }
    if view.outstanding {
        return view.keep_wal_small(now);
    }
    if view.history_ends {
        return DatabaseStep::EndHistory;
    }
    if view.wants_snapshot {
        return DatabaseStep::Snapshot;
    }
    if view.wants_to_sync() {
        let pause = view.next_look.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let wait = view.pacing.wait(now).max(pause);
        return match wait {
            _ if view.draining || view.asked || wait.is_zero() => DatabaseStep::Sync,
            _ if wait < LOOK_INTERVAL => DatabaseStep::Wait(wait),
            _ => view.keep_wal_small(now),
        };
    }
    if view.draining {
        return DatabaseStep::Leave;
    }
    if let Some(kind) = view.checkpoint.due(view.wal, now) {
        return DatabaseStep::Checkpoint(kind);
    }
    view.checkpoint.next_look(view.wal, now).map_or(DatabaseStep::Rest, DatabaseStep::Wait)
}

impl DatabaseView<'_> {
    /// A writer that never pauses would never let go: one sync after it was asked to is enough.
    fn wants_to_sync(&self) -> bool {
        self.asked || self.wants_sync && !(self.draining && self.last_sync_begun)
    }

    /// The next sync has to wait: looks at a growing WAL now and then, and checkpoints it if it
    /// cannot wait for the sync.
    fn keep_wal_small(&self, now: Instant) -> DatabaseStep {
        match self.checkpoint.due(self.wal, now) {
            Some(kind @ (CheckpointKind::Barrier { .. } | CheckpointKind::GiveUp)) => {
                DatabaseStep::Checkpoint(kind)
            }
            _ if self.wants_sync => {
                let wait = (self.looked + LOOK_INTERVAL).saturating_duration_since(now);
                if wait.is_zero() { DatabaseStep::Settle } else { DatabaseStep::Wait(wait) }
            }
            _ => DatabaseStep::Await,
        }
    }
}

#[cfg(test)]
mod tests;
