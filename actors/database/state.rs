//! The state of a database's actor, and the one place that does what comes next.
//!
//! Invariant: `walrust_engine::plan_database` decides, after every message that changed something.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{ActorRef, RpcReplyPort};
use walrust_engine::{
    CheckpointPolicy, DatabaseStep, DatabaseView, Pacing, WalFill, plan_database,
};
use walrust_ltx::Txid;
use walrust_sqlite::SyncOutcome;

use super::drain::Drain;
use super::healing::Healing;
use super::index::Index;
use super::job::{CaptureState, Held, Job, JobEnded, JobReport};
use super::looks::Looks;
use super::open::{OpenOutcome, Opened, Opening, open};
use super::resting::Rest;
use super::shipping::Shipment;
use super::snapshot_work::SnapshotWork;
use super::sync_requests::SyncRequests;
use super::{Cause, DatabaseArguments, DatabaseMsg, Refusal};
use crate::settings::DatabaseSettings;
use crate::status::DatabasePhase;
use crate::uploader::Conflict;

/// The pause before a failed database is opened again; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(crate) struct DatabaseState {
    pub(super) myself: ActorRef<DatabaseMsg>,
    pub(super) arguments: DatabaseArguments,
    pub(super) phase: DatabasePhase,
    /// The capture; `None` while a job has it or the database is not open.
    pub(super) held: Option<Held>,
    pub(super) history: Shipment,
    pub(super) healing: Healing,
    pub(super) snapshots: SnapshotWork,
    pub(super) index: Index,
    pub(super) look: Looks,
    pub(super) rest: Rest,
    pub(super) drain: Drain,
    pub(super) sync_requests: SyncRequests,
    /// The last state that storage has confirmed.
    pub(super) txid: Option<Txid>,
    /// How full the WAL was when a job last looked.
    pub(super) wal: WalFill,
    pub(super) checkpoint: CheckpointPolicy,
    /// Number of the armed timer: earlier ones do not count.
    epoch: u64,
    /// Failures in a row, each of which makes the next attempt come later.
    failures: u32,
    /// What went wrong last, until something succeeds.
    pub(super) last_error: Option<Refusal>,
    /// Bytes of a page of the captured state.
    pub(super) page_size: Option<u32>,
}

