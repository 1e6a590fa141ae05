//! Brings `manifest.json` of a database up to date.
//!
//! Invariants: it is replaced only if it is still the object that was read, so two writers cannot
//! undo each other's entries, and a writer that sees a later epoch than its own stops. Files that were
//! uploaded but never entered (a crash came between) are found by listing and described from their own
//! bytes. Files of a branch that does not go on, which a writer has stored that had lost the name, are not
//! entered. One that lies ahead of what this run has stored came in after it had looked: the database is
//! opened again and goes on after it.
//!
//! It is an index and not the truth: one that is damaged is made anew from the files.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, SystemTime};

pub(crate) use walrust_engine::manifest::Writer;
use walrust_engine::manifest::{FORMAT, FileEntry, Manifest};
use walrust_engine::{ErrorClass, RestoreTarget, StoredFile, Tree, plan_restore};
use walrust_history::{
    FoundManifest, HistoryError, ManifestObject, describe, describe_file, find_abandoned,
    find_manifest, rfc3339, write_manifest,
};
use walrust_ltx::FileName;
use walrust_sqlite::StagedFile;
use walrust_storage::{Condition, ObjectStore, StorageError};

use crate::lost_state::LostState;
use crate::run_files::RunFiles;

/// How long one update looks at files of earlier runs: it has to end before its own time is over.
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
    /// What this run has offered.
    pub(crate) run: RunFiles,
    /// Files that were uploaded since the last update.
    pub(crate) entries: Vec<FileEntry>,
}

/// What was stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The manifest has no entries for some files of earlier runs, which storage did not show.
    pub(crate) partial: bool,
    /// What was wrong with the manifest that was there, if it was made anew.
    pub(crate) damage: Option<String>,
    /// The files that storage shows do not lead to what this run has stored.
    pub(crate) lost: Option<LostState>,
}

/// Why a manifest was not written.
#[derive(Debug)]
pub(crate) enum ManifestUpdateError {
    /// Storage failed, or another writer was faster: the next attempt reads it anew.
    Storage(StorageError),
    /// A writer with a later epoch has taken the name over.
    Superseded(Writer),
    /// A newer program has written it.
    Newer(HistoryError),
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

impl From<HistoryError> for ManifestUpdateError {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Storage(error) => Self::Storage(error),
            // One that is damaged is no error of those who may replace it.
            error => Self::Newer(error),
        }
    }
}

