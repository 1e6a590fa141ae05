//! Local state of one database: `.<file>-walrust/` beside it, or in a directory for all.
//!
//! | file | content |
//! |---|---|
//! | `lock` | locked while a process begins to replicate the database; then its `-shm` file is |
//! | `position.json` | the last state that storage has confirmed |
//! | `pages.crc64` | one checksum per page of that state |
//! | `pages.redo` | the changes that lead from the last table to that of `position.json` |
//! | `file.json` | what the database file looked like when it was last watched |
//! | `database` | which database this is, and since when its file is gone, see `state_owner.rs` |
//! | `name` | the name that was found for the database, see `kept_name.rs` |
//! | `writer` | random identifier that signs the manifest |
//! | `staging/` | LTX files on their way to storage |
//!
//! Invariant: `position.json` is replaced atomically and only after `pages.redo` is durable, and
//! the table is changed in place only after that. A crash at any point leaves a position whose
//! table is whole, or can be made whole by applying the redo file again; a table that still does
//! not add up to the position's checksum is reported as lost. Everything here may be deleted at
//! the cost of reading the database once, or of a snapshot.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use walrust_engine::{Position, WalPosition};
use walrust_ltx::{Checksum, FileName, PageSize, Pgno, Txid};

use crate::DatabaseError;
use crate::database_files::{FileStamp, is_owned};
use crate::page_checksums::PageChecksums;
use crate::staging::hex;
use crate::state_owner::StateOwner;

/// The format number of `position.json`.
const FORMAT: u32 = 1;

/// The open and locked state directory of a database.
#[derive(Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    /// Held, never read: closing it releases the lock. `None` once the `-shm` file is locked.
    lock: Option<File>,
}

#[derive(Serialize, Deserialize)]
struct StoredPosition {
    format: u32,
    txid: String,
    checksum: String,
    page_size: u32,
    page_count: u32,
    timestamp_ms: i64,
    wal: WalPosition,
}

impl StateDirectory {
    /// Creates the directory if needed and locks it.
    pub(crate) fn open(database: &Path, directory: Option<&Path>) -> Result<Self, DatabaseError> {
        let path = state_path(database, directory);
        let staging = path.join("staging");
        fs::create_dir_all(&staging)
            .map_err(DatabaseError::io("create the state directory", &path))?;
        let lock_path = path.join("lock");
        let lock =
            File::create(&lock_path).map_err(DatabaseError::io("create the lock", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(DatabaseError::Owned { path: database.to_owned(), lock: lock_path });
            }
            Err(fs::TryLockError::Error(error)) => {
                return Err(DatabaseError::io("lock the state directory", &lock_path)(error));
            }
        }
        if is_owned(database)? {
            return Err(DatabaseError::Owned { path: database.to_owned(), lock: lock_path });
        }
        Ok(Self { path, lock: Some(lock) })
    }

    /// Notes which database this is. `given` may lead there through symbolic links.
    pub(crate) fn note_owner(&self, given: &Path, database: &Path) -> Result<(), DatabaseError> {
        match StateOwner::of(given, database) {
            Some(owner) => owner.write(&self.path),
            None => Ok(()),
        }
    }

    /// Another lock says from now on that the database is replicated: a descriptor less for each.
    pub(crate) fn release_lock(&mut self) {
        self.lock = None;
    }