impl DatabaseState {
    pub(super) fn new(myself: ActorRef<DatabaseMsg>, arguments: DatabaseArguments) -> Self {
        let settings = &arguments.settings;
        Self {
            checkpoint: CheckpointPolicy::new(settings.checkpoint, Instant::now()),
            look: Looks::new(settings.sync_interval, Instant::now()),
            myself,
            arguments,
            phase: DatabasePhase::Opening,
            held: None,
            history: Shipment::default(),
            healing: Healing::default(),
            snapshots: SnapshotWork::default(),
            index: Index::default(),
            rest: Rest::default(),
            drain: Drain::default(),
            sync_requests: SyncRequests::default(),
            txid: None,
            wal: WalFill::default(),
            epoch: 0,
            failures: 0,
            last_error: None,
            page_size: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.arguments.settings.name
    }

    pub(super) fn open(&mut self) {
        self.phase = DatabasePhase::Opening;
        let (arguments, myself) = (self.arguments.clone(), self.myself.clone());
        let stop = Arc::clone(&self.drain.stop);
        tokio::spawn(async move {
            let report = Opening::new(myself);
            report.ended(open(arguments, &stop).await);
        });
    }

    pub(super) fn opened(&mut self, outcome: OpenOutcome) {
        let opened = match outcome {
            OpenOutcome::Opened(opened) => *opened,
            OpenOutcome::Failed(error) => {
                if error.is_corruption() {
                    self.raise_corruption(&error.to_string());
                }
                return self.degrade(error.refusal());
            }
        };
        let Opened { held, new_chain, lost, staged, wal, last_snapshot, last_snapshot_at, writer } =
            opened;
        let continues = held.capture.position().map(|position| position.txid);
        match new_chain {
            Some(txid) => tracing::info!(db = self.name(), %txid, "a snapshot begins a new chain"),
            None => {
                let txid = continues.map(tracing::field::display);
                tracing::info!(db = self.name(), txid, "continues");
            }
        }
        self.phase = DatabasePhase::Replicating;
        if let Some(error) = lost {
            tracing::error!(db = self.name(), %error, "storage has lost the newest state");
            self.healing.ended = Some(error.to_string());
        }
        self.hold(held);
        (self.history.staged, self.wal) = (staged, wal);
        (self.snapshots.last, self.snapshots.last_at) = (last_snapshot, last_snapshot_at);
        (self.index.writer, self.index.is_first) = (Some(writer), true);
        self.look.is_wanted = true;
        self.report_to_scheduler();
        self.report_to_retention();
        self.report_to_validation();
        self.proceed();
    }

    /// Takes the capture back.
    pub(super) fn hold(&mut self, held: Held) {
        self.txid = held.capture.position().map(|position| position.txid);
        if let Some(txid) = self.txid {
            self.index.run.reach(txid);
        }
        self.page_size = held.capture.captured().map(|position| position.page_size.get());
        self.held = Some(held);
    }

    pub(super) fn wal_changed(&mut self) {
        self.look.hinted(Instant::now());
        self.proceed();
    }

    pub(super) fn due(&mut self, epoch: u64) {
        if epoch != self.epoch {
            return;
        }
        match self.phase {
            DatabasePhase::Degraded => self.open(),
            _ => self.proceed(),
        }
    }

    /// Does what comes next. Every handler that changed something ends here.
    pub(super) fn proceed(&mut self) {
        if self.held.is_none() {
            return;
        }
        if self.history.stored.is_none() && !self.history.gathers {
            self.offer_next();
        }
        let now = Instant::now();
        match plan_database(&self.view(), now) {
            DatabaseStep::Confirm => {
                if let Some(name) = self.history.stored.take() {
                    self.start(Job::Confirm(name));
                }
            }
            DatabaseStep::Gather => {
                self.history.gathers = false;
                self.begin_sync();
                self.start(Job::Gather);
            }
            DatabaseStep::EndHistory => {
                self.healing.ended = self.healing.ends.take();
                // What begins a new chain is worth another sync, even at the end.
                (self.look.is_wanted, self.drain.last_sync_begun) = (true, false);
                self.start(Job::EndHistory);
            }
            DatabaseStep::Snapshot => {
                self.snapshots.waiters.append(&mut self.snapshots.requests);
                self.look.is_wanted = false;
                self.start(Job::Snapshot);
            }
            DatabaseStep::Sync => {
                self.begin_sync();
                self.start(Job::Sync);
            }
            DatabaseStep::Checkpoint(kind) => self.start(Job::Checkpoint(kind)),
            DatabaseStep::Settle => {
                self.look.began();
                self.start(Job::Settle);
            }
            DatabaseStep::Leave => self.finish_draining(),
            DatabaseStep::Wait(wait) => self.arm(wait),
            DatabaseStep::Await => {}
            DatabaseStep::Rest => self.rest_when_quiet(now),
        }
    }

    fn view(&self) -> DatabaseView<'_> {
        DatabaseView {
            stored: self.history.stored.is_some(),
            gathers: self.history.gathers,
            outstanding: self.history.outstanding.is_some(),
            history_ends: self.healing.ends.is_some(),
            wants_snapshot: !self.snapshots.requests.is_empty() && !self.snapshots.is_under_way(),
            wants_sync: self.look.is_wanted,
            asked: self.sync_requests.any_asked(),
            draining: self.drain.is_wanted,
            last_sync_begun: self.drain.last_sync_begun,
            next_look: self.look.next_at,
            looked: self.look.last_at,
            pacing: &self.look.pacing,
            checkpoint: &self.checkpoint,
            wal: &self.wal,
        }
    }

    fn begin_sync(&mut self) {
        self.look.began();
        self.sync_requests.begin();
        self.drain.last_sync_begun = self.drain.is_wanted;
    }

