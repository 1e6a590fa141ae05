//! The connection pin: read transactions that keep frames from vanishing before they are captured.
//!
//! Where byte-range locks of open files do not exist, two connections alternate: the new read
//! transaction begins before the old one ends. Which read lock a transaction takes is up to SQLite:
//! read lock 0 if the WAL is backfilled to its end, else one at the newest commit. The record is
//! valid for both, see `walrust_engine::plan_sync`.

use std::path::Path;

use rusqlite::Connection;
use walrust_engine::{PinRecord, WalPosition};

use crate::DatabaseError;
use crate::connection;
use crate::database_files::DatabaseFiles;

/// Two connections of which one holds a read transaction.
#[derive(Debug)]
pub(crate) struct ConnectionPin {
    holding: Connection,
    spare: Connection,
    /// What was in the WAL when the transaction of `holding` had begun; `None` without one.
    record: Option<PinRecord>,
    /// The same for `spare`.
    marked: Option<PinRecord>,
    /// The transaction of `holding` began when the whole WAL was backfilled: it has read lock 0.
    settled: bool,
}

impl ConnectionPin {
    pub(crate) fn open(path: &Path) -> Result<Self, DatabaseError> {
        let (holding, spare) = (connection::open(path)?, connection::open(path)?);
        Ok(Self { holding, spare, record: None, marked: None, settled: false })
    }

    pub(crate) fn hold(&mut self, files: &DatabaseFiles) -> Result<(), DatabaseError> {
        if self.record.is_none() {
            self.record = Some(begin(&self.holding, files)?);
        }
        Ok(())
    }

    pub(crate) fn release(&mut self) {
        connection::end_read(&self.holding);
        connection::end_read(&self.spare);
        (self.record, self.marked, self.settled) = (None, None, false);
    }

    pub(crate) fn record(&self) -> Option<PinRecord> {
        self.record
    }

    pub(crate) fn mark(
        &mut self,
        files: &DatabaseFiles,
        distance: u32,
    ) -> Result<(), DatabaseError> {
        let Some(record) = self.record else { return Ok(()) };
        let header = files.wal_index()?.header;
        let newest = self.marked.unwrap_or(record);
        let behind = header.mx_frame.saturating_sub(newest.frames);
        if header.salts == record.salts && behind >= distance {
            connection::end_read(&self.spare);
            self.marked = None;
            self.marked = Some(begin(&self.spare, files)?);
        }
        Ok(())
    }

    pub(crate) fn advance(&mut self, safe: &WalPosition) {
        let reached = |mark: PinRecord| mark.salts == safe.salts && mark.frames <= safe.frames;
        if self.marked.is_some_and(reached) {
            self.take_over();
        }
    }

    pub(crate) fn settle(
        &mut self,
        files: &DatabaseFiles,
        captured: &WalPosition,
    ) -> Result<(), DatabaseError> {
        let Some(record) = self.record else { return Ok(()) };
        let here = PinRecord { salts: captured.salts, frames: captured.frames, holds: None };
        let complete = files.is_settled_at(captured)?;
        // Only when the generation is captured: the record of the pin that is held now proves that
        // nothing was missed before it, and that of a new one could not.
        let moved = record.salts != captured.salts;
        if (self.settled && record == here) || !(complete || moved) {
            return Ok(());
        }
        if self.marked.take().is_some() {
            connection::end_read(&self.spare);
        }
        let begun = begin(&self.spare, files)?;
        if begun.salts == captured.salts && (moved || begun == here) {
            self.marked = Some(begun);
            self.take_over();
            self.settled = begun == here && complete;
        } else {
            connection::end_read(&self.spare);
        }
        Ok(())
    }

    fn take_over(&mut self) {
        connection::end_read(&self.holding);
        std::mem::swap(&mut self.holding, &mut self.spare);
        self.record = self.marked.take();
        self.settled = false;
    }
}

/// Begins a read transaction; what was in the WAL right after.
fn begin(connection: &Connection, files: &DatabaseFiles) -> Result<PinRecord, DatabaseError> {
    connection::begin_read(connection)
        .map_err(DatabaseError::sqlite("begin a read transaction", files.path()))?;
    match files.wal_index() {
        Ok(index) => {
            let (salts, frames) = (index.header.salts, index.header.mx_frame);
            Ok(PinRecord { salts, frames, holds: None })
        }
        Err(error) => {
            connection::end_read(connection);
            Err(error)
        }
    }
}
