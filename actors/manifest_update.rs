//! Brings `manifest.json` of a database up to date.
//!
//! Invariant: it is replaced only if it is still the object that was read, so two writers cannot
//! undo each other's entries, and a writer that sees a later epoch than its own stops. Files that were
//! uploaded but never entered (a crash came between) are found by listing and described from their own
//! bytes. One that lies ahead of what this run has stored came in after it had looked: the database is
//! opened again and goes on behind it.

use std::time::Duration;

pub(crate) use walrust_engine::manifest::Writer;
use walrust_engine::manifest::{FORMAT, FileEntry, Manifest};
use walrust_engine::{ErrorClass, StoredFile, Tree, manifest_key};
use walrust_history::{HistoryError, describe, describe_file, read_manifest, write_manifest};
use walrust_ltx::{FileName, Txid};
use walrust_sqlite::StagedFile;
use walrust_storage::{Condition, ObjectStore, StorageError};

/// How long one update looks at files of earlier runs: it holds up the other uploads of its database
/// and has to end before its own time is over.
const DESCRIBING: Duration = Duration::from_secs(30);

/// What is new about a database.
#[derive(Clone, Debug)]
pub(crate) struct ManifestUpdate {
    /// Page size of the database.
    pub(crate) page_size: u32,
    /// Who writes.
    pub(crate) writer: Writer,
    /// Whether this is the first update of this run: files of earlier runs may be missing in it.
    pub(crate) first: bool,
    /// The newest TXID that the database knows to be in storage.
    pub(crate) txid: Option<Txid>,
    /// Files that were uploaded since the last update.
    pub(crate) entries: Vec<FileEntry>,
}

/// What was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// All of it.
    Whole,
    /// A manifest without entries for some files of earlier runs, which storage did not show.
    Part,
}

/// Why a manifest was not written.
#[derive(Debug)]
pub(crate) enum ManifestUpdateError {
    /// Storage failed, or another writer was faster: the next attempt reads it anew.
    Storage(StorageError),
    /// A writer with a later epoch has taken the name over.
    Superseded(Writer),
    /// The manifest was written, but there is a file with later TXIDs than ours: an upload of an
    /// earlier run or writer has come in since the database was opened.
    Overtaken {
        /// Key of the file.
        key: String,
    },
}

