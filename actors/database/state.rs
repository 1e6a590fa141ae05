//! The state of a database's actor, and the one place that decides what happens next.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ractor::{ActorRef, RpcReplyPort};
use tokio::sync::Notify;
use walrust_engine::manifest::FileEntry;
use walrust_engine::{CheckpointKind, CheckpointPolicy, Pacing, WalFill};
use walrust_ltx::{FileName, Txid};
use walrust_sqlite::{StagedFile, SyncOutcome};

use super::job::{CaptureState, Held, Job, JobEnded, JobReport};
use super::open::{OpenOutcome, Opened, Opening, open};
use super::shipping::ManifestState;
use super::snapshot_reading::Reading;
use super::sync_requests::SyncRequests;
use super::{Cause, DatabaseArguments, DatabaseMsg, Refusal};
use crate::manifest_update::{NewestTxid, Writer};
use crate::root::RootMsg;
use crate::settings::DatabaseSettings;
use crate::status::DatabasePhase;
use crate::uploader::Conflict;

/// The pause before a failed database is opened again; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// How often a WAL that grows is looked at while its frames have to wait.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A writer changes the WAL before the wal-index says so: a hint that shows nothing new yet is
/// looked into again after these pauses.
const SECOND_LOOKS: [Duration; 3] =
    [Duration::from_millis(5), Duration::from_millis(25), Duration::from_millis(125)];

/// See the module.
#[derive(Debug)]
pub(crate) struct DatabaseState {
    pub(super) myself: ActorRef<DatabaseMsg>,
    pub(super) arguments: DatabaseArguments,
    pub(super) phase: DatabasePhase,
    /// The capture; `None` while a job has it or the database is not open.
    pub(super) held: Option<Held>,
    /// Files of the capture that storage has not confirmed, as of the last job.
    pub(super) staged: Vec<StagedFile>,
    /// The file whose upload was offered and has not ended: the first of `staged`.
    pub(super) outstanding: Option<Arc<StagedFile>>,
    /// The snapshot whose upload was offered and has not ended.
    pub(super) outstanding_snapshot: Option<Arc<StagedFile>>,
    /// A file that storage has, and the capture does not know yet.
    pub(super) stored: Option<FileName>,
    /// More files were waiting behind the one that storage has now.
    gathers: bool,
    /// A snapshot whose pages are being read.
    pub(super) reading: Option<Reading>,
    /// A snapshot does not fit the history, which is to end.
    pub(super) diverged: bool,
    /// A snapshot that waits until the incremental before it is confirmed.
    pub(super) staged_snapshot: Option<StagedFile>,
    /// Who asked for a snapshot that was not begun.
    pub(super) snapshot_requests: Vec<RpcReplyPort<Result<Txid, Refusal>>>,
    /// Who waits for the snapshot that was begun.
    pub(super) snapshot_waiters: Vec<RpcReplyPort<Result<Txid, Refusal>>>,
    pub(super) sync_requests: SyncRequests,
    pub(super) last_snapshot: Option<Txid>,
    /// When it was stored.
    pub(super) last_snapshot_at: Option<SystemTime>,
    pub(super) txid: Option<Txid>,
    pub(super) newest: NewestTxid,
    pub(super) wal: WalFill,
    /// When a job last looked at the WAL.
    pub(super) looked: Instant,
    /// Something may be there to ship.
    pub(super) wanted: bool,
    /// Since when something may be there that storage does not have.
    pub(super) behind_since: Option<Instant>,
    /// Second looks that the last hint has had.
    looks_done: usize,
    /// When the next second look is due.
    pub(super) not_before: Option<Instant>,
    pub(super) pacing: Pacing,
    pub(super) checkpoint: CheckpointPolicy,
    /// It was written to, or asked something, since it was opened: that may go on.
    pub(super) is_used: bool,
    /// Since when there is nothing to do.
    pub(super) quiet_since: Option<Instant>,
    /// The root has the database.
    pub(super) has_rested: bool,
    epoch: u64,
    failures: u32,
    /// What went wrong last, until something succeeds.
    pub(super) last_error: Option<Refusal>,
    /// Bytes of a page of the captured state.
    pub(super) page_size: Option<u32>,
    pub(super) entries: Vec<FileEntry>,
    pub(super) manifest: ManifestState,
    /// How manifests are signed; `None` until the database was opened.
    pub(super) writer: Option<Writer>,
    /// No manifest was written since the database was opened.
    pub(super) first_manifest: bool,
    /// It is to let go of its files.
    pub(super) draining: bool,
    /// Says so to an opening that is under way.
    stop: Arc<Notify>,
    /// A sync has begun since: what is committed later is not waited for.
    last_sync_begun: bool,
}

