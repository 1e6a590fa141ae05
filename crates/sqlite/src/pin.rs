//! The pin: what keeps frames in the WAL until they are captured.
//!
//! Invariant: from the first [`Pin::hold`] to [`Pin::release`] a lock is held at every moment, and
//! [`Pin::record`] says since when. A new lock is always taken before the old one is given back.
//! What follows from the record is decided by `walrust_engine::plan_sync`. In a crash the operating
//! system drops the locks, and the next start finds out from the salts whether anything was missed.

use walrust_engine::{PinRecord, WalPosition};

use crate::DatabaseError;
use crate::connection_pin::ConnectionPin;
use crate::database_files::DatabaseFiles;
use crate::detached_pin::{DetachedPin, unlock_files};

/// How the WAL of a database is pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WalPin {
    /// Detached where the system can, else with connections.
    #[default]
    Auto,
    /// With byte-range locks, without a SQLite connection. Linux only.
    Detached,
    /// With read transactions of two SQLite connections.
    Connection,
    /// Only while a file is made. Others may restart the WAL between two syncs; such gaps are
    /// healed by comparing pages.
    None,
}

/// One of the ways to pin.
#[derive(Debug)]
pub(crate) enum Pin {
    Detached(DetachedPin),
    Connection(ConnectionPin),
}

impl Pin {
    /// Takes a lock if none is held. `captured` is where the captured part of the WAL ends.
    pub(crate) fn hold(
        &mut self,
        files: &DatabaseFiles,
        captured: Option<&WalPosition>,
    ) -> Result<(), DatabaseError> {
        match self {
            Self::Detached(pin) => pin.hold(files, captured),
            Self::Connection(pin) => pin.hold(files),
        }
    }

    /// Gives every lock back.
    pub(crate) fn release(&mut self, files: &DatabaseFiles) -> Result<(), DatabaseError> {
        match self {
            Self::Detached(pin) => pin.release(files),
            Self::Connection(pin) => {
                pin.release();
                Ok(())
            }
        }
    }

    /// Lets go of the database altogether, as if it had never been open here. The pin cannot be held
    /// again.
    pub(crate) fn leave(&mut self, files: &DatabaseFiles) -> Result<(), DatabaseError> {
        self.release(files)?;
        match std::mem::replace(self, Self::Detached(DetachedPin::default())) {
            Self::Detached(_) => unlock_files(files),
            // Its connections close.
            Self::Connection(_) => Ok(()),
        }
    }

    /// Since when the WAL has been pinned; `None` if it is not.
    pub(crate) fn record(&self) -> Option<PinRecord> {
        match self {
            Self::Detached(pin) => pin.record(),
            Self::Connection(pin) => pin.record(),
        }
    }

    /// Takes a lock at the newest commit beside the one that is held, if that one is at least
    /// `distance` frames behind. What is read afterwards reaches at least as far as the new lock.
    pub(crate) fn mark(
        &mut self,
        files: &DatabaseFiles,
        distance: u32,
    ) -> Result<(), DatabaseError> {
        match self {
            Self::Detached(pin) => pin.mark(files, distance),
            Self::Connection(pin) => pin.mark(files, distance),
        }
    }

    /// Everything up to `safe` is in storage or staged durably: a lock that was marked before takes
    /// over, so that others may backfill up to there.
    pub(crate) fn advance(
        &mut self,
        files: &DatabaseFiles,
        safe: &WalPosition,
    ) -> Result<(), DatabaseError> {
        match self {
            Self::Detached(pin) => pin.advance(files, safe),
            Self::Connection(pin) => {
                pin.advance(safe);
                Ok(())
            }
        }
    }

    /// Chooses the lock that fits the WAL as it is now: read lock 0 once all of it is captured and
    /// backfilled, a read mark once it has new frames.
    pub(crate) fn settle(
        &mut self,
        files: &DatabaseFiles,
        captured: &WalPosition,
    ) -> Result<(), DatabaseError> {
        match self {
            Self::Detached(pin) => pin.settle(files, captured),
            Self::Connection(pin) => pin.settle(files, captured),
        }
    }
}

/// Distance in frames from which a newer lock is worth a connection for a moment.
pub(crate) const MARK_DISTANCE: u32 = 250;
