//! The file of a replica, open: SQLite's connection, the writer of its WAL, and its page checksums.
//!
//! Invariant: the connection outlives no descriptor of the files (see `database_files.rs`), and is
//! in a transaction only while the file is compared. It is there for what SQLite does best: it keeps
//! the WAL from vanishing, rebuilds the wal-index after a crash, and runs checkpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};
use walrust_ltx::{Checksum, PageSize};
use walrust_wal::{Committed, WalIndex};

use crate::DatabaseError;
use crate::connection;
use crate::database_files::{DatabaseFiles, open_database, read_header};
use crate::page_checksums::PageChecksums;
use crate::page_view::PageView;
use crate::replica_directory::ReplicaState;
use crate::replica_incoming::Incoming;
use crate::wal_writer::{WalTransaction, WalWriter};

/// Frames in the WAL from which on it is copied into the database file.
const CHECKPOINT_FRAMES: u32 = 1000;
/// How long a checkpoint waits for readers of older states; they notice nothing of it.
const CHECKPOINT_PATIENCE: Duration = Duration::from_millis(100);

/// The open file of a replica.
#[derive(Debug)]
pub(crate) struct OpenReplica {
    /// Keeps the WAL and the wal-index in place, and runs checkpoints. Dropped before the files.
    connection: Connection,
    writer: WalWriter,
    pub(crate) table: PageChecksums,
    /// Transactions that the wal-index has counted up to ours.
    pub(crate) change: u32,
    /// Frames in the WAL at which a checkpoint is tried next.
    checkpoint_at: u32,
    path: PathBuf,
    page_size_in_file: u32,
    /// The wal-index when the file was opened.
    index: WalIndex,
}

impl OpenReplica {
    /// Opens a replica and begins a read transaction, for [`compare`](Self::compare).
    pub(crate) fn open(
        path: &Path,
        table: &Path,
        page_size: PageSize,
    ) -> Result<Self, DatabaseError> {
        let database = open_database(path)?;
        let header = read_header(path, &database)?;
        let connection = connection::open(path)?;
        let sqlite_error = || DatabaseError::sqlite("open the replica", path);
        // As any application: the last one to close leaves one file.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
            .map_err(sqlite_error())?;
        connection::begin_read(&connection).map_err(sqlite_error())?;
        let files = DatabaseFiles::new(path, database)?;
        let index = files.wal_index()?;
        Ok(Self {
            connection,
            writer: WalWriter::open(files, page_size)?,
            table: PageChecksums::open(table)?,
            change: index.header.change,
            checkpoint_at: CHECKPOINT_FRAMES,
            path: path.to_owned(),
            page_size_in_file: header.page_size,
            index,
        })
    }

    /// Ends the read transaction.
    pub(crate) fn settled(self) -> Result<Self, DatabaseError> {
        connection::end_read(&self.connection);
        let patience = self.connection.busy_timeout(CHECKPOINT_PATIENCE);
        patience.map_err(DatabaseError::sqlite("open the replica", &self.path))?;
        Ok(self)
    }

    /// Whether the file at `path` is the one that is open.
    pub(crate) fn is_at(&self, path: &Path) -> Result<bool, DatabaseError> {
        match self.writer.files().check_identity(path) {
            Ok(()) => Ok(true),
            Err(DatabaseError::Replaced { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Transactions that the wal-index has counted up to now.
    pub(crate) fn current_change(&self) -> Result<u32, DatabaseError> {
        Ok(self.writer.files().wal_index()?.header.change)
    }

    /// Begins a transaction.
    pub(crate) fn begin(&self) -> Result<WalTransaction<'_>, DatabaseError> {
        // If a writer died, SQLite mends the wal-index when it looks at it.
        let looked = connection::begin_read(&self.connection);
        looked.map_err(DatabaseError::sqlite("read the replica", &self.path))?;
        connection::end_read(&self.connection);
        self.writer.begin()
    }

    /// Compares all pages with the table, or with what is waiting to be applied. Returns what
    /// differs.
    pub(crate) fn compare(
        &self,
        state: &ReplicaState,
        waiting: Option<&Incoming>,
    ) -> Result<Option<String>, DatabaseError> {
        let files = self.writer.files();
        let page_size = self.writer.page_size();
        if self.page_size_in_file != page_size.get() {
            return Ok(Some(format!("its pages have {} bytes", self.page_size_in_file)));
        }
        let committed = self.writer.committed(&self.index)?;
        let page_count = match &committed {
            Some(Committed { page_count: Some(page_count), .. }) => u64::from(*page_count),
            _ => files.database_size()? / u64::from(page_size.get()),
        };
        let known = std::iter::once(state).chain(waiting.map(|waiting| &waiting.state));
        let Some(page_count) =
            known.map(|state| state.page_count).find(|known| u64::from(*known) == page_count)
        else {
            return Ok(Some(format!("it has {page_count} pages instead of {}", state.page_count)));
        };
        let wal = files.open_wal()?;
        let none = BTreeMap::new();
        let pages = committed.as_ref().map_or(&none, |committed| &committed.pages);
        let view = PageView { files, wal: wal.as_ref(), pages, page_size, page_count };
        let mut page = vec![0; page_size.bytes()];
        let mut rolling = Checksum::EMPTY;
        // A table that was lost or torn is made anew from a database that proves itself.
        let table_is_lost = waiting.is_none() && self.table.rolling()? != state.checksum;
        let (mut differs, mut found) = (None, Vec::new());
        for pgno in view.pgnos() {
            view.read(pgno, &mut page)?;
            let checksum = Checksum::of_page(pgno, &page);
            rolling = rolling.toggle(checksum);
            let expected = self.table.get(pgno)? == Some(checksum)
                || waiting.is_some_and(|waiting| waiting.checksum(pgno) == Some(checksum));
            if !expected && differs.is_none() {
                differs = Some(format!("page {pgno} is not that of the history"));
            }
            if table_is_lost {
                found.push((pgno, checksum));
            }
        }
        if table_is_lost && rolling == state.checksum {
            self.table.apply(&found, page_count)?;
            return Ok(None);
        }
        Ok(differs)
    }

    /// Copies a long WAL into the database file and empties it, if no reader needs it.
    pub(crate) fn checkpoint(&mut self) {
        let frames = match self.writer.files().wal_index() {
            Ok(index) => index.header.mx_frame,
            Err(error) => {
                // What was applied is in the WAL all the same.
                tracing::warn!(path = %self.path.display(), %error, "cannot checkpoint the replica");
                return;
            }
        };
        if frames < self.checkpoint_at {
            return;
        }
        let busy = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        match busy {
            Ok(false) => self.checkpoint_at = CHECKPOINT_FRAMES,
            Ok(true) => self.checkpoint_at = frames.saturating_add(CHECKPOINT_FRAMES),
            Err(error) => {
                // The WAL grows until the next one.
                tracing::warn!(path = %self.path.display(), %error, "cannot checkpoint the replica");
                self.checkpoint_at = frames.saturating_add(CHECKPOINT_FRAMES);
            }
        }
    }
}

/// Gets a database for itself and takes it out of WAL mode, so that its file may be removed; `None`
/// if anybody else has it open.
pub(crate) fn lock_alone(path: &Path) -> Result<Option<Connection>, DatabaseError> {
    let lock = || -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::ZERO)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
        connection.execute_batch("BEGIN EXCLUSIVE; ROLLBACK")?;
        Ok(connection)
    };
    match lock() {
        Ok(connection) => Ok(Some(connection)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(None),
        Err(error) => Err(DatabaseError::sqlite("lock the replica", path)(error)),
    }
}
