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
use walrust_actors::SHA256;
use walrust_engine::manifest::Manifest;
use walrust_engine::{
    Layout, RestorePlan, RestorePlanError, RestoreTarget, RetryDecision, RetryPolicy, StoredFile,
    Tree, manifest_key, plan_restore, restorable_txids,
};
use walrust_ltx::{FileName, Mode};
use walrust_sqlite::{IntegrityCheck, Restore, RestoreError, Restored, hex};
use walrust_storage::{ObjectStore, StorageError};

use crate::Error;

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

/// Sends a request again that the store cannot serve at the moment, a few times.
async fn patiently<T, F>(mut request: impl FnMut() -> F) -> Result<T, StorageError>
where
    F: Future<Output = Result<T, StorageError>>,
{
    let policy = RetryPolicy::default();
    for attempt in 1..=policy.max_retries {
        match request().await {
            Err(error) if error.class().is_retryable() => {
                let decision = policy.after_failure(error.class(), attempt, fastrand::f64());
                let RetryDecision::After { delay, .. } = decision else { return Err(error) };
                tokio::time::sleep(delay).await;
            }
            result => return result,
        }
    }
    request().await
}

/// Lists the files of a database.
///
/// # Errors
/// If storage fails.
pub async fn read_tree(store: &dyn ObjectStore, name: &str) -> Result<Tree, Error> {
    let prefix = format!("{name}/");
    let listing = patiently(|| store.list(&prefix, None)).await?;
    Ok(Tree::read(name, listing.iter().map(|entry| (entry.key.as_str(), entry.size))))
}

/// Reads the manifest of a database, if the tree has one.
///
/// # Errors
/// If storage fails, or the manifest is damaged or of a higher format.
pub async fn read_manifest(
    store: &dyn ObjectStore,
    name: &str,
    tree: &Tree,
) -> Result<Option<Manifest>, Error> {
    if !tree.has_manifest {
        return Ok(None);
    }
    let key = manifest_key(name);
    let object = patiently(|| store.get(&key)).await?;
    let expected = object.meta.metadata.get(SHA256).cloned();
    let bytes = object.bytes().await?;
    let object = format!("{}/{key}", store.url());
    // A newer program's manifest is recognised before anything else is asked of it.
    let manifest = Manifest::parse(&bytes);
    let found = hex(&Sha256::digest(&bytes));
    match (manifest, expected) {
        (Ok(_), Some(expected)) if expected != found => {
            Err(Error::ManifestSha256 { object, expected, found })
        }
        (Ok(manifest), _) => Ok(Some(manifest)),
        (Err(source), _) => Err(Error::Manifest { object, source }),
    }
}

/// Plans a restore.
///
/// # Errors
/// If storage fails, nothing is stored under the name, or the target cannot be reached.
pub async fn plan(
    store: &dyn ObjectStore,
    name: &str,
    target: RestoreTarget,
) -> Result<Planned, Error> {
    let name = name.trim_matches('/');
    let tree = read_tree(store, name).await?;
    let manifest = read_manifest(store, name, &tree).await?;
    let plan = plan_restore(&tree, target).map_err(|source| match source {
        RestorePlanError::Empty => Error::UnknownName { name: name.to_owned(), url: store.url() },
        source => Error::Plan { name: name.to_owned(), url: store.url(), source },
    })?;
    if let (Some(manifest), RestoreTarget::Latest) = (&manifest, target) {
        refuse_lost_tail(store, name, &tree, manifest, &plan)?;
    }
    let entries = manifest.iter().flat_map(|manifest| &manifest.files);
    let sha256 = entries.filter(|entry| !entry.sha256.is_empty());
    let sha256 = sha256.filter_map(|entry| Some((entry.file_name()?, entry.sha256.clone())));
    Ok(Planned { name: name.to_owned(), layout: tree.layout, plan, sha256: sha256.collect() })
}

/// A file that vanished from the end of a history leaves no gap; only the manifest knows it.
fn refuse_lost_tail(
    store: &dyn ObjectStore,
    name: &str,
    tree: &Tree,
    manifest: &Manifest,
    plan: &RestorePlan,
) -> Result<(), Error> {
    let missing = manifest.missing_from(tree);
    let Some(lost) = missing.iter().find(|file| file.max > plan.head) else { return Ok(()) };
    let newest = restorable_txids(tree).last().map_or_else(String::new, ToString::to_string);
    Err(Error::LostTail {
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
) -> Result<Restored, Error> {
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
) -> Result<String, Error> {
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
) -> Result<String, Error> {
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
) -> Result<String, Error> {
    match expected {
        Some(expected) if *expected != found => Err(Error::Restore(RestoreError::WrongSha256 {
            file: file.key.clone(),
            expected: expected.clone(),
            found,
        })),
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
