//! What can go wrong with a database, its WAL, or walrust's local state.
//!
//! Each error names the file, says what was found, and what to do. None of them is ever the end of
//! the daemon: they are the state of one database.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use walrust_ltx::{FileName, Txid};
use walrust_wal::{DatabaseHeaderError, WalIndexError};

/// A failure around one database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The file does not exist.
    #[error("{}: no such file; check the path, or create the database first", .path.display())]
    Missing {
        /// Path of the database.
        path: PathBuf,
    },
    /// The path is a directory or a device.
    #[error("{}: not a regular file; name the database file itself", .path.display())]
    NotAFile {
        /// Path of the database.
        path: PathBuf,
    },
    /// The file has no bytes yet.
    #[error(
        "{}: the file is empty; create a table in it and switch it to WAL mode \
         with PRAGMA journal_mode=WAL", .path.display()
    )]
    Empty {
        /// Path of the database.
        path: PathBuf,
    },
    /// The content is not that of a SQLite database.
    #[error("{}: not a SQLite database, or an encrypted one: {source}", .path.display())]
    NotADatabase {
        /// Path of the database.
        path: PathBuf,
        /// What the header shows.
        source: DatabaseHeaderError,
    },
    /// The database does not use a write-ahead log.
    #[error(
        "{}: not in WAL mode; run PRAGMA journal_mode=WAL on it once (walrust never does)",
        .path.display()
    )]
    NotWal {
        /// Path of the database.
        path: PathBuf,
    },
    /// Somebody holds the file exclusively.
    #[error(
        "{}: locked exclusively by another process (locking_mode=EXCLUSIVE, a change of the \
         journal mode, or a backup tool)", .path.display()
    )]
    Locked {
        /// Path of the database.
        path: PathBuf,
    },
    /// The file at the path is not the one that was opened.
    #[error("{}: was replaced or removed while it was open", .path.display())]
    Replaced {
        /// Path of the file.
        path: PathBuf,
    },
    /// Byte-range locks of open files were asked for and do not exist here.
    #[error(
        "{}: this system or file system has no open file description locks; \
         use wal_pin = \"connection\" or \"auto\"", .path.display()
    )]
    NoDetachedPin {
        /// Path of the database.
        path: PathBuf,
    },
    /// All of a large database would have to be read where that is not allowed, see
    /// [`Capture::allow_whole_reads`](crate::Capture::allow_whole_reads).
    #[error("{}: all of it has to be read, which takes a while", .path.display())]
    ReadsWhole {
        /// Path of the database.
        path: PathBuf,
    },
    /// Another walrust process on this host replicates the database.
    #[error(
        "{}: another walrust process on this host replicates this database (it holds {})",
        .path.display(), .lock.display()
    )]
    Owned {
        /// Path of the database.
        path: PathBuf,
        /// Path of the lock file.
        lock: PathBuf,
    },
    /// The operating system refused an operation on a file.
    #[error("{}: cannot {operation}: {source}", .path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// A file of local state is not what was written there.
    #[error("{}: damaged: {problem}; {remedy}", .path.display())]
    DamagedState {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// SQLite refused an operation.
    #[error("{}: SQLite cannot {operation}: {source}", .path.display())]
    Sqlite {
        /// What was attempted.
        operation: &'static str,
        /// On which database.
        path: PathBuf,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// The wal-index is not one that this program understands.
    #[error("{}: the wal-index cannot be read: {source}", .path.display())]
    WalIndex {
        /// Path of the `-shm` file.
        path: PathBuf,
        /// What is wrong with it.
        source: WalIndexError,
    },
    /// The WAL does not hold the frames that the wal-index promises.
    #[error(
        "{}: the WAL is damaged: the wal-index promises {promised} frames, {found} are valid; \
         run PRAGMA integrity_check on the database", .path.display()
    )]
    WalDamaged {
        /// Path of the WAL.
        path: PathBuf,
        /// Committed frames according to the wal-index.
        promised: u32,
        /// Valid frames found in the file.
        found: u32,
    },
    /// Other processes changed the WAL faster than it could be read, several times in a row.
    #[error("{}: the WAL restarted again and again while it was read", .path.display())]
    Unstable {
        /// Path of the WAL.
        path: PathBuf,
    },
    /// The database is larger than the format can say, or has an impossible page size.
    #[error("{}: {what}", .path.display())]
    Unsupported {
        /// Path of the database.
        path: PathBuf,
        /// What is not supported.
        what: String,
    },
    /// An LTX file could not be written.
    #[error("{}: cannot write the LTX file: {source}", .path.display())]
    Encode {
        /// Path of the staged file.
        path: PathBuf,
        /// What the encoder refused.
        source: walrust_ltx::Error,
    },
    /// The last TXID is used up.
    #[error("{}: TXID {txid} has no successor", .path.display())]
    TxidsExhausted {
        /// Path of the database.
        path: PathBuf,
        /// The last TXID.
        txid: Txid,
    },
    /// A snapshot does not have the checksum that its history leads to.
    #[error(
        "{}: the database is not what its history up to TXID {txid} says; \
         a new snapshot begins a new chain", .path.display()
    )]
    Diverged {
        /// Path of the database.
        path: PathBuf,
        /// The TXID at which they differ.
        txid: Txid,
    },
}

