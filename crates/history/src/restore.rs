//! Restores a database from a bucket: plan, fetch, verify, write.
//!
//! Small files are fetched ahead of their turn, several at a time; large ones stream. Whatever
//! goes wrong, the output is untouched and nothing stays behind.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::io::SyncIoBridge;
use walrust_engine::manifest::Manifest;
use walrust_engine::{
    Layout, RestorePlan, RestorePlanError, RestoreTarget, StoredFile, Tree, manifest_key,
    plan_restore, restorable_txids,
};
use walrust_ltx::{FileName, Mode};
use walrust_sqlite::{IntegrityCheck, Restore, RestoreError, Restored, hex};
use walrust_storage::{ObjectStore, StorageError};

use crate::{History, HistoryError, SHA256, patiently};

/// Files up to this size are fetched whole, ahead of their turn.
const SMALL: u64 = 1 << 20;
/// Small files on their way or waiting: at most 8 MiB of them.
const AHEAD: usize = 8;

/// What a restore will do.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Name of the database.
    pub name: String,
    /// Layout of its files.
    pub layout: Layout,
    /// The files, in order.
    pub plan: RestorePlan,
    /// SHA-256 of each file, hex, as far as the manifest knows it. A rolling checksum is linear,
    /// so the file of another lineage can, rarely, fit a chain; it does not have this hash.
    pub sha256: BTreeMap<FileName, String>,
}

/// How a restore writes its result.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreOptions {
    /// Replace an existing output.
    pub force: bool,
    /// SQLite's check at the end.
    pub integrity_check: IntegrityCheck,
}

/// Plans a restore.
///
/// # Errors
/// If storage fails, nothing is stored under the name, or the target cannot be reached.
pub async fn plan(
    store: &dyn ObjectStore,
    name: &str,
    target: RestoreTarget,
) -> Result<Planned, HistoryError> {
    let History { name, tree, manifest } = History::read(store, name).await?;
    let plan = plan_from(&tree, manifest.as_ref(), target).map_err(|source| match source {
        RestorePlanError::Empty => {
            HistoryError::UnknownName { name: name.clone(), url: store.url() }
        }
        source => HistoryError::Plan { name: name.clone(), url: store.url(), source },
    })?;
    if let (Some(manifest), RestoreTarget::Latest) = (&manifest, target) {
        refuse_lost_tail(store, &name, &tree, manifest, &plan)?;
    }
    let entries = manifest.iter().flat_map(|manifest| &manifest.files);
    let sha256 = entries.filter(|entry| !entry.sha256.is_empty());
    let sha256 = sha256.filter_map(|entry| Some((entry.file_name()?, entry.sha256.clone())));
    Ok(Planned { name, layout: tree.layout, plan, sha256: sha256.collect() })
}

/// Plans without files that may be deleted at any moment, unless only they have what is wanted.
fn plan_from(
    tree: &Tree,
    manifest: Option<&Manifest>,
    target: RestoreTarget,
) -> Result<RestorePlan, RestorePlanError> {
    let retired = manifest.map(Manifest::retired_names).unwrap_or_default();
    let mut staying = tree.clone();
    staying.files.retain(|file| !retired.contains(&file.name));
    plan_restore(&staying, target).or_else(|_| plan_restore(tree, target))
}

/// A file that vanished from the end of a history leaves no gap; only the manifest knows it.
fn refuse_lost_tail(
    store: &dyn ObjectStore,
    name: &str,
    tree: &Tree,
    manifest: &Manifest,
    plan: &RestorePlan,
) -> Result<(), HistoryError> {
    let missing = manifest.missing_from(tree);
    let Some(lost) = missing.iter().find(|file| file.max > plan.head) else { return Ok(()) };
    let newest = restorable_txids(tree).last().map_or_else(String::new, ToString::to_string);
    Err(HistoryError::LostTail {
        object: format!("{}/{}", store.url(), manifest_key(name)),
        file: lost.to_string(),
        newest,
    })
}

