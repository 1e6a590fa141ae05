//! A snapshot whose pages are being read, beside the jobs that have the capture.
//!
//! # Consistency
//! The job that begins a snapshot stages what was not captured before it and takes hold of one state.
//! Reading it may take minutes, in which the capture goes on. The snapshot is offered when storage
//! has the history up to its state.
//!
//! # Crash, stop
//! Whoever lets go of the database aborts the reading, which ends within a page. It holds the
//! database's gate, so another incarnation does not open the files beside it.
//!
//! # Back-pressure
//! One snapshot of a database at a time. While it is read the WAL cannot restart: if the WAL grows too
//! much meanwhile, the snapshot is given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use walrust_sqlite::{BegunSnapshot, DatabaseError, SnapshotReader, StagedFile};

use super::state::DatabaseState;
use super::{Cause, DatabaseMsg, Refusal};
use crate::crash_point::job_point;

/// A snapshot that is being read; dropping it aborts that.
#[derive(Debug)]
pub(super) struct Reading {
    abort: Arc<AtomicBool>,
    /// Frames of the WAL when it began.
    frames: u32,
}

impl Reading {
    fn abort(&self) {
        self.abort.store(true, Ordering::Relaxed);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.abort();
    }
}

/// How a reading ended; without a file if it was aborted.
pub(crate) type ReadingOutcome = Result<Option<StagedFile>, DatabaseError>;

impl DatabaseState {
    pub(super) fn snapshot_begun(&mut self, begun: BegunSnapshot, began: Instant) {
        let BegunSnapshot { before, reader } = begun;
        self.look.pacing.began(began);
        // Of a state that has a snapshot already no second one is stored.
        match reader.filter(|reader| Some(reader.txid()) != self.snapshots.last) {
            Some(reader) => self.read_snapshot(reader),
            None if before.is_empty() => {
                if let Some(txid) = self.txid {
                    self.check_snapshot(txid);
                }
            }
            // A base snapshot is on its way, and who waits is told when storage has it.
            None => {}
        }
    }

    fn read_snapshot(&mut self, reader: SnapshotReader) {
        let Some(held) = &self.held else { return };
        let abort = Arc::new(AtomicBool::new(false));
        self.snapshots.reading =
            Some(Reading { abort: Arc::clone(&abort), frames: self.wal.frames });
        let (pool, myself) = (self.arguments.pool.clone(), self.myself.clone());
        let pass = held.pass.clone();
        tokio::spawn(async move {
            let read = move || {
                job_point("database::snapshot_reading");
                reader.stage(&abort)
            };
            let message = match pool.run_long(read).await {
                Ok(outcome) => DatabaseMsg::SnapshotRead(Box::new(outcome)),
                Err(_) => DatabaseMsg::JobLost,
            };
            // If the actor is gone, the next incarnation clears what was staged.
            let _ = myself.cast(message);
            // Only now another opening may begin, whose messages come later than this one.
            drop(pass);
        });
    }

    /// The pages of a snapshot were read, or not.
    pub(super) fn snapshot_read(&mut self, outcome: ReadingOutcome) {
        if self.snapshots.reading.take().is_none() {
            // The database was let go of meanwhile.
            if let Ok(Some(file)) = outcome {
                self.remove_snapshot(&file);
            }
            return;
        }
        match outcome {
            Ok(Some(file)) => self.snapshots.staged = Some(file),
            Ok(None) => {
                let reason = "the snapshot was given up before all was read";
                self.refuse_snapshots(&Refusal::new(Cause::Database, reason));
            }
            Err(error @ DatabaseError::Diverged { .. }) => {
                // Who waits for a snapshot gets the one that begins the new chain.
                tracing::error!(db = self.name(), %error, "a snapshot does not fit its history");
                self.raise_corruption(&error.to_string());
                self.last_error = Some(Refusal::from(&error));
                self.healing.ends = Some(error.to_string());
            }
            Err(error) => {
                // The history goes on without it.
                tracing::error!(db = self.name(), %error, "a snapshot cannot be read");
                self.refuse_snapshots(&Refusal::from(&error));
            }
        }
        self.proceed();
    }

    /// Gives up a snapshot during which the WAL has grown by half of the size at which its pin would
    /// be given up: that would cost the history, a snapshot can be made later.
    pub(super) fn keep_snapshot_from_filling_the_disk(&mut self) {
        let limit = self.arguments.settings.checkpoint.limit_pages;
        let Some(reading) = &self.snapshots.reading else { return };
        let grown = self.wal.frames.saturating_sub(reading.frames);
        if limit > 0 && grown >= limit / 2 {
            tracing::warn!(db = self.name(), grown, "a snapshot is given up: the WAL grows");
            reading.abort();
        }
    }

    /// Before stopping: whether a snapshot is still being read. One that nobody waits for is aborted.
    pub(super) fn snapshot_outstanding(&self) -> bool {
        let Some(reading) = &self.snapshots.reading else { return false };
        if self.snapshots.waiters.iter().all(ractor::RpcReplyPort::is_closed) {
            reading.abort();
        }
        true
    }
}
