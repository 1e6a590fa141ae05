//! The files of one database, opened once and held.
//!
//! Invariant: while a [`DatabaseFiles`] lives, nobody else in this process opens the database or
//! its `-shm` file except through SQLite. POSIX locks belong to a process: closing any descriptor
//! of a file drops all of the process's locks on it, including those of SQLite connections. So the
//! owner must drop its connections before this value.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use walrust_wal::{DatabaseHeader, WalIndex};

use crate::DatabaseError;

/// The open files of a database in WAL mode.
#[derive(Debug)]
pub(crate) struct DatabaseFiles {
    path: PathBuf,
    wal_path: PathBuf,
    shm_path: PathBuf,
    database: File,
    shm: File,
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
    /// Takes over the database file and opens the `-shm` file, which exists once a connection has
    /// begun a read transaction.
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
    /// are read again.
    pub(crate) fn wal_index(&self) -> Result<WalIndex, DatabaseError> {
        const ATTEMPTS: u32 = 1000;
        for attempt in 1.. {
            let mut bytes = [0; WalIndex::SIZE];
            let length = read_up_to(&self.shm, &mut bytes, 0)
                .map_err(DatabaseError::io("read the wal-index", &self.shm_path))?;
            match WalIndex::parse(&bytes[..length]) {
                Ok(index) => return Ok(index),
                Err(source) if attempt == ATTEMPTS => {
                    return Err(DatabaseError::WalIndex { path: self.shm_path.clone(), source });
                }
                Err(_) => std::thread::yield_now(),
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
