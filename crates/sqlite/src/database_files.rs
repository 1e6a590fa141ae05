//! The files of one database, opened once and held.
//!
//! Invariant: while a [`DatabaseFiles`] lives, nobody else in this process opens the database or
//! its `-shm` file except through SQLite. POSIX locks belong to a process: closing any descriptor
//! of a file drops all of the process's locks on it, including those of SQLite connections. So the
//! owner must drop its connections before this value.

use std::ffi::OsString;
use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use walrust_engine::WalPosition;
use walrust_wal::{DatabaseHeader, WalIndex};

use crate::DatabaseError;

/// The open files of a database in WAL mode.
#[derive(Debug)]
pub(crate) struct DatabaseFiles {
    /// Without symbolic links: SQLite puts the WAL beside the file that they lead to.
    path: PathBuf,
    wal_path: PathBuf,
    shm_path: PathBuf,
    database: File,
    shm: File,
}

/// What a file looks like from outside: another stamp means that somebody replaced the file or
/// wrote to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Time of the last modification, nanoseconds since the Unix epoch.
    modified_ns: i64,
}

impl FileStamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified_ns: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
        }
    }

    /// Whether both are the same file, whatever was written to it.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// The path of a database without symbolic links, as SQLite sees it.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, DatabaseError> {
    std::fs::canonicalize(path).map_err(|error| match error.kind() {
        _ if is_missing(&error) => DatabaseError::Missing { path: path.to_owned() },
        _ => DatabaseError::io("look at the database", path)(error),
    })
}

/// Whether there is no such file: also when a directory above it is gone or is a file.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Tells what stands in the way of replicating the file at `path`, if anything does: it is
/// missing, a directory, empty, not SQLite, or not in WAL mode.
///
/// Reads the first 100 bytes and closes the file again, so it must not be called for a database
/// that this process has open.
///
/// # Errors
/// The obstacle.
pub fn check_database(path: &Path) -> Result<(), DatabaseError> {
    let file = open_database(path)?;
    read_header(path, &file).map(|_| ())
}