    /// Whether another process has the directory of a database locked.
    pub(crate) fn is_locked(
        database: &Path,
        directory: Option<&Path>,
    ) -> Result<bool, DatabaseError> {
        let path = state_path(database, directory).join("lock");
        if is_owned(database)? {
            return Ok(true);
        }
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(DatabaseError::io("open the lock", &path)(error)),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(error)) => {
                Err(DatabaseError::io("look at the lock", &path)(error))
            }
        }
    }

    /// The position that the owner of a state directory has saved last, without its table.
    pub(crate) fn peek(
        database: &Path,
        directory: Option<&Path>,
    ) -> Result<Option<Position>, DatabaseError> {
        let path = state_path(database, directory).join("position.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DatabaseError::io("read the position", &path)(error)),
        };
        match parse_position(&bytes) {
            Some(position) => Ok(Some(position)),
            None => Err(DatabaseError::DamagedState {
                path,
                problem: "it is not a position that this program knows".to_owned(),
                remedy: "the process that replicates the database writes it anew after its next upload",
            }),
        }
    }

    /// The identifier of the local state of a database, which the owner of its directory has made.
    pub(crate) fn peek_writer_id(
        database: &Path,
        directory: Option<&Path>,
    ) -> Result<String, DatabaseError> {
        let path = state_path(database, directory).join("writer");
        fs::read_to_string(&path).map_err(DatabaseError::io("read the writer's identifier", &path))
    }

    /// The position and its table of page checksums, if both are there and agree.
    pub(crate) fn load(&self) -> Result<Option<Position>, DatabaseError> {
        let path = self.path.join("position.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DatabaseError::io("read the position", &path)(error)),
        };
        let Some(position) = parse_position(&bytes) else {
            tracing::warn!(path = %path.display(), "the local position is unreadable");
            return Ok(None);
        };
        let table = self.page_checksums()?;
        if let Some(redo) = self.read_redo(position.txid)? {
            table.apply(&redo, position.page_count)?;
        }
        if table.rolling()? != position.checksum {
            tracing::warn!(path = %path.display(), "the page checksums do not fit the position");
            return Ok(None);
        }
        Ok(Some(position))
    }

    /// The table of the saved position.
    pub(crate) fn page_checksums(&self) -> Result<PageChecksums, DatabaseError> {
        PageChecksums::open(&self.path.join("pages.crc64"))
    }

    /// Where a whole new table is written before [`save_with_new_table`](Self::save_with_new_table).
    pub(crate) fn new_table_path(&self) -> PathBuf {
        self.path.join("pages.crc64.new")
    }

    /// Where a staged LTX file is written.
    pub(crate) fn staging(&self) -> PathBuf {
        self.path.join("staging")
    }

    /// Saves a position whose table differs from the last one in `changes`.
    pub(crate) fn save(
        &self,
        position: &Position,
        changes: &[(Pgno, Checksum)],
    ) -> Result<(), DatabaseError> {
        self.replace("pages.redo", &redo_bytes(position.txid, changes))?;
        self.replace("position.json", &position_bytes(position))?;
        self.page_checksums()?.apply(changes, position.page_count)
    }

    /// Saves a position together with the whole table at [`new_table_path`](Self::new_table_path).
    pub(crate) fn save_with_new_table(&self, position: &Position) -> Result<(), DatabaseError> {
        let table = self.path.join("pages.crc64");
        // The old redo file must not be applied to the new table.
        self.replace("pages.redo", &redo_bytes(position.txid, &[]))?;
        fs::rename(self.new_table_path(), &table)
            .map_err(DatabaseError::io("replace the page checksums", &table))?;
        self.replace("position.json", &position_bytes(position))
    }

    /// The identifier of this local state, 32 hex digits. It goes with the state, so another host,
    /// or one that has lost its state, is another writer.
    pub(crate) fn writer_id(&self) -> Result<String, DatabaseError> {
        let path = self.path.join("writer");
        match fs::read_to_string(&path) {
            Ok(id) if id.len() == 32 => return Ok(id),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(DatabaseError::io("read the writer's identifier", &path)(error));
            }
        }
        let id = format!("{:032x}", fastrand::u128(..));
        self.replace("writer", id.as_bytes())?;
        Ok(id)
    }

    /// Copies the table to [`new_table_path`](Self::new_table_path).
    pub(crate) fn copy_table(&self) -> Result<(), DatabaseError> {
        let path = self.new_table_path();
        fs::copy(self.base_table_path(false), &path)
            .map(|_| ())
            .map_err(DatabaseError::io("copy the page checksums", &path))
    }

    /// The table under the staged files: that of the position, or of a staged snapshot.
    pub(crate) fn base_table_path(&self, staged_snapshot: bool) -> PathBuf {
        match staged_snapshot {
            true => self.new_table_path(),
            false => self.path.join("pages.crc64"),
        }
    }

    /// What the database file looked like when it was last watched, if that is known.
    pub(crate) fn load_stamp(&self) -> Option<FileStamp> {
        serde_json::from_slice(&fs::read(self.path.join("file.json")).ok()?).ok()
    }

    /// Notes what the database file looks like. Not synced: a note that is lost or torn costs a
    /// comparison of the pages.
    pub(crate) fn save_stamp(&self, stamp: &FileStamp) -> Result<(), DatabaseError> {
        let (path, temporary) = (self.path.join("file.json"), self.path.join("file.json.tmp"));
        let bytes = serde_json::to_vec(stamp).expect("numbers always have a JSON form");
        fs::write(&temporary, bytes)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(DatabaseError::io("save local state", &path))
    }

    /// Removes everything in the staging directory but some files and their notes.
    pub(crate) fn clear_staging(&self, kept: &[FileName]) -> Result<(), DatabaseError> {
        let staging = self.staging();
        let clear = || {
            for entry in fs::read_dir(&staging)? {
                let path = entry?.path();
                let stem = path.file_name().and_then(|name| name.to_str()?.split('.').next());
                let keep =
                    |name: &FileName| stem.is_some_and(|stem| name.to_string().starts_with(stem));
                let whole = path.extension().is_none_or(|extension| extension != "tmp");
                if !(whole && kept.iter().any(keep)) {
                    fs::remove_file(path)?;
                }
            }
            Ok(())
        };
        clear().map_err(DatabaseError::io("clear the staging directory", &staging))
    }

    fn read_redo(&self, txid: Txid) -> Result<Option<Vec<(Pgno, Checksum)>>, DatabaseError> {
        let path = self.path.join("pages.redo");
        match fs::read(&path) {
            Ok(bytes) => Ok(parse_redo(&bytes, txid)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DatabaseError::io("read the page checksums", &path)(error)),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), DatabaseError> {
        replace(&self.path, name, bytes)
    }
}

