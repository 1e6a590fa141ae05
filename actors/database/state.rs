//! The state of a database's actor, and the one place that decides what happens next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{ActorRef, RpcReplyPort};
use walrust_engine::manifest::FileEntry;
use walrust_engine::{CheckpointKind, CheckpointPolicy, Pacing, WalFill};
use walrust_ltx::{FileName, Txid};
use walrust_sqlite::{StagedFile, SyncOutcome};

use super::job::{CaptureState, Held, Job, JobEnded, JobReport};
use super::open::{OpenOutcome, Opened, open};
use super::shipping::ManifestState;
use super::snapshot_reading::Reading;
use super::{DatabaseArguments, DatabaseMsg, Refusal};
use crate::manifest_update::Writer;
use crate::root::RootMsg;
use crate::status::{DatabasePhase, DatabaseStatus};
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
    /// The file whose upload was offered and has not ended: the first of `staged`, or a snapshot.
    pub(super) outstanding: Option<Arc<StagedFile>>,
    /// A file that storage has, and the capture does not know yet.
    pub(super) stored: Option<FileName>,
    /// A snapshot whose pages are being read.
    pub(super) reading: Option<Reading>,
    /// A snapshot does not fit the history, which is to end.
    pub(super) diverged: bool,
    /// A snapshot that waits until the incremental before it is confirmed.
    pub(super) staged_snapshot: Option<StagedFile>,
    /// Who asked for a snapshot that was not begun.
    snapshot_requests: Vec<RpcReplyPort<Result<Txid, Refusal>>>,
    /// Who waits for the snapshot that was begun.
    pub(super) snapshot_waiters: Vec<RpcReplyPort<Result<Txid, Refusal>>>,
    pub(super) last_snapshot: Option<Txid>,
    pub(super) txid: Option<Txid>,
    pub(super) wal: WalFill,
    /// When a job last looked at the WAL.
    looked: Instant,
    /// Something may be there to ship.
    wanted: bool,
    /// Second looks that the last hint has had.
    looks_done: usize,
    /// When the next second look is due.
    not_before: Option<Instant>,
    pub(super) pacing: Pacing,
    checkpoint: CheckpointPolicy,
    epoch: u64,
    failures: u32,
    pub(super) last_error: Option<String>,
    pub(super) entries: Vec<FileEntry>,
    pub(super) manifest: ManifestState,
    /// How manifests are signed; `None` until the database was opened.
    pub(super) writer: Option<Writer>,
    /// No manifest was written since the database was opened.
    pub(super) first_manifest: bool,
    pub(super) draining: bool,
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
            stored: None,
            reading: None,
            diverged: false,
            staged_snapshot: None,
            snapshot_requests: Vec::new(),
            snapshot_waiters: Vec::new(),
            last_snapshot: None,
            txid: None,
            wal: WalFill::default(),
            looked: Instant::now(),
            wanted: true,
            looks_done: 0,
            not_before: None,
            epoch: 0,
            failures: 0,
            last_error: None,
            entries: Vec::new(),
            manifest: ManifestState::Clean,
            writer: None,
            first_manifest: true,
            draining: false,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.arguments.settings.name
    }

    pub(super) fn open(&mut self) {
        self.phase = DatabasePhase::Opening;
        let (arguments, myself) = (self.arguments.clone(), self.myself.clone());
        tokio::spawn(async move {
            let outcome = open(arguments).await;
            // If the actor is gone, the capture is dropped with the message and the gate opens.
            let _ = myself.cast(DatabaseMsg::Opened(outcome));
        });
    }

    pub(super) fn opened(&mut self, outcome: OpenOutcome) {
        let opened = match outcome {
            OpenOutcome::Opened(opened) => *opened,
            OpenOutcome::Failed(error) => return self.degrade(&error.to_string()),
        };
        let Opened { held, new_chain, staged, wal, last_snapshot, writer } = opened;
        self.txid = held.capture.position().map(|position| position.txid);
        match new_chain {
            Some(txid) => tracing::info!(db = self.name(), %txid, "a snapshot begins a new chain"),
            None => {
                let txid = self.txid.map(tracing::field::display);
                tracing::info!(db = self.name(), txid, "continues");
            }
        }
        self.phase = DatabasePhase::Replicating;
        self.held = Some(held);
        (self.staged, self.wal) = (staged, wal);
        self.last_snapshot = last_snapshot;
        (self.writer, self.first_manifest) = (Some(writer), true);
        self.wanted = true;
        self.proceed();
    }

    pub(super) fn wal_changed(&mut self) {
        self.wanted = true;
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
        self.offer_next();
        let now = Instant::now();
        if self.outstanding.is_some() {
            return self.keep_wal_small(now);
        }
        if std::mem::take(&mut self.diverged) {
            self.wanted = true;
            return self.start(Job::EndHistory);
        }
        if !self.snapshot_requests.is_empty() && self.reading.is_none() {
            self.snapshot_waiters.append(&mut self.snapshot_requests);
            self.wanted = false;
            return self.start(Job::Snapshot);
        }
        if self.wanted {
            let pause = self.not_before.map(|at| at.saturating_duration_since(now));
            let wait = self.pacing.wait(now).max(pause.unwrap_or_default());
            if wait.is_zero() || self.draining {
                self.wanted = false;
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
        if let Some(wait) = self.checkpoint.next_look(&self.wal, now) {
            self.arm(wait);
        }
    }

    /// Offers what comes next, if nothing is on its way: the oldest staged file, or the snapshot
    /// behind them.
    fn offer_next(&mut self) {
        if self.outstanding.is_some() {
            return;
        }
        if let Some(first) = self.staged.first() {
            self.offer_file(first.clone());
        } else if let Some(snapshot) = self.staged_snapshot.take() {
            self.offer_file(snapshot);
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
                return self.degrade(&error.to_string());
            }
        };
        self.txid = held.capture.position().map(|position| position.txid);
        self.held = Some(held);
        (self.wal, self.staged) = (wal, staged);
        self.keep_snapshot_from_filling_the_disk();
        self.looked = began;
        self.failures = 0;
        match report {
            JobReport::Synced(outcome) => self.synced(outcome, began),
            JobReport::SnapshotBegun(begun) => self.snapshot_begun(begun, began),
            JobReport::Confirmed => {
                self.confirmed();
                // What was committed during the upload is the next thing to ship.
                self.wanted |= self.staged.is_empty() && self.wal.frames != self.wal.shipped;
            }
            JobReport::Checkpointed { kind, complete } => {
                let frames = wal.frames;
                tracing::debug!(db = self.name(), ?kind, complete, frames, "checkpoint");
                self.checkpoint.tried(complete, Instant::now());
            }
            JobReport::Settled | JobReport::HistoryEnded => {}
            JobReport::Left => return self.drained(),
        }
        self.proceed();
    }

    fn synced(&mut self, outcome: SyncOutcome, began: Instant) {
        match outcome {
            SyncOutcome::UpToDate => {
                self.last_error = None;
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
                }
                self.looks_done = SECOND_LOOKS.len();
                self.pacing.began(began);
            }
        }
    }

    pub(super) fn snapshot_requested(&mut self, reply: RpcReplyPort<Result<Txid, Refusal>>) {
        match self.phase {
            DatabasePhase::Opening | DatabasePhase::Replicating => {
                self.snapshot_requests.push(reply);
                self.proceed();
            }
            DatabasePhase::Degraded | DatabasePhase::WriterConflict => {
                let error = self.last_error.clone().unwrap_or_else(|| self.phase.to_string());
                answer(reply, Err(Refusal { reason: error, storage: false }));
            }
        }
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.wanted = true;
        match self.phase {
            DatabasePhase::Opening | DatabasePhase::Replicating => self.proceed(),
            DatabasePhase::Degraded | DatabasePhase::WriterConflict => self.finish_draining(),
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
            _ => Some(self.last_error.clone().unwrap_or_else(|| self.phase.to_string())),
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
    pub(super) fn degrade(&mut self, error: &str) {
        let pause = MIN_PAUSE.saturating_mul(1 << self.failures.min(10)).min(MAX_PAUSE);
        self.failures = self.failures.saturating_add(1);
        // An upload under way goes on; the next opening finds its file in the bucket.
        self.let_go();
        if self.last_error.as_deref() != Some(error) {
            tracing::error!(db = self.name(), error, "not replicated, will be tried again");
        }
        self.phase = DatabasePhase::Degraded;
        self.last_error = Some(error.to_owned());
        self.refuse_snapshots(error, false);
        if self.draining {
            return self.finish_draining();
        }
        self.arm(pause);
    }

    pub(super) fn conflicted(&mut self, conflict: &Conflict) {
        self.let_go();
        self.phase = DatabasePhase::WriterConflict;
        let error = conflict.to_string();
        self.refuse_snapshots(&error, false);
        self.last_error = Some(error);
        if self.draining {
            self.finish_draining();
        }
    }

    fn let_go(&mut self) {
        self.held = None;
        self.staged.clear();
        self.outstanding = None;
        self.stored = None;
        self.reading = None;
        self.diverged = false;
        self.staged_snapshot = None;
        self.forget_offers();
    }

    pub(super) fn refuse_snapshots(&mut self, error: &str, storage: bool) {
        let requests = std::mem::take(&mut self.snapshot_requests);
        let waiters = std::mem::take(&mut self.snapshot_waiters);
        for reply in requests.into_iter().chain(waiters) {
            answer(reply, Err(Refusal { reason: error.to_owned(), storage }));
        }
    }

    pub(super) fn report_status(&self, reply: RpcReplyPort<DatabaseStatus>) {
        let up_to_date = self.phase == DatabasePhase::Replicating
            && self.held.is_some()
            && self.outstanding.is_none()
            && self.staged.is_empty()
            && !self.wanted
            && self.txid.is_some();
        answer(
            reply,
            DatabaseStatus {
                name: self.name().to_owned(),
                phase: self.phase,
                txid: self.txid,
                up_to_date,
                last_error: self.last_error.clone(),
            },
        );
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
