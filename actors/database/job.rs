//! The blocking jobs of a database: each takes the capture and gives it back.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use walrust_engine::{CheckpointKind, WalFill};
use walrust_ltx::FileName;
use walrust_sqlite::{BegunSnapshot, Capture, DatabaseError, StagedFile, SyncOutcome};

use super::DatabaseMsg;
use super::state::DatabaseState;
use crate::blocking::GatePass;

/// The capture of a database, with the right to use it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(super) capture: Capture,
    /// Dropped after the capture: only then may another incarnation open the files. Shared with a
    /// snapshot that is being read.
    pub(super) pass: GatePass,
}

/// A kind of job.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    Sync,
    /// Take hold of the newest state, whose pages are read later.
    Snapshot,
    /// A snapshot does not fit the history, which ends.
    EndHistory,
    /// Storage has the first staged file.
    Confirm(FileName),
    /// Storage is back and files are waiting: add what was committed since, and make one file of all.
    Gather,
    Checkpoint(CheckpointKind),
    /// Let go of the database, of which everything is in storage.
    Leave,
    /// See how full the WAL is, and choose the lock that fits it.
    Settle,
}

/// A job that ended.
#[derive(Debug)]
pub(crate) struct JobEnded {
    pub(super) held: Held,
    pub(super) began: Instant,
    pub(super) report: Result<(JobReport, CaptureState), DatabaseError>,
}

/// What a job came to.
#[derive(Debug)]
pub(super) enum JobReport {
    Synced(SyncOutcome),
    SnapshotBegun(BegunSnapshot),
    HistoryEnded,
    Confirmed,
    Gathered,
    Checkpointed { kind: CheckpointKind, complete: bool },
    Settled,
    Left,
}

/// The state of a capture after a job.
#[derive(Clone, Debug)]
pub(super) struct CaptureState {
    pub(super) wal: WalFill,
    /// Files that are staged and not confirmed.
    pub(super) staged: Vec<StagedFile>,
}

impl DatabaseState {
    /// Runs a job on the capture, which is gone until `JobEnded` brings it back.
    pub(super) fn start(&mut self, job: Job) {
        let Some(mut held) = self.held.take() else { return };
        self.quiet_since = None;
        // Before the job reads anything: what changes from now on is worth a message.
        self.arguments.notified.clear();
        let pool = self.arguments.pool.clone();
        let myself = self.myself.clone();
        let began = Instant::now();
        tokio::spawn(async move {
            let work = move || {
                let report = run(job, &mut held.capture);
                JobEnded { held, began, report }
            };
            let message = match pool.run(work).await {
                Ok(ended) => DatabaseMsg::JobEnded(Box::new(ended)),
                Err(_) => DatabaseMsg::JobLost,
            };
            // If the actor is gone, the capture is dropped with the message and the gate opens.
            let _ = myself.cast(message);
        });
    }
}

fn run(job: Job, capture: &mut Capture) -> Result<(JobReport, CaptureState), DatabaseError> {
    let report = match job {
        Job::Sync => JobReport::Synced(capture.sync(now_ms())?),
        Job::Snapshot => JobReport::SnapshotBegun(capture.begin_snapshot(now_ms())?),
        Job::EndHistory => {
            capture.end_history()?;
            JobReport::HistoryEnded
        }
        Job::Confirm(name) => {
            capture.confirm(name)?;
            JobReport::Confirmed
        }
        Job::Gather => {
            capture.sync(now_ms())?;
            capture.merge_staged(0)?;
            JobReport::Gathered
        }
        Job::Checkpoint(kind) => {
            let complete = capture.checkpoint(kind, now_ms())?;
            // The first may be on its way to storage, or there already.
            capture.merge_staged(1)?;
            JobReport::Checkpointed { kind, complete }
        }
        Job::Leave => {
            if let Err(error) = capture.leave() {
                // Everything is in storage, and the next start finds the WAL as it is.
                tracing::warn!(%error, "the WAL of a database stays behind");
            }
            let state = CaptureState { wal: WalFill::default(), staged: Vec::new() };
            return Ok((JobReport::Left, state));
        }
        Job::Settle => {
            capture.settle()?;
            JobReport::Settled
        }
    };
    let wal = capture.wal_fill()?;
    Ok((report, CaptureState { wal, staged: capture.staged() }))
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
