//! Checkpoints that walrust runs.
//!
//! Invariant: the WAL can restart only when every committed frame is confirmed by storage or staged.
//! A quiet checkpoint copies what the pin's mark allows and moves the pin to read lock 0 only if
//! nothing was written meanwhile. Under the barrier nobody writes: the rest is staged, the pin is
//! given back, all frames are copied, and the pin is taken again, before the writers go on.
//!
//! In a crash in between, the staged files lead to the state that was copied. The last of them is
//! synced after the writers go on; if power is lost before, the database file has what it says, and
//! the next start compares the pages.
//!
//! The result row of each checkpoint is checked, and then the wal-index: what it says counts.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use walrust_engine::CheckpointKind;

use super::{Capture, History};
use crate::{Clock, DatabaseError, WalPin, connection};

/// How often the barrier looks whether the writer has ended its transaction, and how many times:
/// for a quarter of a second. SQLite's own pauses grow, and writers that do not pause would always
/// be there again.
const WRITER_PAUSE: Duration = Duration::from_micros(100);
const WRITER_LOOKS: i32 = 2_500;
/// Rounds of copying beside the writers before they are stopped.
const ROUNDS: u32 = 6;
/// How long the barrier waits for a checkpoint of the application to end, and how often it looks.
const CHECKPOINTER_PATIENCE: Duration = Duration::from_millis(50);
const CHECKPOINTER_PAUSE: Duration = Duration::from_millis(1);
/// How long a truncation waits for readers and writers.
const TRUNCATE_PATIENCE: Duration = Duration::from_millis(50);

impl Capture {
    /// Runs a checkpoint. Returns whether the whole WAL is in the database file and the next writer
    /// may restart it.
    ///
    /// # Errors
    /// If SQLite fails for another reason than a lock, or the rest of the WAL cannot be staged. The
    /// pin is held again then, or the capture is to be dropped.
    pub fn checkpoint(
        &mut self,
        kind: CheckpointKind,
        clock: impl Clock,
    ) -> Result<bool, DatabaseError> {
        if matches!(self.history, History::Begin { .. }) {
            return Ok(false);
        }
        self.prepare()?;
        let worker = connection::open(self.reader.files.path())?;
        let complete = match kind {
            CheckpointKind::Quiet => self.quiet_checkpoint(&worker)?,
            CheckpointKind::Truncate => {
                self.quiet_checkpoint(&worker)? && self.truncate(&worker)?
            }
            CheckpointKind::Barrier { truncate } => {
                let complete = self.checkpoint_all(&worker, &clock)?;
                if complete && truncate {
                    self.truncate(&worker)?;
                }
                complete
            }
            CheckpointKind::GiveUp => {
                tracing::warn!(
                    path = %self.reader.files.path().display(),
                    "the WAL is over its limit and cannot be checkpointed: the pin is given up"
                );
                self.reader.pin.release(&self.reader.files)?;
                passive(&worker).map_err(self.checkpoint_error())?;
                return Ok(false);
            }
        };
        if self.wal_pin == WalPin::None {
            self.reader.pin.release(&self.reader.files)?;
        }
        self.note_file()?;
        Ok(complete)
    }

    /// Copies what the pin allows, and lets the WAL restart if that was everything.
    fn quiet_checkpoint(&mut self, worker: &Connection) -> Result<bool, DatabaseError> {
        let Some(captured) = self.captured_wal() else { return Ok(false) };
        self.reader.pin.mark(&self.reader.files, 1)?;
        self.reader.pin.advance(&self.reader.files, &captured)?;
        passive(worker).map_err(self.checkpoint_error())?;
        self.reader.pin.settle(&self.reader.files, &captured)?;
        self.reader.files.is_settled_at(&captured)
    }

    /// Copies everything, beside the writers if they pause for long enough, else under the barrier.
    ///
    /// Only the bulk is synced before it is copied. If power is lost before the rest is, what was
    /// written is in the database file, and the pages are compared at the next start; so the writers
    /// need not wait for it.
    fn checkpoint_all(
        &mut self,
        worker: &Connection,
        clock: &dyn Clock,
    ) -> Result<bool, DatabaseError> {
        self.stage_new(clock)?;
        self.queue.make_durable(&self.state.staging())?;
        let complete =
            self.copy_beside_writers(worker, clock)? || self.copy_under_barrier(worker, clock)?;
        self.queue.make_durable(&self.state.staging())?;
        Ok(complete)
    }

    fn copy_under_barrier(
        &mut self,
        worker: &Connection,
        clock: &dyn Clock,
    ) -> Result<bool, DatabaseError> {
        let mut barrier = connection::open(self.reader.files.path())?;
        let begun = barrier
            .busy_handler(Some(wait_for_writer))
            .and_then(|()| barrier.execute_batch("BEGIN IMMEDIATE"));
        match begun {
            Ok(()) => {}
            Err(error) if is_busy(&error) => return Ok(false),
            Err(error) => return Err(self.barrier_error()(error)),
        }
        let stopped = Instant::now();
        // Nobody waits while all of a large database is read: that is done before another barrier.
        let allowed = std::mem::replace(&mut self.reads_whole, false);
        let result = self.checkpoint_stopped_writers(worker, clock);
        self.reads_whole = allowed;
        connection::end_read(&barrier);
        tracing::debug!(
            path = %self.reader.files.path().display(),
            elapsed_us = stopped.elapsed().as_micros(),
            "writers were stopped for a checkpoint"
        );
        result
    }