impl DatabaseError {
    /// Whether bytes of the database or its WAL are damaged, and not only out of reach.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        match self {
            Self::NotADatabase { .. } | Self::WalDamaged { .. } | Self::Diverged { .. } => true,
            Self::WalIndex { source, .. } => {
                matches!(source, WalIndexError::Checksum { .. } | WalIndexError::PageSize { .. })
            }
            Self::Sqlite { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            ),
            _ => false,
        }
    }

    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }

    pub(crate) fn sqlite(
        operation: &'static str,
        path: &Path,
    ) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Sqlite { operation, path: path.to_owned(), source }
    }

    pub(crate) fn encode(path: &Path) -> impl FnOnce(walrust_ltx::Error) -> Self {
        move |source| Self::Encode { path: path.to_owned(), source }
    }
}

/// A failure to bring a database back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The output exists and may not be replaced.
    #[error("{}: exists already; choose another output, or replace it with --force", .path.display())]
    OutputExists {
        /// Path of the output, or of a sidecar that SQLite would replay into it.
        path: PathBuf,
    },
    /// The output is a directory.
    #[error("{}: is a directory; name the file to create", .path.display())]
    OutputIsDirectory {
        /// Path of the output.
        path: PathBuf,
    },
    /// A file of the history is damaged.
    #[error("{file}: {source}")]
    Damaged {
        /// Key of the object.
        file: String,
        /// What is wrong with it.
        source: walrust_ltx::Error,
    },
    /// The header of a file contradicts its name.
    #[error("{file}: the name promises TXID {}-{}, the header says {min}-{max}", .name.min, .name.max)]
    WrongRange {
        /// Key of the object.
        file: String,
        /// Its name.
        name: FileName,
        /// First TXID of the header.
        min: Txid,
        /// Last TXID of the header.
        max: Txid,
    },
    /// A file does not continue the one before it.
    #[error("{file}: does not continue the file before it: {what}")]
    BrokenLink {
        /// Key of the object.
        file: String,
        /// What does not fit.
        what: String,
    },
    /// The object's bytes are not those that were stored.
    #[error("{file}: SHA-256 is {found}, the object was stored with {expected}")]
    WrongSha256 {
        /// Key of the object.
        file: String,
        /// SHA-256 that was recorded, hex.
        expected: String,
        /// SHA-256 of the bytes received, hex.
        found: String,
    },
    /// After all files, pages of the database were never seen.
    #[error(
        "{file}: after it the database has {commit} pages, but up to {missing} of them are in no file"
    )]
    MissingPages {
        /// Key of the object.
        file: String,
        /// Size of the database in pages.
        commit: u32,
        /// How many at its end are missing, as far as is known.
        missing: u32,
    },
    /// The restored state is a deleted database.
    #[error("{file}: the database has no pages in this state; there is nothing to restore")]
    NoPages {
        /// Key of the last object.
        file: String,
    },
    /// SQLite finds faults in the restored database.
    #[error("the restored database fails SQLite's check: {report}")]
    IntegrityCheck {
        /// The first lines of SQLite's report.
        report: String,
    },
    /// Nobody waits for the result any more.
    #[error("the restore was given up")]
    Cancelled,
    /// Writing or reading the output failed.
    #[error("{}: cannot {operation}: {source}", .path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
}

impl RestoreError {
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }
}