impl From<StorageError> for ManifestUpdateError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Finds out how to sign the manifest of a database, and takes the name over from another writer:
/// the later epoch wins, and the earlier writer stops when it sees the manifest.
///
/// # Errors
/// If storage fails.
pub(crate) async fn claim(
    store: &dyn ObjectStore,
    database: &str,
    id: &str,
    host: &str,
) -> Result<Writer, StorageError> {
    const ATTEMPTS: u32 = 5;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let writer = |epoch| Writer { id: id.to_owned(), host: host.to_owned(), epoch };
        let found = match read(store, database).await {
            // A directory that does not exist yet has no manifest either.
            Err(error) if error.is_missing_bucket() => None,
            found => found?,
        };
        let Some((mut manifest, etag)) = found else { return Ok(writer(1)) };
        if manifest.writer.id == id {
            return Ok(writer(manifest.writer.epoch));
        }
        let ours = writer(manifest.writer.epoch + 1);
        let theirs = std::mem::replace(&mut manifest.writer, ours.clone());
        match write_manifest(store, &manifest, &Condition::IfMatch(etag)).await {
            Ok(()) => {
                let (host, epoch) = (theirs.host, ours.epoch);
                tracing::info!(db = database, from = host, epoch, "takes the name over");
                return Ok(ours);
            }
            Err(error) if error.class() == ErrorClass::Precondition && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether a writer owns the name of a database, and took it over from another.
///
/// # Errors
/// If storage fails.
pub(crate) async fn took_over(
    store: &dyn ObjectStore,
    database: &str,
    id: &str,
) -> Result<bool, StorageError> {
    let found = read(store, database).await?;
    Ok(found.is_some_and(|(manifest, _)| manifest.writer.id == id && manifest.writer.epoch > 1))
}

/// Writes the manifest of a database.
///
/// # Errors
/// If storage fails, also when another writer was faster; if another writer owns the name; or if a
/// file lies ahead of ours.
pub(crate) async fn write(
    store: &dyn ObjectStore,
    database: &str,
    update: &ManifestUpdate,
) -> Result<Stored, ManifestUpdateError> {
    let (mut manifest, condition, new) = match read(store, database).await? {
        Some((manifest, etag)) => (manifest, Condition::IfMatch(etag), false),
        None => (new_manifest(database, update), Condition::IfAbsent, true),
    };
    if manifest.writer.id != update.writer.id && manifest.writer.epoch >= update.writer.epoch {
        return Err(ManifestUpdateError::Superseded(manifest.writer));
    }
    manifest.writer = update.writer.clone();
    manifest.page_size = update.page_size;
    manifest.add(update.entries.iter().cloned());
    let (mut stored, mut ahead) = (Stored::Whole, None);
    if new || update.first {
        // A writer before us may have been stopped between an upload and its manifest.
        let unknown = unknown_files(store, database, &manifest).await?;
        let ours = update.entries.iter().filter_map(FileEntry::file_name).map(|name| name.max);
        if let Some(newest) = ours.chain(update.txid).max() {
            ahead = unknown.iter().find(|file| file.name.max > newest).cloned();
        }
        let mut entries = Vec::new();
        let described = describe_files(store, database, &unknown, &mut entries);
        // What is described stays described; the files are safe without an entry.
        match tokio::time::timeout(DESCRIBING, described).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(db = database, %error, "the manifest is completed later");
                stored = Stored::Part;
            }
            Err(_) => stored = Stored::Part,
        }
        manifest.add(entries);
    }
    write_manifest(store, &manifest, &condition).await?;
    match ahead {
        Some(file) => Err(ManifestUpdateError::Overtaken { key: file.key }),
        None => Ok(stored),
    }
}

/// The entry of a file that was just uploaded.
pub(crate) fn entry_of(file: &StagedFile) -> FileEntry {
    describe_file(file.name, &file.header, file.post_apply, file.size, file.sha256.clone())
}

fn new_manifest(database: &str, update: &ManifestUpdate) -> Manifest {
    Manifest {
        format: FORMAT,
        name: database.to_owned(),
        lineage: random_id(),
        writer: update.writer.clone(),
        page_size: update.page_size,
        files: Vec::new(),
        retired: Vec::new(),
    }
}

/// 128 random bits as hex digits.
pub(crate) fn random_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

async fn read(
    store: &dyn ObjectStore,
    database: &str,
) -> Result<Option<(Manifest, String)>, StorageError> {
    match read_manifest(store, database).await {
        Ok(found) => Ok(found.map(|object| (object.manifest, object.etag))),
        Err(HistoryError::Storage(error)) => Err(error),
        Err(error) => {
            Err(StorageError::permanent("read", store.url(), &manifest_key(database), error))
        }
    }
}

/// The files that are in the bucket but not in the manifest.
async fn unknown_files(
    store: &dyn ObjectStore,
    database: &str,
    manifest: &Manifest,
) -> Result<Vec<StoredFile>, StorageError> {
    // What is retired is to be deleted: it does not come back.
    let known: std::collections::HashSet<FileName> =
        manifest.entries_with_retired().filter_map(FileEntry::file_name).collect();
    let prefix = format!("{database}/");
    let listing = store.list(&prefix, None).await?;
    let tree = Tree::read(database, listing.iter().map(|entry| (entry.key.as_str(), entry.size)));
    let mut files = tree.files;
    files.retain(|file| !known.contains(&file.name));
    Ok(files)
}

/// Makes entries of files, as far as it gets.
async fn describe_files(
    store: &dyn ObjectStore,
    database: &str,
    files: &[StoredFile],
    entries: &mut Vec<FileEntry>,
) -> Result<(), StorageError> {
    for file in files {
        match describe(store, file).await? {
            Some(entry) => entries.push(entry),
            None => {
                let key = &file.key;
                tracing::warn!(db = database, key, "an object is not an LTX file of ours");
            }
        }
    }
    Ok(())
}
