//! The detached pin: byte-range locks on the files of a database, without a SQLite connection.
//!
//! Three locks, each of which prevents one way to lose frames (`tests/locks.rs` proves each):
//!
//! * a byte of the shared range of the database file: the last connection of the application to
//!   close would otherwise checkpoint without regard to readers and delete the WAL;
//! * the dead man's switch of the `-shm` file: the next connection to open would otherwise rebuild
//!   the wal-index;
//! * a read lock of the `-shm` file. At a read mark (slots 1 to 4): the WAL cannot restart, and is
//!   not backfilled past the mark. Read lock 0: nothing can be backfilled. It is taken only when
//!   all frames are captured and backfilled, so the next writer may restart the WAL, and what it
//!   writes stays there.
//!
//! The first two are held as long as the files are open. The third moves: the new lock is always
//! taken before the old one is given back, and what it was chosen for is read again after it was
//! taken.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use walrust_engine::{PinRecord, WalPosition};
use walrust_wal::{DATABASE_SHARED_BYTE, READ_MARK_UNUSED, SHM_DMS, Salts, shm_read_lock};

use crate::DatabaseError;
use crate::connection;
use crate::database_files::DatabaseFiles;
use crate::ofd_lock::{is_unsupported, try_lock_shared, unlock};

/// How often a lock is tried that others hold exclusively for a moment.
const ATTEMPTS: u32 = 200;

/// Byte-range locks that pin a WAL.
#[derive(Debug, Default)]
pub(crate) struct DetachedPin {
    held: Option<ReadLock>,
    /// A newer mark beside the held one, for [`advance`](Self::advance).
    marked: Option<Mark>,
    /// The state of the WAL when the pin began, which no later change of locks interrupted.
    since: Option<Since>,
}

/// The read lock that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadLock {
    /// Read lock 0.
    Zero,
    Mark(Mark),
}

/// One of the slots 1 to 4, held at its read mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    slot: usize,
    frames: u32,
    salts: Salts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Since {
    salts: Salts,
    frames: u32,
}

/// Locks the database file against the last close; `Ok(false)` if this system has no such locks.
pub(crate) fn lock_database(path: &Path, database: &File) -> Result<bool, DatabaseError> {
    for _ in 0..ATTEMPTS {
        match try_lock_shared(database, DATABASE_SHARED_BYTE) {
            Ok(true) => return Ok(true),
            Ok(false) => pause(),
            Err(error) if is_unsupported(&error) => return Ok(false),
            Err(error) => return Err(lock_error(path)(error)),
        }
    }
    Err(DatabaseError::Locked { path: path.to_owned() })
}

/// Locks the wal-index against being rebuilt. A connection must be open that keeps it whole.
pub(crate) fn lock_wal_index(files: &DatabaseFiles) -> Result<(), DatabaseError> {
    for _ in 0..ATTEMPTS {
        if try_lock_shared(files.shm(), SHM_DMS).map_err(lock_error(files.path()))? {
            return Ok(());
        }
        pause();
    }
    Err(DatabaseError::Locked { path: files.path().to_owned() })
}

/// Gives the locks back that are held as long as the files are open.
pub(crate) fn unlock_files(files: &DatabaseFiles) -> Result<(), DatabaseError> {
    unlock(files.shm(), SHM_DMS)
        .and_then(|()| unlock(files.database(), DATABASE_SHARED_BYTE))
        .map_err(lock_error(files.path()))
}

impl DetachedPin {
    pub(crate) fn hold(
        &mut self,
        files: &DatabaseFiles,
        captured: Option<&WalPosition>,
    ) -> Result<(), DatabaseError> {
        if self.held.is_some() {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            if let Some(captured) = captured
                && self.try_zero(files, captured)?
            {
                return Ok(());
            }
            let mut lock = None;
            if files.wal_index()?.header.mx_frame > 0 {
                lock = lock_newest_mark(files, &[])?.map(ReadLock::Mark);
            }
            let index = files.wal_index()?;
            // Readers of an empty or backfilled WAL take read lock 0, so there may be no mark.
            if lock.is_none() && index.backfilled == index.header.mx_frame {
                lock = lock_zero(files)?.then_some(ReadLock::Zero);
            }
            if lock.is_some() {
                let header = files.wal_index()?.header;
                self.held = lock;
                self.since = Some(Since { salts: header.salts, frames: header.mx_frame });
                return Ok(());
            }
            pause();
        }
        Err(DatabaseError::Locked { path: files.path().to_owned() })
    }

    pub(crate) fn release(&mut self, files: &DatabaseFiles) -> Result<(), DatabaseError> {
        self.since = None;
        if let Some(mark) = self.marked.take() {
            unlock_mark(files, mark)?;
        }
        match self.held.take() {
            Some(ReadLock::Zero) => unlock_zero(files),
            Some(ReadLock::Mark(mark)) => unlock_mark(files, mark),
            None => Ok(()),
        }
    }

    pub(crate) fn record(&self) -> Option<PinRecord> {
        let Since { salts, frames } = self.since?;
        let holds = match self.held? {
            ReadLock::Zero => None,
            ReadLock::Mark(mark) => Some(mark.salts),
        };
        Some(PinRecord { salts, frames, holds })
    }