/// Whether a process has [claimed](DatabaseFiles::claim) the database at a path without symbolic
/// links. Not to be called for a database that this process has open.
pub(crate) fn is_owned(path: &Path) -> Result<bool, DatabaseError> {
    let shm_path = sidecar(path, "-shm");
    let shm = match File::open(&shm_path) {
        Ok(shm) => shm,
        Err(error) if is_missing(&error) => return Ok(false),
        Err(error) => return Err(DatabaseError::io("open the wal-index", &shm_path)(error)),
    };
    Ok(matches!(shm.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Opens the database file itself for reading.
pub(crate) fn open_database(path: &Path) -> Result<File, DatabaseError> {
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DatabaseError::Missing { path: path.to_owned() },
        _ => DatabaseError::io("look at the database", path)(error),
    })?;
    if !metadata.is_file() {
        return Err(DatabaseError::NotAFile { path: path.to_owned() });
    }
    File::open(path).map_err(DatabaseError::io("open the database", path))
}

/// Reads the header and refuses what cannot be replicated.
pub(crate) fn read_header(path: &Path, file: &File) -> Result<DatabaseHeader, DatabaseError> {
    let mut bytes = [0; DatabaseHeader::SIZE];
    let length =
        read_up_to(file, &mut bytes, 0).map_err(DatabaseError::io("read the database", path))?;
    if length == 0 {
        return Err(DatabaseError::Empty { path: path.to_owned() });
    }
    let header = DatabaseHeader::parse(&bytes[..length])
        .map_err(|source| DatabaseError::NotADatabase { path: path.to_owned(), source })?;
    if !header.is_wal_mode() {
        return Err(DatabaseError::NotWal { path: path.to_owned() });
    }
    Ok(header)
}

impl DatabaseFiles {
    /// Takes over the database file, whose path has no symbolic links, and opens the `-shm` file,
    /// which exists once a connection has begun a read transaction.
    pub(crate) fn new(path: &Path, database: File) -> Result<Self, DatabaseError> {
        let shm_path = sidecar(path, "-shm");
        let shm =
            File::open(&shm_path).map_err(DatabaseError::io("open the wal-index", &shm_path))?;
        let wal_path = sidecar(path, "-wal");
        Ok(Self { path: path.to_owned(), wal_path, shm_path, database, shm })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn wal_path(&self) -> &Path {
        &self.wal_path
    }

    pub(crate) fn database(&self) -> &File {
        &self.database
    }

    /// The open `-shm` file, for locks.
    pub(crate) fn shm(&self) -> &File {
        &self.shm
    }

    /// Tells other processes that this one replicates the database, until the file is closed:
    /// `flock` on the `-shm` file, which SQLite never uses. `false` if another process has said so,
    /// or the file system knows no such locks.
    pub(crate) fn claim(&self) -> bool {
        self.shm.try_lock().is_ok()
    }

    /// What the database file looks like now.
    pub(crate) fn stamp(&self) -> Result<FileStamp, DatabaseError> {
        let metadata = self.database.metadata();
        let metadata = metadata.map_err(DatabaseError::io("look at the database", &self.path))?;
        Ok(FileStamp::of(&metadata))
    }

    /// Makes sure that the open files still are those at their paths.
    ///
    /// `given` is the path under which the database is known, perhaps through symbolic links.
    pub(crate) fn check_identity(&self, given: &Path) -> Result<(), DatabaseError> {
        for (path, file) in [(given, &self.database), (&self.shm_path, &self.shm)] {
            let look = || Ok((std::fs::metadata(path)?, file.metadata()?));
            let same = match look() {
                Ok((there, open)) => (there.dev(), there.ino()) == (open.dev(), open.ino()),
                Err(error) if is_missing(&error) => false,
                Err(error) => return Err(DatabaseError::io("look at the file", path)(error)),
            };
            if !same {
                return Err(DatabaseError::Replaced { path: path.to_owned() });
            }
        }
        Ok(())
    }

    /// Whether the WAL ends at `captured` and all of it is in the database file.
    pub(crate) fn is_settled_at(&self, captured: &WalPosition) -> Result<bool, DatabaseError> {
        let WalIndex { header, backfilled, .. } = self.wal_index()?;
        let end = (header.salts, header.mx_frame, backfilled);
        // After a loss of power other frames may have come in the place of those captured.
        let same = captured.frames == 0 || header.frame_checksum == captured.checksum;
        Ok(same && end == (captured.salts, captured.frames, captured.frames))
    }

    /// Size of the WAL file in bytes; 0 if there is none.
    pub(crate) fn wal_size(&self) -> Result<u64, DatabaseError> {
        match std::fs::metadata(&self.wal_path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if is_missing(&error) => Ok(0),
            Err(error) => Err(DatabaseError::io("look at the WAL", &self.wal_path)(error)),
        }
    }

    /// Size of the database file in bytes.
    pub(crate) fn database_size(&self) -> Result<u64, DatabaseError> {
        let metadata = self.database.metadata();
        Ok(metadata.map_err(DatabaseError::io("look at the database", &self.path))?.len())
    }

    /// Opens the WAL; SQLite takes no locks on it, so it may be opened and closed at will.
    /// `None` if there is no WAL file.
    pub(crate) fn open_wal(&self) -> Result<Option<File>, DatabaseError> {
        match File::open(&self.wal_path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DatabaseError::io("open the WAL", &self.wal_path)(error)),
        }
    }

    /// Reads the header of the wal-index.
    ///
    /// A writer updates the two copies of the header one after the other, so copies that differ
    /// are read again: at once at first, then with pauses, because the writer may have to wait for
    /// a processor in between. One that died there leaves them so, until somebody opens the
    /// database anew.
    pub(crate) fn wal_index(&self) -> Result<WalIndex, DatabaseError> {
        const ATTEMPTS: u32 = 1000;
        const ATTEMPTS_WITHOUT_PAUSE: u32 = 100;
        for attempt in 1.. {
            let mut bytes = [0; WalIndex::SIZE];
            let length = read_up_to(&self.shm, &mut bytes, 0)
                .map_err(DatabaseError::io("read the wal-index", &self.shm_path))?;
            match WalIndex::parse(&bytes[..length]) {
                Ok(index) => return Ok(index),
                Err(source) if attempt == ATTEMPTS => {
                    return Err(DatabaseError::WalIndex { path: self.shm_path.clone(), source });
                }
                Err(_) if attempt <= ATTEMPTS_WITHOUT_PAUSE => std::thread::yield_now(),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        unreachable!("the loop returns at its last attempt")
    }
}

/// The path of a sidecar: SQLite appends to the whole file name.
#[must_use]
pub fn sidecar(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Reads until the buffer is full or the file ends; returns the number of bytes read.
pub(crate) fn read_up_to(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<usize> {
    let mut total = 0;
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => break,
            Ok(length) => {
                total += length;
                offset += length as u64;
                buffer = &mut buffer[length..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}