    /// Stages and copies what there is while the writers go on, so that little is left for the
    /// barrier: each round has what was written during the one before. If nothing was, which happens
    /// between two commits of a writer that is not very busy, no barrier is needed: returns `true`.
    fn copy_beside_writers(
        &mut self,
        worker: &Connection,
        clock: &dyn Clock,
    ) -> Result<bool, DatabaseError> {
        for _ in 0..ROUNDS {
            // What is staged after the mark was set reaches at least as far as the mark.
            self.reader.pin.mark(&self.reader.files, 1)?;
            self.stage_new(clock)?;
            let Some(captured) = self.captured_wal() else { return Ok(false) };
            self.reader.pin.advance(&self.reader.files, &captured)?;
            // One that the application runs meanwhile would go on under the barrier.
            passive_after_others(worker).map_err(self.checkpoint_error())?;
            self.reader.pin.settle(&self.reader.files, &captured)?;
            if self.reader.files.is_settled_at(&captured)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The part for which the writers wait.
    fn checkpoint_stopped_writers(
        &mut self,
        worker: &Connection,
        clock: &dyn Clock,
    ) -> Result<bool, DatabaseError> {
        self.stage_new(clock)?;
        let index = self.reader.files.wal_index()?;
        let captured = match self.captured_wal() {
            Some(wal) if (wal.salts, wal.frames) == (index.header.salts, index.header.mx_frame) => {
                wal
            }
            // Still something that is not staged: keep it.
            _ => return Ok(false),
        };
        self.reader.pin.release(&self.reader.files)?;
        let copied = passive_after_others(worker);
        // Before any error is looked at: nothing may be written without a pin.
        self.reader.pin.hold(&self.reader.files, Some(&captured))?;
        copied.map_err(self.checkpoint_error())?;
        self.reader.files.is_settled_at(&captured)
    }

    /// Shortens the WAL file, which nobody needs any more, under read lock 0.
    fn truncate(&mut self, worker: &Connection) -> Result<bool, DatabaseError> {
        worker
            .busy_timeout(TRUNCATE_PATIENCE)
            .map_err(DatabaseError::sqlite("set the patience", self.reader.files.path()))?;
        // Whatever a writer adds before this has the locks is kept by the pin.
        let copied = checkpoint(worker, "TRUNCATE").map_err(self.checkpoint_error())?;
        Ok(copied == Copied::All)
    }

    fn checkpoint_error(&self) -> impl FnOnce(rusqlite::Error) -> DatabaseError + use<> {
        let path = self.reader.files.path().to_owned();
        move |error| DatabaseError::sqlite("checkpoint the WAL", &path)(error)
    }

    fn barrier_error(&self) -> impl FnOnce(rusqlite::Error) -> DatabaseError + use<> {
        let path = self.reader.files.path().to_owned();
        move |error| DatabaseError::sqlite("stop the writers for a checkpoint", &path)(error)
    }
}

/// Called with the number of looks before.
fn wait_for_writer(looks: i32) -> bool {
    std::thread::sleep(WRITER_PAUSE);
    looks < WRITER_LOOKS
}

/// What a checkpoint came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copied {
    /// All frames are in the database file.
    All,
    /// Readers, or a file that may not be written to, stood in the way.
    Part,
    /// Another checkpoint is at work, or somebody holds a lock.
    Busy,
}

/// Copies frames up to the lowest mark of any reader; waits for nobody.
fn passive(connection: &Connection) -> rusqlite::Result<Copied> {
    checkpoint(connection, "PASSIVE")
}

/// As [`passive`], but lets a checkpoint that is at work end first: SQLite itself does not wait.
fn passive_after_others(connection: &Connection) -> rusqlite::Result<Copied> {
    let begun = Instant::now();
    loop {
        match passive(connection)? {
            Copied::Busy if begun.elapsed() < CHECKPOINTER_PATIENCE => {
                std::thread::sleep(CHECKPOINTER_PAUSE);
            }
            copied => return Ok(copied),
        }
    }
}

fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Copied> {
    let row = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    match row {
        Ok((0, log, checkpointed)) if log == checkpointed => Ok(Copied::All),
        Ok((0, ..)) => Ok(Copied::Part),
        Ok(_) => Ok(Copied::Busy),
        Err(error) if is_busy(&error) => Ok(Copied::Busy),
        Err(error) if is_read_only(&error) => Ok(Copied::Part),
        Err(error) => Err(error),
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn is_read_only(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ReadOnly)
}