    pub(crate) fn mark(
        &mut self,
        files: &DatabaseFiles,
        distance: u32,
    ) -> Result<(), DatabaseError> {
        let frames = files.wal_index()?.header.mx_frame;
        match self.held {
            Some(ReadLock::Zero) if frames >= distance => {
                let mark = lock_newest_mark(files, &[])?;
                self.leave_zero(files, mark)
            }
            Some(ReadLock::Mark(held)) => {
                let newest = self.marked.unwrap_or(held);
                if frames.saturating_sub(newest.frames) >= distance
                    && let Some(mark) = lock_newest_mark(files, &[held, newest])?
                    && let Some(older) = self.marked.replace(mark)
                {
                    unlock_mark(files, older)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn advance(
        &mut self,
        files: &DatabaseFiles,
        safe: &WalPosition,
    ) -> Result<(), DatabaseError> {
        let Some(marked) = self.marked else { return Ok(()) };
        if marked.salts != safe.salts || marked.frames > safe.frames {
            return Ok(());
        }
        self.marked = None;
        if let Some(ReadLock::Mark(old)) = self.held.replace(ReadLock::Mark(marked)) {
            unlock_mark(files, old)?;
        }
        Ok(())
    }

    pub(crate) fn settle(
        &mut self,
        files: &DatabaseFiles,
        captured: &WalPosition,
    ) -> Result<(), DatabaseError> {
        match self.held {
            None => Ok(()),
            Some(ReadLock::Mark(_)) => self.try_zero(files, captured).map(|_| ()),
            Some(ReadLock::Zero) => {
                let Some(since) = self.since else { return Ok(()) };
                let header = files.wal_index()?.header;
                let now = Since { salts: header.salts, frames: header.mx_frame };
                if now.frames == 0 && (now.salts, 0) == (captured.salts, captured.frames) {
                    // A checkpoint of an empty WAL changes its salts, and nothing else. What was
                    // captured of it is where the pin begins.
                    self.since = Some(now);
                }
                if now == since || now.frames == 0 {
                    return Ok(());
                }
                // One that a reader has set is good enough; the next `mark` sets its own.
                let mark = lock_mark(files, &[])?;
                self.leave_zero(files, mark)
            }
        }
    }

    /// Moves from read lock 0 to a mark that is held already. The frames up to here were kept by
    /// read lock 0, so it is pinned since then.
    fn leave_zero(
        &mut self,
        files: &DatabaseFiles,
        mark: Option<Mark>,
    ) -> Result<(), DatabaseError> {
        let Some(mark) = mark else { return Ok(()) };
        self.held = Some(ReadLock::Mark(mark));
        unlock_zero(files)
    }

    /// Moves to read lock 0 if all frames are captured and backfilled.
    fn try_zero(
        &mut self,
        files: &DatabaseFiles,
        captured: &WalPosition,
    ) -> Result<bool, DatabaseError> {
        if !files.is_settled_at(captured)? || !lock_zero(files)? {
            return Ok(false);
        }
        if !files.is_settled_at(captured)? {
            unlock_zero(files)?;
            return Ok(false);
        }
        let (held, marked) = (self.held.replace(ReadLock::Zero), self.marked.take());
        self.since = Some(Since { salts: captured.salts, frames: captured.frames });
        let held = match held {
            Some(ReadLock::Mark(mark)) => Some(mark),
            _ => None,
        };
        for mark in held.into_iter().chain(marked) {
            unlock_mark(files, mark)?;
        }
        Ok(true)
    }
}

/// Locks a mark at the newest commit, which a read transaction sets for us. `None` if there is no
/// newer one than those held.
fn lock_newest_mark(files: &DatabaseFiles, held: &[Mark]) -> Result<Option<Mark>, DatabaseError> {
    let reader = connection::open(files.path())?;
    connection::begin_read(&reader)
        .map_err(DatabaseError::sqlite("begin a read transaction", files.path()))?;
    let mark = lock_mark(files, held);
    connection::end_read(&reader);
    mark
}

/// Locks the largest read mark within the WAL that is larger than those held.
fn lock_mark(files: &DatabaseFiles, held: &[Mark]) -> Result<Option<Mark>, DatabaseError> {
    let index = files.wal_index()?;
    let salts = index.header.salts;
    let mut marks: Vec<Mark> = (1..index.read_marks.len())
        .map(|slot| Mark { slot, frames: index.read_marks[slot], salts })
        .filter(|mark| mark.frames != READ_MARK_UNUSED && mark.frames <= index.header.mx_frame)
        .filter(|mark| held.iter().all(|it| mark.frames > it.frames && mark.slot != it.slot))
        .collect();
    marks.sort_by_key(|mark| std::cmp::Reverse(mark.frames));
    for mark in marks {
        if !try_lock_shared(files.shm(), shm_read_lock(mark.slot))
            .map_err(lock_error(files.path()))?
        {
            continue;
        }
        // Others move a mark only while nobody holds its lock.
        let index = files.wal_index()?;
        if index.read_marks[mark.slot] == mark.frames && index.header.salts == salts {
            return Ok(Some(mark));
        }
        unlock_mark(files, mark)?;
    }
    Ok(None)
}

fn unlock_mark(files: &DatabaseFiles, mark: Mark) -> Result<(), DatabaseError> {
    unlock(files.shm(), shm_read_lock(mark.slot)).map_err(lock_error(files.path()))
}

fn lock_zero(files: &DatabaseFiles) -> Result<bool, DatabaseError> {
    try_lock_shared(files.shm(), shm_read_lock(0)).map_err(lock_error(files.path()))
}

fn unlock_zero(files: &DatabaseFiles) -> Result<(), DatabaseError> {
    unlock(files.shm(), shm_read_lock(0)).map_err(lock_error(files.path()))
}

fn lock_error(path: &Path) -> impl FnOnce(io::Error) -> DatabaseError {
    DatabaseError::io("lock the database against the loss of its WAL", path)
}

/// Whoever holds one of these locks exclusively does so for a moment.
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}
