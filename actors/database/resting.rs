//! A database that nothing happens to has no actor: what is left of it rests with the root.
//!
//! An actor costs several times what it knows. One with nothing to do gives the root what it knows,
//! the capture with its pin included, and ends; the first message that is meant for it makes another
//! one of the same incarnation, which goes on where it ended.
//!
//! Invariant: no message is lost on the way. All that comes to a database, apart from what follows its
//! own work, comes through the root. From the moment at which an actor gives itself up it sends
//! every message back, which the root gets behind the state to rest; the last one that the root sends
//! is [`DatabaseMsg::Rest`].
//!
//! A crash in between loses the state, or a message: the root looks whether anything was wanted of the
//! database, and a new incarnation opens it.

use std::time::{Duration, Instant, SystemTime};

use walrust_engine::{CheckpointPolicy, Pacing, WalFill};
use walrust_ltx::Txid;

use super::DatabaseMsg;
use super::job::Held;
use super::shipping::ManifestState;
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
            self.quiet_since = None;
            return;
        }
        let since = *self.quiet_since.get_or_insert(now);
        // Of hundreds that are opened one after the other few have an actor at a time.
        let wait = if self.is_used { self.arguments.rest_after } else { Duration::ZERO };
        let left = wait.saturating_sub(now.saturating_duration_since(since));
        if left.is_zero() { self.rest() } else { self.arm(left) }
    }

    /// Whether storage has everything and nobody waits for anything.
    fn is_quiet(&self) -> bool {
        let is_shipped = self.staged.is_empty()
            && self.outstanding.is_none()
            && self.stored.is_none()
            && self.behind_since.is_none();
        let has_snapshot = self.outstanding_snapshot.is_none()
            && self.staged_snapshot.is_none()
            && self.reading.is_none()
            && self.snapshot_requests.is_empty()
            && self.snapshot_waiters.is_empty();
        let is_indexed = self.entries.is_empty() && matches!(self.manifest, ManifestState::Clean);
        self.phase == DatabasePhase::Replicating
            && self.last_error.is_none()
            && !self.wanted
            && !self.draining
            && !self.sync_requests.any()
            && is_shipped
            && has_snapshot
            && is_indexed
    }

    fn rest(&mut self) {
        let Some(held) = self.held.take() else { return };
        let resting = Box::new(Resting {
            held,
            wal: self.wal,
            pacing: self.pacing.clone(),
            checkpoint: self.checkpoint.clone(),
            last_snapshot: self.last_snapshot,
            last_snapshot_at: self.last_snapshot_at,
            writer: self.writer.take(),
            first_manifest: self.first_manifest,
        });
        self.has_rested = true;
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
        self.is_used = true;
        self.hold(held);
        (self.wal, self.pacing, self.checkpoint) = (wal, pacing, checkpoint);
        (self.last_snapshot, self.last_snapshot_at) = (last_snapshot, last_snapshot_at);
        (self.writer, self.first_manifest) = (writer, first_manifest);
        (self.wanted, self.behind_since) = (false, None);
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
