//! The state directory of a replica, `.<file>-walrust-replica/` beside it.
//!
//! | file | content |
//! |---|---|
//! | `lock` | locked while a process follows |
//! | `replica.json` | what the file is a replica of, and which state it is in |
//! | `pages.crc64` | one checksum per page of that state |
//! | `incoming.ltx` | the file that is applied next, verified |
//! | `incoming.db` | the database that the replica becomes next, verified |
//! | `incoming.json` | the state of `incoming.db`; without it that is not whole |
//!
//! Invariant: the replica changes only while what changes it lies here, complete and synced, and
//! that is removed only when `replica.json` tells of the change. To apply the same again changes
//! nothing, so after a crash at any point it is applied again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walrust_ltx::{Checksum, PageSize, Txid};

use crate::state_directory::replace;
use crate::{DatabaseError, ReplicaError};

/// The format number of `replica.json`.
const FORMAT: u32 = 1;
const STATE: &str = "replica.json";
const INCOMING_STATE: &str = "incoming.json";
const INCOMING_DATABASE: &str = "incoming.db";
const INCOMING_FILE: &str = "incoming.ltx";
const LOCK: &str = "lock";
const TABLE: &str = "pages.crc64";

/// The state that a replica is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    /// What it is a replica of: the URL of the storage, and the name.
    pub source: String,
    /// TXID of the state.
    pub txid: Txid,
    /// Rolling checksum of all pages.
    pub checksum: Checksum,
    /// Page size.
    pub page_size: PageSize,
    /// Size of the database in pages.
    pub page_count: u32,
    /// Timestamp of the state, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Identifier of the history, as its manifest has it; `None` without a manifest.
    pub lineage: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredState {
    format: u32,
    source: String,
    txid: String,
    checksum: String,
    page_size: u32,
    page_count: u32,
    timestamp_ms: i64,
    lineage: Option<String>,
}

/// The open and locked state directory of a replica.
#[derive(Debug)]
pub(crate) struct ReplicaDirectory {
    path: PathBuf,
    /// Held, never read: closing it releases the lock.
    _lock: File,
}

impl Drop for ReplicaDirectory {
    /// A directory without a state is that of a replica that was never made.
    fn drop(&mut self) {
        if exists(&self.path.join(STATE)).is_ok_and(|exists| !exists)
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the directory");
        }
    }
}

impl ReplicaDirectory {
    /// Where the state of a replica is.
    pub(crate) fn path_of(replica: &Path) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(replica.file_name().unwrap_or_default());
        name.push("-walrust-replica");
        replica.with_file_name(name)
    }

    /// Whether there is a state.
    pub(crate) fn exists(replica: &Path) -> Result<bool, DatabaseError> {
        exists(&Self::path_of(replica).join(STATE))
    }

    /// Creates the directory if needed, locks it, and removes what a crash has left unfinished.
    pub(crate) fn open(replica: &Path) -> Result<Self, ReplicaError> {
        let path = Self::path_of(replica);
        fs::create_dir_all(&path).map_err(DatabaseError::io("create the directory", &path))?;
        let lock_path = path.join(LOCK);
        let lock = File::create(&lock_path).map_err(DatabaseError::io("create", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(ReplicaError::Owned { path: replica.to_owned(), lock: lock_path });
            }
            Err(fs::TryLockError::Error(error)) => {
                return Err(DatabaseError::io("lock", &lock_path)(error).into());
            }
        }
        let directory = Self { path, _lock: lock };
        directory.clear_unfinished()?;
        Ok(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn table(&self) -> PathBuf {
        self.path.join(TABLE)
    }

    /// Where the next LTX file of the history is kept until it is applied.
    pub(crate) fn incoming_file(&self) -> PathBuf {
        self.path.join(INCOMING_FILE)
    }

    /// Where a whole database is kept until the replica is the same.
    pub(crate) fn incoming_database(&self) -> PathBuf {
        self.path.join(INCOMING_DATABASE)
    }

    /// The state of the replica; `None` if it was never made.
    pub(crate) fn load(&self) -> Result<Option<ReplicaState>, ReplicaError> {
        self.read_state(STATE)
    }

    pub(crate) fn save(&self, state: &ReplicaState) -> Result<(), ReplicaError> {
        Ok(replace(&self.path, STATE, &state_bytes(state))?)
    }

    /// The state that the database in [`incoming_database`](Self::incoming_database) is in; `None`
    /// if no database waits there.
    pub(crate) fn load_incoming(&self) -> Result<Option<ReplicaState>, ReplicaError> {
        self.read_state(INCOMING_STATE)
    }

    pub(crate) fn save_incoming(&self, state: &ReplicaState) -> Result<(), ReplicaError> {
        Ok(replace(&self.path, INCOMING_STATE, &state_bytes(state))?)
    }

    /// Removes what was applied, its state last.
    pub(crate) fn clear_incoming(&self) -> Result<(), ReplicaError> {
        for name in [INCOMING_FILE, INCOMING_DATABASE, INCOMING_STATE] {
            remove(&self.path.join(name))?;
        }
        Ok(())
    }

    /// Forgets the replica, which was never made, and what it was to be made of.
    pub(crate) fn forget(&self) -> Result<(), ReplicaError> {
        self.clear_incoming()?;
        Ok(remove(&self.path.join(STATE))?)
    }

    /// Makes names in the directory durable.
    pub(crate) fn sync(&self) -> Result<(), DatabaseError> {
        let sync = || File::open(&self.path)?.sync_all();
        sync().map_err(DatabaseError::io("sync the directory", &self.path))
    }

    fn read_state(&self, name: &str) -> Result<Option<ReplicaState>, ReplicaError> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => match parse_state(&bytes) {
                Some(state) => Ok(Some(state)),
                None => Err(ReplicaError::BadState { path }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DatabaseError::io("read", &path)(error).into()),
        }
    }

    fn clear_unfinished(&self) -> Result<(), DatabaseError> {
        let mut kept = vec![LOCK, STATE, TABLE, INCOMING_STATE, INCOMING_FILE];
        if exists(&self.path.join(INCOMING_STATE))? {
            kept.push(INCOMING_DATABASE);
        }
        let clear = || {
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                if !kept.iter().any(|name| entry.file_name() == *name) {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        clear().map_err(DatabaseError::io("clear the directory", &self.path))
    }
}

/// Whether a file is there: what cannot be looked at is not taken for missing.
pub(crate) fn exists(path: &Path) -> Result<bool, DatabaseError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DatabaseError::io("look at the file", path)(error)),
    }
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> Result<(), DatabaseError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DatabaseError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn state_bytes(state: &ReplicaState) -> Vec<u8> {
    let stored = StoredState {
        format: FORMAT,
        source: state.source.clone(),
        txid: state.txid.to_string(),
        checksum: state.checksum.to_string(),
        page_size: state.page_size.get(),
        page_count: state.page_count,
        timestamp_ms: state.timestamp_ms,
        lineage: state.lineage.clone(),
    };
    serde_json::to_vec_pretty(&stored).expect("strings and numbers always have a JSON form")
}

fn parse_state(bytes: &[u8]) -> Option<ReplicaState> {
    let stored: StoredState = serde_json::from_slice(bytes).ok()?;
    if stored.format != FORMAT {
        return None;
    }
    Some(ReplicaState {
        source: stored.source,
        txid: stored.txid.parse().ok()?,
        checksum: stored.checksum.parse().ok()?,
        page_size: PageSize::try_from(stored.page_size).ok()?,
        page_count: stored.page_count,
        timestamp_ms: stored.timestamp_ms,
        lineage: stored.lineage,
    })
}