/// Carries a plan out. `progress` is told the bytes of each piece that was read.
///
/// # Errors
/// If storage fails, a file or a link between files is damaged, SQLite finds faults in the result,
/// or the output cannot be written.
pub async fn execute(
    store: Arc<dyn ObjectStore>,
    planned: &Planned,
    output: &Path,
    options: RestoreOptions,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<Restored, HistoryError> {
    let mode = match planned.layout {
        Layout::Walrust => Mode::Strict,
        Layout::LitestreamS3 | Layout::LitestreamFile => Mode::Lenient,
    };
    let mut restore = Restore::begin(output, options.force, mode)?;
    let files: Vec<StoredFile> = planned.plan.files.iter().map(|(file, _)| file.clone()).collect();
    let (fetched, mut bodies) = mpsc::channel(1);
    let fetching = tokio::spawn(fetch_ahead(Arc::clone(&store), files, fetched));
    let handle = Handle::current();
    let recorded = planned.sha256.clone();
    let work = move || {
        while let Some(next) = bodies.blocking_recv() {
            let (file, body) = next?;
            let found = apply(&mut restore, &handle, store.as_ref(), &file, body, &progress)?;
            compare_sha256(&file, recorded.get(&file.name), found)?;
        }
        Ok(restore.finish(options.integrity_check)?)
    };
    let restored = tokio::task::spawn_blocking(work).await;
    fetching.abort();
    restored.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// The bytes of a small file, or nothing: a large one streams when its turn has come.
type Body = Option<(Bytes, Option<String>)>;
type Fetched = Result<(StoredFile, Body), StorageError>;

async fn fetch_ahead(
    store: Arc<dyn ObjectStore>,
    files: Vec<StoredFile>,
    fetched: mpsc::Sender<Fetched>,
) {
    let fetches = files.into_iter().map(|file| {
        let store = Arc::clone(&store);
        async move {
            if file.size > SMALL {
                return Ok((file, None));
            }
            let object = patiently(|| store.get(&file.key)).await?;
            let sha256 = object.meta.metadata.get(SHA256).cloned();
            let bytes = object.bytes().await?;
            Ok((file, Some((bytes, sha256))))
        }
    });
    let mut fetches = futures_util::stream::iter(fetches).buffered(AHEAD);
    while let Some(next) = fetches.next().await {
        if fetched.send(next).await.is_err() {
            return;
        }
    }
}

/// Applies a file and returns the SHA-256 of its bytes.
fn apply(
    restore: &mut Restore,
    handle: &Handle,
    store: &dyn ObjectStore,
    file: &StoredFile,
    body: Body,
    progress: &(impl Fn(u64) + Send + Sync),
) -> Result<String, HistoryError> {
    match body {
        Some((bytes, sha256)) => {
            apply_from(restore, file, bytes.as_ref(), sha256.as_ref(), progress)
        }
        None => {
            let object = handle.block_on(patiently(|| store.get(&file.key)))?;
            let sha256 = object.meta.metadata.get(SHA256).cloned();
            let input = SyncIoBridge::new_with_handle(object.body, handle.clone());
            apply_from(restore, file, input, sha256.as_ref(), progress)
        }
    }
}

fn apply_from(
    restore: &mut Restore,
    file: &StoredFile,
    input: impl Read,
    sha256: Option<&String>,
    progress: &(impl Fn(u64) + Send + Sync),
) -> Result<String, HistoryError> {
    let mut input = HashingReader { input, hasher: Sha256::new(), progress };
    restore.apply(&file.key, file.name, &mut input)?;
    let found = hex(&input.hasher.finalize());
    compare_sha256(file, sha256, found)
}

/// Compares the hash of the bytes read with one that was recorded when they were stored.
fn compare_sha256(
    file: &StoredFile,
    expected: Option<&String>,
    found: String,
) -> Result<String, HistoryError> {
    match expected {
        Some(expected) if *expected != found => {
            Err(HistoryError::Restore(RestoreError::WrongSha256 {
                file: file.key.clone(),
                expected: expected.clone(),
                found,
            }))
        }
        _ => Ok(found),
    }
}

/// Hashes and counts what is read through it.
struct HashingReader<'a, R, P> {
    input: R,
    hasher: Sha256,
    progress: &'a P,
}

impl<R: Read, P: Fn(u64)> Read for HashingReader<'_, R, P> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        (self.progress)(length as u64);
        Ok(length)
    }
}