/// Replaces a file: temporary file, fsync, rename, fsync of the directory.
pub(crate) fn replace(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), DatabaseError> {
    let path = directory.join(name);
    let temporary = directory.join(format!("{name}.tmp"));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(DatabaseError::io("save local state", &path))
}

/// The state directory of a database, whose path has no symbolic links: hidden, beside it, named
/// after it; or in a directory for all databases, told apart by the hash of their paths.
#[must_use]
pub fn state_path(database: &Path, directory: Option<&Path>) -> PathBuf {
    let file_name = database.file_name().unwrap_or_default();
    match directory {
        None => {
            let mut name = OsString::from(".");
            name.push(file_name);
            name.push("-walrust");
            database.with_file_name(name)
        }
        Some(directory) => {
            let hash = Sha256::digest(database.as_os_str().as_encoded_bytes());
            let mut name = file_name.to_owned();
            name.push(format!("-{}", hex(&hash[..8])));
            directory.join(name)
        }
    }
}

fn position_bytes(position: &Position) -> Vec<u8> {
    let stored = StoredPosition {
        format: FORMAT,
        txid: position.txid.to_string(),
        checksum: position.checksum.to_string(),
        page_size: position.page_size.get(),
        page_count: position.page_count,
        timestamp_ms: position.timestamp_ms,
        wal: position.wal,
    };
    serde_json::to_vec_pretty(&stored).expect("strings and numbers always have a JSON form")
}

fn parse_position(bytes: &[u8]) -> Option<Position> {
    let stored: StoredPosition = serde_json::from_slice(bytes).ok()?;
    if stored.format != FORMAT {
        return None;
    }
    Some(Position {
        txid: stored.txid.parse().ok()?,
        checksum: stored.checksum.parse().ok()?,
        page_size: PageSize::try_from(stored.page_size).ok()?,
        page_count: stored.page_count,
        timestamp_ms: stored.timestamp_ms,
        wal: stored.wal,
    })
}

/// `pages.redo`: TXID, then page number and checksum of each change, all little-endian, then the
/// checksum of everything before it (taken as if it were page 1), so that a torn file is not
/// applied.
fn redo_bytes(txid: Txid, changes: &[(Pgno, Checksum)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + changes.len() * 12);
    bytes.extend_from_slice(&txid.get().to_le_bytes());
    for (pgno, checksum) in changes {
        bytes.extend_from_slice(&pgno.to_le_bytes());
        bytes.extend_from_slice(&checksum.raw().to_le_bytes());
    }
    let proof = Checksum::of_page(1, &bytes);
    bytes.extend_from_slice(&proof.raw().to_le_bytes());
    bytes
}

fn parse_redo(bytes: &[u8], txid: Txid) -> Option<Vec<(Pgno, Checksum)>> {
    let (body, proof) = bytes.split_last_chunk::<8>()?;
    if Checksum::of_page(1, body).raw() != u64::from_le_bytes(*proof) {
        return None;
    }
    let (stored_txid, entries) = body.split_first_chunk::<8>()?;
    if u64::from_le_bytes(*stored_txid) != txid.get() {
        return None;
    }
    let entry = |entry: &[u8]| {
        let (pgno, checksum) = entry.split_first_chunk::<4>()?;
        let checksum = u64::from_le_bytes(checksum.try_into().ok()?);
        Some((u32::from_le_bytes(*pgno), Checksum::from_raw(checksum)?))
    };
    entries.chunks(12).map(entry).collect()
}

#[cfg(test)]
mod tests;
