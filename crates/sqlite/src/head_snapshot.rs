//! A snapshot of a database that another process replicates.
//!
//! Invariant: the snapshot is made only of a state that storage already has as its head: the WAL
//! ends where the position of the other process does. The rolling checksum alone would not prove it
//! (see `capture/reconcile.rs`). Local state belongs to the other process and is only read.

use std::path::Path;

use walrust_ltx::{Header, Txid};

use crate::DatabaseError;
use crate::capture::Head;
use crate::database_files::{check_database, resolve};
use crate::database_reader::{ATTEMPTS, DatabaseReader, unless_truncated};
use crate::pin::WalPin;
use crate::staging::StagedFile;
use crate::state_directory::StateDirectory;

/// Whether another process of this host replicates the database. `state` is the directory of the
/// local state of all databases, if there is one.
///
/// # Errors
/// If local state cannot be looked at.
pub fn is_replicated(path: &Path, state: Option<&Path>) -> Result<bool, DatabaseError> {
    StateDirectory::is_locked(&resolve(path)?, state)
}

/// The identifier of the local state of a database that another process replicates: who wrote what is
/// in storage.
///
/// # Errors
/// If it cannot be read.
pub fn replicating_writer(path: &Path, state: Option<&Path>) -> Result<String, DatabaseError> {
    StateDirectory::peek_writer_id(&resolve(path)?, state)
}

/// Stages a snapshot of the newest state in `staging`, if that is the state of `head`; `None` if
/// the database has moved on.
///
/// # Errors
/// If the database cannot be read, or the file cannot be written.
pub fn stage_head_snapshot(
    path: &Path,
    state: Option<&Path>,
    staging: &Path,
    head: &Head,
) -> Result<Option<StagedFile>, DatabaseError> {
    let path = resolve(path)?;
    check_database(&path)?;
    let reader = DatabaseReader::open(&path, WalPin::Auto, None)?;
    for _ in 0..ATTEMPTS {
        let index = reader.files.wal_index()?;
        let position = StateDirectory::peek(&path, state)?;
        let at_head = position.is_some_and(|position| {
            let wal = (position.wal.salts, position.wal.frames);
            // Under the pin of the other process a WAL that restarted and is empty holds nothing new.
            let same = wal == (index.header.salts, index.header.mx_frame);
            position.txid == head.txid && (same || index.header.mx_frame == 0)
        });
        if !at_head {
            return Ok(None);
        }
        let Some(generation) = reader.read_generation(&index)? else { continue };
        if (generation.page_count, reader.page_size) != (head.page_count, head.page_size) {
            return Ok(None);
        }
        let header = Header {
            tracking: true,
            page_size: head.page_size,
            commit: head.page_count,
            min_txid: Txid::FIRST,
            max_txid: head.txid,
            timestamp_ms: head.timestamp_ms,
            pre_apply: None,
            wal_offset: 0,
            wal_size: 0,
            wal_salt1: 0,
            wal_salt2: 0,
            node_id: 0,
        };
        let staged = reader.stage_all_pages(staging, &generation, header, None);
        let Some(file) = unless_truncated(staged)? else {
            continue;
        };
        if Some(file.post_apply) == head.checksum {
            return Ok(Some(file));
        }
        file.remove()?;
        return Ok(None);
    }
    Err(reader.unstable())
}
