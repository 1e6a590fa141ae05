//! The connection pin: read transactions that keep frames from vanishing before they are shipped.
//!
//! Invariant: from [`ConnectionPin::open`] on, one of two connections holds a read transaction at
//! every moment; the new one begins before the old one ends. What that guarantees follows from the
//! [`PinRecord`] taken right after the transaction began; `walrust_engine::plan_sync` draws the
//! conclusions. In a crash the operating system drops the locks, and the next start finds out from
//! the salts whether anything was missed.

use std::path::Path;

use rusqlite::Connection;
use walrust_engine::PinRecord;
use walrust_wal::{Salts, WalIndex};

use crate::DatabaseError;
use crate::connection;
use crate::database_files::DatabaseFiles;

/// Two connections of which one always holds a read transaction.
#[derive(Debug)]
pub(crate) struct ConnectionPin {
    holding: Connection,
    spare: Connection,
    record: Option<PinRecord>,
}

impl ConnectionPin {
    /// Opens the connections and begins the first read transaction.
    pub(crate) fn open(path: &Path) -> Result<Self, DatabaseError> {
        let holding = connection::open(path)?;
        let spare = connection::open(path)?;
        connection::begin_read(&holding)
            .map_err(DatabaseError::sqlite("begin a read transaction", path))?;
        Ok(Self { holding, spare, record: None })
    }

    /// What was in the WAL when the transaction that is held now had begun.
    pub(crate) fn record(&mut self, files: &DatabaseFiles) -> Result<PinRecord, DatabaseError> {
        if let Some(record) = self.record {
            return Ok(record);
        }
        let record = record_of(&files.wal_index()?);
        self.record = Some(record);
        Ok(record)
    }

    /// Moves the pin forward to the newest commit, so that frames before it can be backfilled.
    ///
    /// Does nothing if the WAL has left the generation of `shipped`: then the record of the pin
    /// that is held proves that nothing was missed, and that of a new one could not.
    pub(crate) fn advance(
        &mut self,
        files: &DatabaseFiles,
        shipped: Salts,
    ) -> Result<(), DatabaseError> {
        connection::begin_read(&self.spare)
            .map_err(DatabaseError::sqlite("begin a read transaction", files.path()))?;
        let index = match files.wal_index() {
            Ok(index) => index,
            Err(error) => {
                connection::end_read(&self.spare);
                return Err(error);
            }
        };
        if index.header.salts != shipped {
            connection::end_read(&self.spare);
            return Ok(());
        }
        connection::end_read(&self.holding);
        std::mem::swap(&mut self.holding, &mut self.spare);
        self.record = Some(record_of(&index));
        Ok(())
    }

    /// Runs a checkpoint that waits for nobody and backfills at most to the pin.
    ///
    /// Returns whether the whole WAL is in the database file now.
    pub(crate) fn checkpoint_passive(&self, path: &Path) -> Result<bool, DatabaseError> {
        let row = self.spare.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        match row {
            Ok((busy, log, checkpointed)) => Ok(busy == 0 && log == checkpointed),
            Err(rusqlite::Error::SqliteFailure(error, _))
                if error.code == rusqlite::ErrorCode::DatabaseBusy =>
            {
                Ok(false)
            }
            Err(error) => Err(DatabaseError::sqlite("checkpoint the WAL", path)(error)),
        }
    }
}

fn record_of(index: &WalIndex) -> PinRecord {
    PinRecord { salts: index.header.salts, frames: index.header.mx_frame }
}