/// Finds out how to sign the manifest of a database, and takes the name over from another writer:
/// the later epoch wins, and the earlier writer stops when it sees the manifest.
///
/// # Errors
/// If storage fails, or the manifest is of a higher format.
pub(crate) async fn claim(
    store: &dyn ObjectStore,
    database: &str,
    id: &str,
    host: &str,
) -> Result<Writer, HistoryError> {
    const ATTEMPTS: u32 = 5;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let writer = |epoch| Writer { id: id.to_owned(), host: host.to_owned(), epoch };
        let found = match find_manifest(store, database).await {
            // A directory that does not exist yet has no manifest either.
            Err(HistoryError::Storage(error)) if error.is_missing_bucket() => FoundManifest::None,
            found => found?,
        };
        let FoundManifest::Read(ManifestObject { mut manifest, etag }) = found else {
            return Ok(writer(1));
        };
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
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a writer owns the name of a database, and took it over from another.
///
/// # Errors
/// If storage fails, or the manifest is of a higher format.
pub(crate) async fn took_over(
    store: &dyn ObjectStore,
    database: &str,
    id: &str,
) -> Result<bool, ManifestUpdateError> {
    match find_manifest(store, database).await? {
        FoundManifest::Read(ManifestObject { manifest, .. }) => {
            Ok(manifest.writer.id == id && manifest.writer.epoch > 1)
        }
        FoundManifest::None | FoundManifest::Damaged { .. } => Ok(false),
    }
}

/// Writes the manifest of a database. `again`: an earlier attempt, whose outcome is not known, may have
/// written it.
///
/// # Errors
/// If storage fails, also when another writer was faster; if another writer or a newer program owns the
/// name; or if a file lies ahead of ours.
pub(crate) async fn write(
    store: &dyn ObjectStore,
    database: &str,
    update: &ManifestUpdate,
    again: bool,
) -> Result<Stored, ManifestUpdateError> {
    let mut stored = Stored::default();
    let (mut manifest, condition) = match find_manifest(store, database).await? {
        FoundManifest::Read(ManifestObject { manifest, etag }) => {
            (manifest, Condition::IfMatch(etag))
        }
        FoundManifest::None => (new_manifest(database, update), Condition::IfAbsent),
        FoundManifest::Damaged { error, etag } => {
            stored.damage = Some(error.to_string());
            (new_manifest(database, update), Condition::IfMatch(etag))
        }
    };
    if manifest.writer.id != update.writer.id && manifest.writer.epoch >= update.writer.epoch {
        return Err(ManifestUpdateError::Superseded(manifest.writer));
    }
    let is_new = condition == Condition::IfAbsent || stored.damage.is_some();
    manifest.writer = update.writer.clone();
    manifest.page_size = update.page_size;
    let mut ahead = None;
    if is_new || update.first || again {
        let seen = SystemTime::now();
        let tree = list(store, database).await?;
        let names: HashSet<FileName> = tree.files.iter().map(|file| file.name).collect();
        let is_there =
            |entry: &FileEntry| entry.file_name().is_some_and(|name| names.contains(&name));
        let entered: BTreeSet<FileName> = entered_names(&manifest).collect();
        // What was merged or removed since it was entered must not come back.
        manifest.add(update.entries.iter().filter(|entry| is_there(entry)).cloned());
        // A writer before us may have been stopped between an upload and its manifest.
        let mut unknown = unknown_files(&tree, &manifest, &update.run);
        if let Some(newest) = update.run.newest() {
            ahead = unknown.iter().find(|file| file.name.max > newest).cloned();
        }
        let mut entries = Vec::new();
        let completed = async {
            let own = own_files(&manifest, &update.run);
            // Somebody who had lost the name may have stored something all the same.
            let abandoned = find_abandoned(store, &tree, Some(&manifest), &own).await?;
            unknown.retain(|file| !abandoned.contains(&file.name));
            describe_files(store, database, &unknown, &mut entries).await?;
            Ok::<_, HistoryError>(abandoned)
        };
        // What is described stays described; the files are safe without an entry.
        match tokio::time::timeout(DESCRIBING, completed).await {
            Ok(Ok(abandoned)) => {
                stored.lost = loss_of_newest(tree, &abandoned, &update.entries)
                    .map(|why| LostState { why: format!("{database}: {why}"), seen });
                let is_left =
                    |name: FileName| abandoned.contains(&name) && !entered.contains(&name);
                manifest.files.retain(|entry| !entry.file_name().is_some_and(is_left));
            }
            Ok(Err(error)) => {
                tracing::debug!(db = database, %error, "the manifest is completed later");
                stored.partial = true;
            }
            Err(_) => stored.partial = true,
        }
        manifest.add(entries);
    } else {
        manifest.add(update.entries.iter().cloned());
    }
    write_manifest(store, &manifest, &condition).await?;
    match ahead {
        Some(file) => Err(ManifestUpdateError::Overtaken { key: file.key }),
        None => Ok(stored),
    }
}

/// The entry of a file that was just uploaded.
pub(crate) fn entry_of(file: &StagedFile) -> FileEntry {
    let entry =
        describe_file(file.name, &file.header, file.post_apply, file.size, file.sha256.clone());
    FileEntry { merged_since: file.merged_since_ms.map(rfc3339), ..entry }
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

async fn list(store: &dyn ObjectStore, database: &str) -> Result<Tree, StorageError> {
    let listing = store.list(&format!("{database}/"), None).await?;
    Ok(Tree::read(database, listing.iter().map(|entry| (entry.key.as_str(), entry.size))))
}

/// The files that were in the bucket when it was listed, but neither in the manifest nor on their way
/// there.
fn unknown_files(tree: &Tree, manifest: &Manifest, run: &RunFiles) -> Vec<StoredFile> {
    // What is retired is to be deleted: it does not come back.
    let known: HashSet<FileName> =
        manifest.entries_with_retired().filter_map(FileEntry::file_name).collect();
    let not_entered = run.not_entered();
    let is_known =
        |file: &StoredFile| known.contains(&file.name) || not_entered.contains(&file.name);
    tree.files.iter().filter(|file| !is_known(file)).cloned().collect()
}

/// The files that this writer vouches for.
fn own_files(manifest: &Manifest, run: &RunFiles) -> BTreeSet<FileName> {
    entered_names(manifest).chain(run.not_entered()).collect()
}

/// Why the newest state cannot be restored, if files that were stored are not there any more.
fn loss_of_newest(
    mut tree: Tree,
    abandoned: &BTreeSet<FileName>,
    stored: &[FileEntry],
) -> Option<String> {
    let newest = stored.iter().filter_map(FileEntry::file_name).map(|name| name.max).max()?;
    tree.files.retain(|file| !abandoned.contains(&file.name));
    match plan_restore(&tree, RestoreTarget::Latest) {
        Ok(plan) if plan.head < newest => {
            Some(format!("TXID {newest} was stored, and {} is the last that is there", plan.head))
        }
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

fn entered_names(manifest: &Manifest) -> impl Iterator<Item = FileName> {
    manifest.files.iter().filter_map(FileEntry::file_name)
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

#[cfg(test)]
mod tests {
    use walrust_ltx::{Checksum, Encoder, Header, PageSize, Txid};
    use walrust_storage::{MemoryStore, Metadata};

    use super::*;

    /// An update that enters a snapshot of each of these TXIDs.
    fn update(txids: &[u64]) -> ManifestUpdate {
        let entry = |txid: &u64| {
            let max = Txid::new(*txid).unwrap();
            let header = Header::new(PageSize::ALL[3], 1, Txid::FIRST, max);
            let name = FileName { min: Txid::FIRST, max };
            describe_file(name, &header, Checksum::EMPTY, 3, "00".to_owned())
        };
        ManifestUpdate {
            page_size: 4096,
            writer: Writer { id: "w".to_owned(), host: "h".to_owned(), epoch: 1 },
            first: false,
            run: RunFiles::default(),
            entries: txids.iter().map(entry).collect(),
        }
    }

    /// Stores a file of a database of one page, which is full of a byte after it; its entry.
    async fn store_file(
        store: &MemoryStore,
        (min, max): (u64, u64),
        (before, after): (u8, u8),
        timestamp_ms: i64,
    ) -> FileEntry {
        let page_size = PageSize::ALL[0];
        let page = |byte| vec![byte; page_size.bytes()];
        let checksum = |byte| Checksum::EMPTY.toggle(Checksum::of_page(1, &page(byte)));
        let [min_txid, max_txid] = [min, max].map(|txid| Txid::new(txid).unwrap());
        let header = Header {
            tracking: true,
            timestamp_ms,
            pre_apply: (min > 1).then(|| checksum(before)),
            ..Header::new(page_size, 1, min_txid, max_txid)
        };
        let name = header.file_name();
        let mut encoder = Encoder::new(Vec::new(), header.clone()).unwrap();
        encoder.page(1, &page(after)).unwrap();
        let (bytes, summary) = encoder.finish(Some(checksum(after))).unwrap();
        let key = format!("a/{name}");
        store.put(&key, bytes.into(), &Metadata::new(), &Condition::IfAbsent).await.unwrap();
        describe_file(name, &header, checksum(after), summary.size, String::new())
    }

    #[tokio::test]
    async fn files_of_a_writer_that_has_lost_the_name_are_not_entered_until_they_are_continued() {
        let store = MemoryStore::default();
        let mut begin = update(&[]);
        begin.entries.push(store_file(&store, (1, 1), (0, 1), 10).await);
        begin.entries.push(store_file(&store, (2, 2), (1, 2), 20).await);
        write(&store, "a", &begin, false).await.unwrap();
        // By a host whose clock is ahead.
        store_file(&store, (2, 5), (1, 77), 99).await;
        let mut next = ManifestUpdate { first: true, ..update(&[]) };
        next.run.reach(Txid::new(5).unwrap());
        next.entries.push(store_file(&store, (3, 3), (2, 3), 30).await);
        let stored = write(&store, "a", &next, false).await.unwrap();
        assert_eq!((entered(&store).await, stored.partial), (vec![1, 2, 3], false));
        // The database was opened again and goes on after it.
        next.entries = vec![store_file(&store, (4, 4), (3, 4), 40).await];
        next.entries.push(store_file(&store, (6, 6), (77, 6), 50).await);
        write(&store, "a", &next, false).await.unwrap();
        assert_eq!(entered(&store).await, [1, 2, 5, 3, 6], "and not its own last file before");
    }

    async fn entered(store: &MemoryStore) -> Vec<u64> {
        let FoundManifest::Read(object) = find_manifest(store, "a").await.unwrap() else {
            panic!("there is no manifest");
        };
        let names = object.manifest.files.iter().filter_map(FileEntry::file_name);
        names.map(|name| name.max.get()).collect()
    }

    #[tokio::test]
    async fn an_entry_whose_file_is_gone_does_not_come_back_with_a_repetition() {
        let store = MemoryStore::default();
        for txid in 1..=2 {
            let key = format!("a/0000000000000001-{txid:016x}.ltx");
            let (body, metadata) = (b"ltx".as_slice().into(), Metadata::new());
            store.put(&key, body, &metadata, &Condition::IfAbsent).await.unwrap();
        }
        write(&store, "a", &update(&[1]), false).await.unwrap();
        // The answer was lost, and the retention has removed file and entry since.
        write(&store, "a", &update(&[2, 3]), true).await.unwrap();
        assert_eq!(entered(&store).await, [1, 2]);
    }
}