    pub(super) fn job_ended(&mut self, ended: JobEnded) {
        let JobEnded { held, began, report } = ended;
        if self.phase != DatabasePhase::Replicating {
            // The database was let go of while the job ran, and so is what it brings back.
            return;
        }
        let (report, CaptureState { wal, staged }) = match report {
            Ok(report) => report,
            Err(error) => {
                drop(held);
                if error.is_corruption() {
                    self.raise_corruption(&error.to_string());
                }
                return self.degrade(Refusal::from(&error));
            }
        };
        self.hold(held);
        (self.wal, self.history.staged) = (wal, staged);
        self.keep_snapshot_from_filling_the_disk();
        self.look.last_at = began;
        self.failures = 0;
        self.raise_recovered();
        match report {
            JobReport::Synced(outcome) => self.synced(outcome, began),
            JobReport::SnapshotBegun(begun) => self.snapshot_begun(begun, began),
            JobReport::Confirmed => {
                self.confirmed();
                self.history.gathers = !self.history.staged.is_empty();
                // What was committed during the upload is the next thing to ship.
                self.look.is_wanted |=
                    self.history.staged.is_empty() && self.wal.frames != self.wal.shipped;
                self.caught_up();
            }
            JobReport::Checkpointed { kind, complete } => {
                let frames = wal.frames;
                tracing::debug!(db = self.name(), ?kind, complete, frames, "checkpoint");
                self.checkpoint.tried(kind, complete, &wal, Instant::now());
            }
            JobReport::Gathered => self.look.pacing.began(began),
            JobReport::Settled { has_news: true } => self.look.is_wanted = true,
            JobReport::Settled { has_news: false } => {
                // A hint about nothing: nobody is behind until the next sync may begin.
                self.caught_up();
                self.look.found_nothing(Instant::now());
            }
            JobReport::HistoryEnded => {}
            JobReport::Left => return self.drained(),
            JobReport::TooLong(job) => return self.start_long(job),
        }
        self.proceed();
    }

    fn synced(&mut self, outcome: SyncOutcome, began: Instant) {
        match outcome {
            SyncOutcome::UpToDate => {
                self.last_error = None;
                self.caught_up();
                self.look.found_nothing(Instant::now());
            }
            SyncOutcome::Staged { file, healed } => {
                if let Some(reason) = healed {
                    let (txid, pages) = (file.name.max, file.pages);
                    tracing::warn!(db = self.name(), %reason, %txid, pages, "history gap healed");
                    self.raise_healed(&reason, &file);
                }
                self.rest.is_used |= !file.name.is_snapshot();
                self.look.found(began);
            }
        }
    }

    pub(super) fn reconfigured(&mut self, settings: DatabaseSettings, revision: u64) {
        tracing::info!(db = self.name(), "follows other settings");
        self.look.pacing = Pacing::new(settings.sync_interval);
        self.checkpoint = CheckpointPolicy::new(settings.checkpoint, Instant::now());
        self.arguments.settings = settings;
        self.arguments.revision = revision;
        self.report_to_scheduler();
        self.report_to_retention();
        self.report_to_validation();
        self.proceed();
    }

    /// The database cannot be replicated now: lets go of it and tries again later.
    pub(super) fn degrade(&mut self, error: Refusal) {
        self.look.behind_since.get_or_insert_with(Instant::now);
        let pause = MIN_PAUSE.saturating_mul(1 << self.failures.min(10)).min(MAX_PAUSE);
        self.failures = self.failures.saturating_add(1);
        // An upload under way goes on; the next opening finds its file in the bucket.
        self.let_go();
        if self.last_error.as_ref() != Some(&error) {
            tracing::error!(db = self.name(), error = error.reason, "not replicated, retrying");
        }
        self.raise_unavailable(&error.reason);
        self.phase = DatabasePhase::Degraded;
        self.refuse_requests(&error);
        self.last_error = Some(error);
        if self.drain.is_wanted {
            return self.finish_draining();
        }
        self.arm(pause);
    }

    pub(super) fn conflicted(&mut self, conflict: &Conflict) {
        self.let_go();
        self.phase = DatabasePhase::WriterConflict;
        let error = Refusal::new(Cause::Other, conflict.with_advice(self.name()));
        self.refuse_requests(&error);
        self.last_error = Some(error);
        if self.drain.is_wanted {
            self.finish_draining();
        }
    }

    /// Somebody wants the database to be replicated. That another writer owned its name may be over.
    pub(super) fn resume(&mut self, reply: RpcReplyPort<DatabasePhase>) {
        answer(reply, self.phase);
        if self.phase == DatabasePhase::WriterConflict && !self.drain.is_wanted {
            tracing::info!(db = self.name(), "resumed, claims its name anew");
            self.failures = 0;
            self.open();
        }
    }

    fn let_go(&mut self) {
        self.held = None;
        self.history = Shipment::default();
        self.healing = Healing::default();
        self.snapshots.give_up();
        self.forget_offers();
    }

    /// Arms the one timer; an earlier one no longer counts.
    pub(super) fn arm(&mut self, wait: Duration) {
        self.epoch += 1;
        let epoch = self.epoch;
        self.myself.send_after(wait, move || DatabaseMsg::Due { epoch });
    }
}

/// Answers somebody who may have stopped waiting.
pub(super) fn answer<T: Send + 'static>(reply: RpcReplyPort<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::debug!("nobody waits for an answer any more");
    }
}
