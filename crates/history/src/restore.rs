//! Restores a database from a bucket: plan, fetch, verify, write.
//!
//! Files are fetched ahead of their turn, in pieces, several at a time. One thread decodes and writes
//! them, another one hashes the same bytes. Whatever goes wrong, the output is untouched and nothing
//! stays behind.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::runtime::Handle;
use walrust_engine::{
    Layout, RestorePlan, RestorePlanError, RestoreTarget, StoredFile, plan_restore,
    restorable_txids,
};
use walrust_ltx::{FileName, Mode};
use walrust_sqlite::{Cancellation, IntegrityCheck, Restore, Restored};
use walrust_storage::ObjectStore;

use crate::fetch::{DEFAULT_PARALLELISM, fetch};
use crate::hash_queue::{HashQueue, compare_hashes};
use crate::piece_reader::PieceReader;
use crate::point_in_time::StateTimes;
use crate::{History, HistoryError, SHA256};

/// What a restore will do.
#[derive(Clone, Debug)]
pub struct PlannedRestore {
    /// Name of the database.
    pub name: String,
    /// Layout of its files.
    pub layout: Layout,
    /// The files, in order.
    pub plan: RestorePlan,
    /// When the state was committed, milliseconds since the Unix epoch; `None` if the file that
    /// tells is damaged.
    pub timestamp_ms: Option<i64>,
    /// SHA-256 of each file, hex, as far as the manifest knows it. A rolling checksum is linear,
    /// so the file of another lineage can, rarely, fit a chain; it does not have this hash.
    pub sha256: BTreeMap<FileName, String>,
}

/// How a restore works and writes its result.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Replace an existing output.
    pub force: bool,
    /// SQLite's check at the end.
    pub integrity_check: IntegrityCheck,
    /// Requests at once. What they fetch ahead takes at most 16 MiB of memory together.
    pub parallelism: NonZeroUsize,
    /// Gives the restore up, as long as the output has not got its name.
    pub cancellation: Cancellation,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            force: false,
            integrity_check: IntegrityCheck::default(),
            parallelism: DEFAULT_PARALLELISM,
            cancellation: Cancellation::default(),
        }
    }
}

impl PlannedRestore {
    /// Plans a restore.
    ///
    /// # Errors
    /// If storage fails, nothing is stored under the name or all of it is lost, or the target cannot be
    /// reached.
    pub async fn plan(
        store: &dyn ObjectStore,
        name: &str,
        target: RestoreTarget,
    ) -> Result<Self, HistoryError> {
        let history = History::read(store, name).await?;
        Self::of(store, &history, target).await
    }

    /// Plans a restore of the last state whose timestamp is not later than `time`.
    ///
    /// # Errors
    /// As [`plan`](Self::plan); also if it is not known which state that is, or `time` is in the future.
    pub async fn plan_at(
        store: &dyn ObjectStore,
        name: &str,
        time: Timestamp,
    ) -> Result<Self, HistoryError> {
        let history = History::read(store, name).await?;
        if restorable_txids(&history.tree).is_empty() {
            // Says why not even the newest state can be restored.
            return Self::of(store, &history, RestoreTarget::Latest).await;
        }
        let txid = StateTimes::new(store, &history).find(time, Timestamp::now()).await?;
        Self::of(store, &history, RestoreTarget::Txid(txid)).await
    }

    /// Plans a restore of a history that was read.
    pub(crate) async fn of(
        store: &dyn ObjectStore,
        history: &History,
        target: RestoreTarget,
    ) -> Result<Self, HistoryError> {
        history.refuse_empty(store)?;
        let History { name, tree, manifest, .. } = history;
        let times = StateTimes::new(store, history);
        let plan = match plan_from(history, target) {
            Ok(plan) => plan,
            Err(RestorePlanError::TargetUnavailable { target, before, after }) => {
                let target = format!("TXID {target} ({})", target.get());
                return Err(times.unavailable(target, String::new(), before, after).await?);
            }
            Err(source) => {
                return Err(HistoryError::Plan { name: name.clone(), url: store.url(), source });
            }
        };
        if target == RestoreTarget::Latest {
            history.refuse_lost_tail(store, &history.missing(), plan.head)?;
        }
        let timestamp_ms = times.state(plan.head).await?.timestamp_ms;
        let entries = manifest.iter().flat_map(|manifest| &manifest.files);
        let sha256 = entries.filter(|entry| !entry.sha256.is_empty());
        let sha256 = sha256.filter_map(|entry| Some((entry.file_name()?, entry.sha256.clone())));
        let (name, layout, sha256) = (name.clone(), tree.layout, sha256.collect());
        Ok(Self { name, layout, plan, timestamp_ms, sha256 })
    }

