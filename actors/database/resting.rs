//! A database that nothing happens to has no actor: what is left of it rests with the root.
//!
//! An actor costs several times what it knows. One with nothing to do gives the root what it knows,
//! the capture with its pin included, and ends; the first message that is meant for it makes another
//! one of the same incarnation, which goes on where it ended.
//!
//! Invariant: no message is lost on the way. All that comes to a database, apart from what follows its
//! own work, comes through the root. From the moment at which an actor gives itself up it sends
//! every message back, which the root gets after the state to rest; the last one that the root sends
//! is [`DatabaseMsg::Rest`].
//!
//! A crash in between loses the state, or a message: the root looks whether anything was wanted of the
//! database, and a new incarnation opens it.

use std::time::{Duration, Instant, SystemTime};

use walrust_engine::{CheckpointPolicy, Pacing, WalFill};
use walrust_ltx::Txid;

use super::DatabaseMsg;
use super::job::Held;
use super::state::DatabaseState;
use crate::manifest_update::Writer;
use crate::root::RootMsg;
use crate::settings::DatabaseSettings;
use crate::status::{DatabasePhase, DatabaseStatus};

/// What is known of a database without an actor. Storage has all of it.
#[derive(Debug)]
pub(crate) struct Resting {
    held: Held,
    wal: WalFill,
    pacing: Pacing,
    checkpoint: CheckpointPolicy,
    last_snapshot: Option<Txid>,
    last_snapshot_at: Option<SystemTime>,
    writer: Option<Writer>,
    first_manifest: bool,
}

/// Whether the actor may give its database up.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// The database was written to, or asked something, since it was opened: that may go on.
    pub(super) is_used: bool,
    /// Since when there is nothing to do.
    pub(super) quiet_since: Option<Instant>,
    /// The root has the database.
    pub(super) is_given_up: bool,
}

impl Resting {
    /// The status of the database.
    pub(crate) fn status(&self, settings: &DatabaseSettings) -> DatabaseStatus {
        DatabaseStatus {
            txid: self.held.capture.position().map(|position| position.txid),
            up_to_date: true,
            wal_pages: self.wal.frames,
            ..DatabaseStatus::new(settings, DatabasePhase::Replicating)
        }
    }
}

impl DatabaseState {
    /// Nothing is to be done: waits a while, then gives the database to the root.
    pub(super) fn rest_when_quiet(&mut self, now: Instant) {
        if !self.is_quiet() {
            self.rest.quiet_since = None;
            return;
        }
        let since = *self.rest.quiet_since.get_or_insert(now);
        // Of hundreds that are opened one after the other few have an actor at a time.
        let wait = if self.rest.is_used { self.arguments.rest_after } else { Duration::ZERO };
        let left = wait.saturating_sub(now.saturating_duration_since(since));
        if left.is_zero() { self.rest() } else { self.arm(left) }
    }

    /// Whether storage has everything and nobody waits for anything.
    fn is_quiet(&self) -> bool {
        self.phase == DatabasePhase::Replicating
            && self.last_error.is_none()
            && !self.look.is_wanted
            && self.look.behind_since.is_none()
            && !self.drain.is_wanted
            && !self.sync_requests.any()
            && self.history.is_empty()
            && self.snapshots.is_idle()
            && self.index.is_clean()
    }

    fn rest(&mut self) {
        let Some(held) = self.held.take() else { return };
        let resting = Box::new(Resting {
            held,
            wal: self.wal,
            pacing: self.look.pacing.clone(),
            checkpoint: self.checkpoint.clone(),
            last_snapshot: self.snapshots.last,
            last_snapshot_at: self.snapshots.last_at,
            writer: self.index.writer.take(),
            first_manifest: self.index.is_first,
        });
        self.rest.is_given_up = true;
        tracing::trace!(db = self.name(), "rests");
        let (name, actor) = (self.name().to_owned(), self.myself.get_id());
        // If the root is gone, so is everything else soon.
        let _ = self.arguments.root.cast(RootMsg::Rested { name, actor, resting });
    }

    /// Goes on where another actor ended.
    pub(super) fn wake(&mut self, resting: Resting) {
        let Resting {
            held,
            wal,
            pacing,
            checkpoint,
            last_snapshot,
            last_snapshot_at,
            writer,
            first_manifest,
        } = resting;
        self.phase = DatabasePhase::Replicating;
        self.rest.is_used = true;
        self.hold(held);
        (self.wal, self.look.pacing, self.checkpoint) = (wal, pacing, checkpoint);
        (self.snapshots.last, self.snapshots.last_at) = (last_snapshot, last_snapshot_at);
        (self.index.writer, self.index.is_first) = (writer, first_manifest);
        (self.look.is_wanted, self.look.behind_since) = (false, None);
        // The message for which it wakes comes first; it must not find an actor that rests again.
        self.arm(self.arguments.rest_after);
    }

    /// Sends a message back that came too late; what only this actor had set going needs no answer.
    pub(super) fn send_back(&self, message: DatabaseMsg) {
        match message {
            DatabaseMsg::Rest => self.myself.stop(None),
            DatabaseMsg::Due { .. } | DatabaseMsg::ManifestDue => {}
            message => {
                let (name, message) = (self.name().to_owned(), Box::new(message));
                let _ = self.arguments.root.cast(RootMsg::SentBack { name, message });
            }
        }
    }
}