impl DatabaseState {
    pub(super) fn new(myself: ActorRef<DatabaseMsg>, arguments: DatabaseArguments) -> Self {
        let settings = &arguments.settings;
        Self {
            pacing: Pacing::new(settings.sync_interval),
            checkpoint: CheckpointPolicy::new(settings.checkpoint, Instant::now()),
            myself,
            arguments,
            phase: DatabasePhase::Opening,
            held: None,
            staged: Vec::new(),
            outstanding: None,
            outstanding_snapshot: None,
            stored: None,
            gathers: false,
            reading: None,
            diverged: false,
            staged_snapshot: None,
            snapshot_requests: Vec::new(),
            snapshot_waiters: Vec::new(),
            sync_requests: SyncRequests::default(),
            last_snapshot: None,
            last_snapshot_at: None,
            txid: None,
            newest: NewestTxid::default(),
            wal: WalFill::default(),
            looked: Instant::now(),
            wanted: true,
            behind_since: Some(Instant::now()),
            looks_done: 0,
            not_before: None,
            is_used: false,
            quiet_since: None,
            has_rested: false,
            epoch: 0,
            failures: 0,
            last_error: None,
            page_size: None,
            entries: Vec::new(),
            manifest: ManifestState::Clean,
            writer: None,
            first_manifest: true,
            draining: false,
            stop: Arc::default(),
            last_sync_begun: false,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.arguments.settings.name
    }

    pub(super) fn open(&mut self) {
        self.phase = DatabasePhase::Opening;
        let (arguments, myself) = (self.arguments.clone(), self.myself.clone());
        let stop = Arc::clone(&self.stop);
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
        let Opened { held, new_chain, staged, wal, last_snapshot, last_snapshot_at, writer } =
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
        self.hold(held);
        (self.staged, self.wal) = (staged, wal);
        (self.last_snapshot, self.last_snapshot_at) = (last_snapshot, last_snapshot_at);
        (self.writer, self.first_manifest) = (Some(writer), true);
        self.wanted = true;
        self.report_to_scheduler();
        self.report_to_retention();
        self.report_to_validation();
        self.proceed();
    }

    /// Takes the capture back.
    pub(super) fn hold(&mut self, held: Held) {
        self.txid = held.capture.position().map(|position| position.txid);
        if let Some(txid) = self.txid {
            self.newest.reach(txid);
        }
        self.page_size = held.capture.captured().map(|position| position.page_size.get());
        self.held = Some(held);
    }

    pub(super) fn wal_changed(&mut self) {
        self.wanted = true;
        self.behind_since.get_or_insert_with(Instant::now);
        self.looks_done = 0;
        self.not_before = None;
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

    /// Decides what happens next. Every handler that changed something ends here.
    pub(super) fn proceed(&mut self) {
        if self.held.is_none() {
            return;
        }
        if let Some(name) = self.stored.take() {
            return self.start(Job::Confirm(name));
        }
        if std::mem::take(&mut self.gathers) {
            self.begin_sync();
            return self.start(Job::Gather);
        }
        self.offer_next();
        let now = Instant::now();
        if self.outstanding.is_some() {
            return self.keep_wal_small(now);
        }
        if std::mem::take(&mut self.diverged) {
            (self.wanted, self.last_sync_begun) = (true, false);
            return self.start(Job::EndHistory);
        }
        if !self.snapshot_requests.is_empty() && !self.makes_snapshot() {
            self.snapshot_waiters.append(&mut self.snapshot_requests);
            self.wanted = false;
            return self.start(Job::Snapshot);
        }
        // A writer that never pauses would never let go.
        let has_synced_last = self.draining && self.last_sync_begun;
        if (self.wanted && !has_synced_last) || self.sync_requests.any_asked() {
            let pause = self.not_before.map(|at| at.saturating_duration_since(now));
            let wait = self.pacing.wait(now).max(pause.unwrap_or_default());
            if wait.is_zero() || self.draining || self.sync_requests.any_asked() {
                self.begin_sync();
                self.not_before = None;
                return self.start(Job::Sync);
            }
            if wait < LOOK_INTERVAL {
                return self.arm(wait);
            }
            return self.keep_wal_small(now);
        }
        if self.draining {
            return self.finish_draining();
        }
        if let Some(kind) = self.checkpoint.due(&self.wal, now) {
            return self.start(Job::Checkpoint(kind));
        }
        match self.checkpoint.next_look(&self.wal, now) {
            Some(wait) => self.arm(wait),
            None => self.rest_when_quiet(now),
        }
    }

    fn begin_sync(&mut self) {
        self.wanted = false;
        self.sync_requests.begin();
        self.last_sync_begun = self.draining;
    }

    /// Offers what comes next: the oldest staged file, and the snapshot beside them.
    fn offer_next(&mut self) {
        if self.outstanding.is_none()
            && let Some(first) = self.staged.first()
        {
            self.offer_file(first.clone());
        }
        // A snapshot goes when storage has the history up to its state.
        let staged = &self.staged;
        let reached =
            |snapshot: &mut StagedFile| staged.iter().all(|file| file.name.min > snapshot.name.max);
        if let Some(snapshot) = self.staged_snapshot.take_if(reached) {
            self.offer_snapshot(snapshot);
        }
    }

    /// The next sync has to wait: looks at a growing WAL now and then, and checkpoints it if it
    /// cannot wait for the sync.
    fn keep_wal_small(&mut self, now: Instant) {
        match self.checkpoint.due(&self.wal, now) {
            Some(kind @ (CheckpointKind::Barrier { .. } | CheckpointKind::GiveUp)) => {
                self.start(Job::Checkpoint(kind));
            }
            _ if self.wanted => {
                let wait = (self.looked + LOOK_INTERVAL).saturating_duration_since(now);
                if wait.is_zero() { self.start(Job::Settle) } else { self.arm(wait) }
            }
            _ => {}
        }
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
        (self.wal, self.staged) = (wal, staged);
        self.keep_snapshot_from_filling_the_disk();
        self.looked = began;
        self.failures = 0;
        self.raise_recovered();
        match report {
            JobReport::Synced(outcome) => self.synced(outcome, began),
            JobReport::SnapshotBegun(begun) => self.snapshot_begun(begun, began),
            JobReport::Confirmed => {
                self.confirmed();
                self.gathers = !self.staged.is_empty();
                // What was committed during the upload is the next thing to ship.
                self.wanted |= self.staged.is_empty() && self.wal.frames != self.wal.shipped;
                self.caught_up();
            }
            JobReport::Checkpointed { kind, complete } => {
                let frames = wal.frames;
                tracing::debug!(db = self.name(), ?kind, complete, frames, "checkpoint");
                self.checkpoint.tried(complete, Instant::now());
            }
            JobReport::Gathered => self.pacing.began(began),
            JobReport::Settled | JobReport::HistoryEnded => {}
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
                if let Some(pause) = SECOND_LOOKS.get(self.looks_done) {
                    self.looks_done += 1;
                    self.wanted = true;
                    self.not_before = Some(Instant::now() + *pause);
                }
            }
            SyncOutcome::Staged { file, healed } => {
                if let Some(reason) = healed {
                    let (txid, pages) = (file.name.max, file.pages);
                    tracing::warn!(db = self.name(), %reason, %txid, pages, "history gap healed");
                    self.raise_healed(reason, &file);
                }
                self.is_used |= !file.name.is_snapshot();
                self.looks_done = SECOND_LOOKS.len();
                self.pacing.began(began);
            }
        }
    }

    pub(super) fn reconfigured(&mut self, settings: DatabaseSettings, revision: u64) {
        tracing::info!(db = self.name(), "follows other settings");
        self.pacing = Pacing::new(settings.sync_interval);
        self.checkpoint = CheckpointPolicy::new(settings.checkpoint, Instant::now());
        self.arguments.settings = settings;
        self.arguments.revision = revision;
        self.report_to_scheduler();
        self.report_to_retention();
        self.report_to_validation();
        self.proceed();
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.wanted = true;
        match self.phase {
            DatabasePhase::Opening => self.stop.notify_one(),
            DatabasePhase::Replicating => self.proceed(),
            _ => self.finish_draining(),
        }
    }

    /// Everything is shipped, or cannot be: writes the manifest, lets go of the database, then reports
    /// and stops.
    pub(super) fn finish_draining(&mut self) {
        if self.phase == DatabasePhase::Replicating {
            if self.snapshot_outstanding() || self.manifest_outstanding() {
                return;
            }
            if self.held.is_some() {
                return self.start(Job::Leave);
            }
        }
        self.drained();
    }

    fn drained(&mut self) {
        let problem = match self.phase {
            DatabasePhase::Replicating => None,
            _ => Some(self.refusal().reason),
        };
        let drained = RootMsg::Drained { name: self.name().to_owned(), problem };
        self.held = None;
        if self.arguments.root.cast(drained).is_err() {
            tracing::debug!(db = self.name(), "the root is gone");
        }
        // The root ends this actor with itself. Stopping here would look like a death, of which
        // the root hears before it takes the message above.
    }

    /// The database cannot be replicated now: lets go of it and tries again later.
    pub(super) fn degrade(&mut self, error: Refusal) {
        self.behind_since.get_or_insert_with(Instant::now);
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
        if self.draining {
            return self.finish_draining();
        }
        self.arm(pause);
    }

    pub(super) fn conflicted(&mut self, conflict: &Conflict) {
        self.let_go();
        self.phase = DatabasePhase::WriterConflict;
        let error = Refusal::new(Cause::Other, conflict);
        self.refuse_requests(&error);
        self.last_error = Some(error);
        if self.draining {
            self.finish_draining();
        }
    }

    fn let_go(&mut self) {
        self.held = None;
        self.staged.clear();
        self.outstanding = None;
        self.outstanding_snapshot = None;
        self.stored = None;
        self.gathers = false;
        self.reading = None;
        self.diverged = false;
        self.staged_snapshot = None;
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
