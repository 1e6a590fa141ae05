//! The blocking jobs of a database: each takes the capture and gives it back.

use std::time::Instant;

use walrust_engine::{CheckpointKind, WalFill};
use walrust_ltx::FileName;
use walrust_sqlite::{BegunSnapshot, Capture, DatabaseError, StagedFile, SyncOutcome, SystemClock};

use super::DatabaseMsg;
use super::state::DatabaseState;
use crate::blocking::GatePass;
use crate::crash_point::job_point;

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
    Checkpointed {
        kind: CheckpointKind,
        complete: bool,
    },
    Settled {
        /// A sync would find something.
        has_news: bool,
    },
    Left,
    /// It would read all of a large database: it is to be done in the lane of long jobs.
    TooLong(Job),
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
        self.start_in(Lane::Short, job);
    }

    /// Runs a job that was found to be [too long](JobReport::TooLong) beside the others.
    pub(super) fn start_long(&mut self, job: Job) {
        self.start_in(Lane::Long, job);
    }

    fn start_in(&mut self, lane: Lane, job: Job) {
        let Some(mut held) = self.held.take() else { return };
        self.rest.quiet_since = None;
        // Before the job reads anything: what changes from now on is worth a message.
        self.arguments.notified.clear();
        let pool = self.arguments.pool.clone();
        let myself = self.myself.clone();
        let began = Instant::now();
        tokio::spawn(async move {
            let work = move || {
                job_point(lane.job_point());
                held.capture.allow_whole_reads(lane == Lane::Long);
                let report = run(job, &mut held.capture);
                JobEnded { held, began, report }
            };
            let ended = match lane {
                Lane::Short => pool.run(work).await,
                Lane::Long => pool.run_long(work).await,
            };
            let message = match ended {
                Ok(ended) => DatabaseMsg::JobEnded(Box::new(ended)),
                Err(_) => DatabaseMsg::JobLost,
            };
            // If the actor is gone, the capture is dropped with the message and the gate opens.
            let _ = myself.cast(message);
        });
    }
}

/// Which threads of the pool a job may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Short,
    /// So that a large database that is read as a whole holds up no other database.
    Long,
}

impl Lane {
    fn job_point(self) -> &'static str {
        match self {
            Self::Short => "database::short_job",
            Self::Long => "database::long_job",
        }
    }
}

fn run(job: Job, capture: &mut Capture) -> Result<(JobReport, CaptureState), DatabaseError> {
    let report = match carry_out(job, capture) {
        Err(DatabaseError::ReadsWhole { .. }) => JobReport::TooLong(job),
        report => report?,
    };
    if matches!(report, JobReport::Left) {
        return Ok((report, CaptureState { wal: WalFill::default(), staged: Vec::new() }));
    }
    let wal = capture.wal_fill()?;
    Ok((report, CaptureState { wal, staged: capture.staged() }))
}

fn carry_out(job: Job, capture: &mut Capture) -> Result<JobReport, DatabaseError> {
    Ok(match job {
        Job::Sync => JobReport::Synced(capture.sync(SystemClock)?),
        Job::Snapshot => JobReport::SnapshotBegun(capture.begin_snapshot(SystemClock)?),
        Job::EndHistory => {
            capture.end_history()?;
            JobReport::HistoryEnded
        }
        Job::Confirm(name) => {
            capture.confirm(name)?;
            JobReport::Confirmed
        }
        Job::Gather => {
            capture.sync(SystemClock)?;
            capture.merge_staged(0)?;
            JobReport::Gathered
        }
        Job::Checkpoint(kind) => {
            let complete = capture.checkpoint(kind, SystemClock)?;
            // The first may be on its way to storage, or there already.
            capture.merge_staged(1)?;
            JobReport::Checkpointed { kind, complete }
        }
        Job::Leave => {
            if let Err(error) = capture.leave() {
                // Everything is in storage, and the next start finds the WAL as it is.
                tracing::warn!(%error, "the WAL of a database stays behind");
            }
            JobReport::Left
        }
        Job::Settle => {
            capture.settle()?;
            JobReport::Settled { has_news: capture.has_news()? }
        }
    })
}