    /// Carries a plan out. `progress` is told the bytes of each piece that was read. Who drops the future
    /// gives the restore up: its thread ends soon after, and leaves the output as it was.
    ///
    /// # Errors
    /// If storage fails, a file or a link between files is damaged, SQLite finds faults in the result,
    /// or the output cannot be written.
    pub async fn execute(
        &self,
        store: Arc<dyn ObjectStore>,
        output: &Path,
        options: RestoreOptions,
        progress: impl Fn(u64) + Send + 'static,
    ) -> Result<Restored, HistoryError> {
        let mode = match self.layout {
            Layout::Walrust => Mode::Strict,
            Layout::LitestreamS3 | Layout::LitestreamFile => Mode::Lenient,
        };
        let RestoreOptions { cancellation, integrity_check, .. } = options;
        let cancel = cancellation.on_drop();
        let restore = Restore::begin(output, options.force, mode)?;
        let restore = restore.cancelled_by(cancellation.clone());
        let files: Vec<StoredFile> = self.plan.files.iter().map(|(file, _)| file.clone()).collect();
        let fetching = fetch(Arc::clone(&store), files.clone(), options.parallelism);
        let (handle, recorded) = (Handle::current(), self.sha256.clone());
        let work = move || {
            let (queue, hashing) = HashQueue::new();
            let queue = RefCell::new(queue);
            std::thread::scope(|scope| {
                let (files, recorded) = (&files, &recorded);
                let hasher = move || compare_hashes(files, recorded, &hashing);
                let hasher = std::thread::Builder::new().spawn_scoped(scope, hasher);
                let hasher = hasher.map_err(HistoryError::NoThread)?;
                let observe = |bytes: &Bytes| {
                    if cancellation.is_cancelled() {
                        return Err(io::Error::other("nobody waits for it any more"));
                    }
                    progress(bytes.len() as u64);
                    queue.borrow_mut().bytes(bytes.clone())
                };
                let pieces = PieceReader::new(handle, fetching, observe);
                let restored = apply_all(restore, pieces, files, &queue);
                // It ends with its channel.
                queue.into_inner().finish();
                let compared = hasher.join();
                // A file with another hash may still decode; it is not the one that was stored.
                compared.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                Ok(restored?.finish(integrity_check)?)
            })
        };
        let restored = tokio::task::spawn_blocking(work).await;
        cancel.disarm();
        restored.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

/// Plans without files that may be deleted at any moment, unless only they have what is wanted.
fn plan_from(history: &History, target: RestoreTarget) -> Result<RestorePlan, RestorePlanError> {
    let staying = plan_restore(&history.staying(), target);
    staying.or_else(|_| plan_restore(&history.tree, target))
}

fn apply_all(
    mut restore: Restore,
    mut pieces: PieceReader<impl FnMut(&Bytes) -> io::Result<()>>,
    files: &[StoredFile],
    queue: &RefCell<HashQueue>,
) -> Result<Restore, HistoryError> {
    for file in files {
        let applied = restore.apply(&file.key, file.name, &mut pieces);
        if let Some(failure) = pieces.take_failure() {
            return Err(failure.into());
        }
        applied?;
        let meta = pieces.end_file();
        queue.borrow_mut().end_file(meta.and_then(|meta| meta.metadata.get(SHA256).cloned()));
    }
    Ok(restore)
}
