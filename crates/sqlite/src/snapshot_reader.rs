//! A snapshot that is read while the capture goes on.
//!
//! Invariant: all pages are those of one state. A read transaction of its own keeps that state
//! readable, however far the capture, its pin and its checkpoints have moved on meanwhile:
//!
//! * if the transaction began while the WAL held frames that are not in the database file, it has a
//!   read mark, or read lock 0 under which nothing is copied. Either way the WAL cannot restart, and
//!   no frame after the state comes into the database file;
//! * if all frames were in the database file, no other frame comes into it. The WAL may restart, so
//!   nothing is read from it.
//!
//! In both cases the transaction begins before the wal-index is read: a state that is newer than the
//! transaction is kept by it just as well, an older one would not be.
//!
//! The price is that of any long read: until it ends, the WAL does not restart once it has new
//! frames. Whoever cannot afford that [aborts](SnapshotReader::stage) it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use walrust_ltx::{Checksum, Header, PageSize, Txid};

use crate::DatabaseError;
use crate::connection;
use crate::database_files::DatabaseFiles;
use crate::database_reader::Generation;
use crate::staging::StagedFile;

/// A read transaction that keeps a state readable until it is dropped.
#[derive(Debug)]
pub(crate) struct ReadTransaction {
    // Dropped before the files: see `database_files`.
    _connection: Connection,
    files: Arc<DatabaseFiles>,
}

impl ReadTransaction {
    pub(crate) fn begin(files: &Arc<DatabaseFiles>) -> Result<Self, DatabaseError> {
        let connection = connection::open(files.path())?;
        connection::begin_read(&connection)
            .map_err(DatabaseError::sqlite("begin a read transaction", files.path()))?;
        Ok(Self { _connection: connection, files: Arc::clone(files) })
    }
}

/// One state of a database that is to become a snapshot. It needs no capture, only the time to read
/// all pages.
#[derive(Debug)]
pub struct SnapshotReader {
    pub(crate) transaction: ReadTransaction,
    pub(crate) generation: Generation,
    pub(crate) page_size: PageSize,
    pub(crate) header: Header,
    /// What the history says the pages add up to.
    pub(crate) expected: Checksum,
    pub(crate) staging: PathBuf,
}

impl SnapshotReader {
    /// TXID of the state.
    #[must_use]
    pub fn txid(&self) -> Txid {
        self.header.max_txid
    }

    /// Reads all pages into a staged file, then lets go of the state. `None` if `abort` became true
    /// before the end.
    ///
    /// # Errors
    /// If the database cannot be read or the file cannot be written, neither of which harms the
    /// history; or if the database is [not what its history says](DatabaseError::Diverged): then
    /// [`Capture::end_history`](crate::Capture::end_history) is to be called.
    pub fn stage(self, abort: &AtomicBool) -> Result<Option<StagedFile>, DatabaseError> {
        let Self { transaction, generation, page_size, header, expected, staging } = self;
        let files = &transaction.files;
        let txid = header.max_txid;
        let view = generation.view(files, page_size);
        let go_on = || !abort.load(Ordering::Relaxed);
        let Some((writer, rolling)) = view.write_all(&staging, header, None, go_on)? else {
            return Ok(None);
        };
        if !generation.is_readable(files)? {
            writer.discard()?;
            return Err(DatabaseError::Unstable { path: files.wal_path().to_owned() });
        }
        if rolling != expected {
            writer.discard()?;
            return Err(DatabaseError::Diverged { path: files.path().to_owned(), txid });
        }
        writer.finish(rolling).map(Some)
    }
}
