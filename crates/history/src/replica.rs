//! Follows a history in storage with a read replica.
//!
//! # Requests
//!
//! A look is one listing that begins after the last file applied. It shows what leads on, and the
//! ETag of the manifest, which snapshots, merging and retention replace: only when that changed, or
//! when newer files do not continue the replica, everything is listed. A whole database is fetched
//! only if no file leads on.
//!
//! # Consistency
//!
//! A file is applied only if its bytes are those that were stored and it continues the replica, page
//! checksums included (`walrust_sqlite::Replica`). A replica never goes back in time.
//!
//! # Branches
//!
//! While a history seems to go on with a late upload the replica does so too. When it has turned out
//! that another branch goes on, the replica is made anew from that one as soon as its newest state is
//! not older than the replica, whatever their TXIDs are.
//!
//! # Failures
//!
//! The replica stays in the state it is in. Whoever calls again decides when; no failure makes it
//! fetch a whole database again and again.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio_util::io::SyncIoBridge;
use walrust_engine::{
    Kinship, Layout, ReplicaStep, RestoreTarget, StoredFile, Tree, files_after, manifest_key,
    plan_replica, restorable_txids,
};
use walrust_ltx::Txid;
use walrust_sqlite::{Replica, ReplicaChange, ReplicaError, ReplicaState, RestoreError};
use walrust_storage::ObjectStore;

use crate::point_in_time::StateTimes;
use crate::{
    FollowError, History, HistoryError, PlannedRestore, RestoreOptions, SHA256, patiently,
    read_ends,
};

/// Every so many looks that find nothing everything is listed all the same: a history may have lost
/// its manifest.
const QUIET_LOOKS: u32 = 60;

/// A replica and the history that it follows.
#[derive(Debug)]
pub struct ReplicaFollower {
    store: Arc<dyn ObjectStore>,
    name: String,
    /// Blocking, so it is used on a thread of its own.
    replica: Arc<Mutex<Replica>>,
    /// Files that lead on, not applied yet.
    queue: VecDeque<StoredFile>,
    /// The ETag of the manifest when everything was listed last and nothing led on.
    settled: Option<Option<String>>,
    /// Looks since then.
    quiet_looks: u32,
    /// A state that could not be restored.
    given_up: Option<GivenUp>,
}

/// A whole database is not fetched again and again if one of its files is damaged.
#[derive(Debug)]
struct GivenUp {
    txid: Txid,
    /// Number of files of the history then: another number may help.
    files: usize,
    why: String,
    /// How often it was not tried since. An object may have been repaired in its place.
    refused: u32,
}

impl ReplicaFollower {
    /// Opens the replica at `path`, or a place for one, of the database `name` in `store`.
    ///
    /// # Errors
    /// As [`Replica::open`].
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        name: &str,
        path: &Path,
    ) -> Result<Self, FollowError> {
        let (path, source) = (path.to_owned(), format!("{}/{name}", store.url()));
        let replica = blocking(move || Replica::open(&path, &source)).await?;
        Ok(Self {
            store,
            name: name.to_owned(),
            replica: Arc::new(Mutex::new(replica)),
            queue: VecDeque::new(),
            settled: None,
            quiet_looks: 0,
            given_up: None,
        })
    }

    /// The state that the replica is in; `None` before it was made.
    #[must_use]
    pub fn state(&self) -> Option<ReplicaState> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner).state().cloned()
    }

    /// Brings the replica one step on; `None` if it is in the newest state.
    ///
    /// # Errors
    /// If storage fails, or the history does not lead on. The replica stays as it is, and the next
    /// call looks again.
    pub async fn step(&mut self) -> Result<Option<ReplicaChange>, FollowError> {
        let result = self.try_step().await;
        if result.is_err() {
            self.queue.clear();
        }
        result
    }

    async fn try_step(&mut self) -> Result<Option<ReplicaChange>, FollowError> {
        if let Some(change) = self.with(Replica::resume).await? {
            return Ok(Some(change));
        }
        let Some(state) = self.state() else { return self.begin().await.map(Some) };
        if self.queue.is_empty()
            && let Some(change) = self.look(&state).await?
        {
            return Ok(Some(change));
        }
        let Some(file) = self.queue.pop_front() else { return Ok(None) };
        match self.apply(&file).await {
            Err(error) => self.go_around(&state, &file, error).await,
            Ok(change) => Ok(Some(change)),
        }
    }

    /// Makes the replica.
    async fn begin(&mut self) -> Result<ReplicaChange, FollowError> {
        let history = self.history().await?;
        self.restore(&history, RestoreTarget::Latest).await
    }

    /// Looks for files that lead on, and puts them into the queue. If none does and the history
    /// still goes on, the replica is made anew.
    async fn look(&mut self, state: &ReplicaState) -> Result<Option<ReplicaChange>, FollowError> {
        let name = &self.name;
        let (prefix, after) = (format!("{name}/"), format!("{name}/{}", state.txid.next()));
        let listing = patiently(|| self.store.list(&prefix, Some(&after))).await?;
        let tree = Tree::read(name, listing.iter().map(|entry| (entry.key.as_str(), entry.size)));
        let manifest = manifest_key(name);
        let manifest = listing.into_iter().find(|entry| entry.key == manifest);
        let manifest = manifest.map(|entry| entry.etag);
        self.queue = files_after(&tree, state.txid).into();
        if !self.queue.is_empty() {
            return Ok(None);
        }
        self.quiet_looks += 1;
        let settled = self.settled.as_ref() == Some(&manifest) && self.quiet_looks < QUIET_LOOKS;
        if tree.files.is_empty() && settled {
            return Ok(None);
        }
        self.quiet_looks = 0;
        let history = self.history().await?;
        let kinship = self.kinship(&history, state).await?;
        let lineage = history.manifest.as_ref().map(|manifest| manifest.lineage.clone());
        if kinship == Kinship::Same && lineage.is_some() {
            self.with(|replica| replica.record_lineage(lineage)).await?;
        }
        let source_url = state.source.clone();
        match plan_replica(&history.tree, state.txid, kinship) {
            ReplicaStep::Stay => {
                self.settled = Some(manifest);
                Ok(None)
            }
            ReplicaStep::Apply(files) => {
                self.queue = files.into();
                Ok(None)
            }
            ReplicaStep::Rebuild(txid) => {
                let change = self.rebuild(&history, state, txid).await?;
                self.settled = Some(manifest);
                Ok(Some(change))
            }
            ReplicaStep::Gap { next } => {
                Err(FollowError::Gap { source_url, after: state.txid, next })
            }
            ReplicaStep::Behind { newest } => {
                Err(FollowError::Behind { source_url, newest, at: state.txid })
            }
        }
    }

    async fn apply(&self, file: &StoredFile) -> Result<ReplicaChange, FollowError> {
        let object = patiently(|| self.store.get(&file.key)).await?;
        let sha256 = object.meta.metadata.get(SHA256).cloned();
        let (key, name, handle) = (file.key.clone(), file.name, Handle::current());
        self.with(move |replica| {
            let input = SyncIoBridge::new_with_handle(object.body, handle);
            replica.apply_file(&key, name, sha256.as_deref(), input)
        })
        .await
    }

    /// Looks for another way when a file is gone, damaged, or of another chain.
    async fn go_around(
        &mut self,
        state: &ReplicaState,
        file: &StoredFile,
        error: FollowError,
    ) -> Result<Option<ReplicaChange>, FollowError> {
        let Some(mut kinship) = error.kinship() else { return Err(error) };
        let mut history = self.history().await?;
        let left_behind = history.abandoned.iter().any(|other| other.name == file.name);
        if kinship == Kinship::Other {
            let found = self.kinship(&history, state).await?;
            // A file that was left behind says nothing of the branch that goes on.
            if left_behind || found == Kinship::Newer {
                kinship = found;
            }
        }
        if kinship == Kinship::Unknown {
            history.tree.files.retain(|other| other.name != file.name);
        }
        match plan_replica(&history.tree, state.txid, kinship) {
            ReplicaStep::Apply(files) => {
                self.queue = files.into();
                let Some(first) = self.queue.pop_front() else { return Err(error) };
                self.apply(&first).await.map(Some)
            }
            ReplicaStep::Rebuild(txid) => {
                tracing::warn!(db = self.name, %error, "a file does not continue the replica");
                self.rebuild(&history, state, txid).await.map(Some)
            }
            ReplicaStep::Stay if left_behind => Ok(None),
            ReplicaStep::Behind { newest } if kinship == Kinship::Newer => {
                let source_url = state.source.clone();
                Err(FollowError::Behind { source_url, newest, at: state.txid })
            }
            _ => Err(error),
        }
    }

    /// Restores a state of the history, unless that failed before and nothing has changed since.
    async fn rebuild(
        &mut self,
        history: &History,
        state: &ReplicaState,
        txid: Txid,
    ) -> Result<ReplicaChange, FollowError> {
        let files = history.tree.files.len();
        if let Some(given_up) = &mut self.given_up
            && (given_up.txid, given_up.files) == (txid, files)
            && given_up.refused < QUIET_LOOKS
        {
            given_up.refused += 1;
            let (source_url, why) = (state.source.clone(), given_up.why.clone());
            return Err(FollowError::GivenUp { source_url, txid, why });
        }
        self.given_up = None;
        let result = self.restore(history, RestoreTarget::Txid(txid)).await;
        if let Err(FollowError::History(HistoryError::Restore(error))) = &result
            && !matches!(error, RestoreError::Io { .. })
            && !matches!(error, RestoreError::Damaged { source, .. } if source.is_io())
        {
            self.given_up = Some(GivenUp { txid, files, why: error.to_string(), refused: 0 });
        }
        result
    }

    /// Restores a state of the history and makes the replica the same.
    async fn restore(
        &mut self,
        history: &History,
        target: RestoreTarget,
    ) -> Result<ReplicaChange, FollowError> {
        self.queue.clear();
        let planned = PlannedRestore::plan(self.store.as_ref(), &self.name, target).await?;
        let output = self.with(|replica| Ok(replica.incoming_database())).await?;
        let options = RestoreOptions { force: true, ..RestoreOptions::default() };
        let store = Arc::clone(&self.store);
        let restored = planned.execute(store, &output, options, |_| {}).await?;
        let lineage = history.manifest.as_ref().map(|manifest| manifest.lineage.clone());
        self.with(move |replica| replica.become_restored(&restored, lineage)).await
    }

    async fn history(&self) -> Result<History, FollowError> {
        let history = History::read(self.store.as_ref(), &self.name).await?;
        if history.tree.layout != Layout::Walrust {
            let source_url = format!("{}/{}", self.store.url(), self.name);
            return Err(FollowError::NotWalrust { source_url, layout: history.tree.layout });
        }
        // A history that there never was is none that is lost.
        if !history.missing().is_empty() {
            history.refuse_empty(self.store.as_ref())?;
        }
        Ok(history)
    }

    /// Whether the state of the replica is one of the history, by the files that end in its TXID.
    async fn kinship(
        &self,
        history: &History,
        state: &ReplicaState,
    ) -> Result<Kinship, FollowError> {
        let mut kinship = match (&history.manifest, &state.lineage) {
            (Some(manifest), Some(lineage)) if manifest.lineage != *lineage => Kinship::Other,
            _ => Kinship::Unknown,
        };
        for file in history.tree.files.iter().filter(|file| file.name.max == state.txid) {
            match self.ends_in(file, state).await? {
                Some(true) => return Ok(Kinship::Same),
                Some(false) => kinship = Kinship::Other,
                None => {}
            }
        }
        for file in history.abandoned.iter().filter(|file| file.name.max == state.txid) {
            if self.ends_in(file, state).await? == Some(true) {
                return Ok(match self.has_newer_head(history, state).await? {
                    true => Kinship::Other,
                    false => Kinship::Newer,
                });
            }
        }
        Ok(kinship)
    }

    /// Whether a file ends in a state, if that can be told.
    async fn ends_in(
        &self,
        file: &StoredFile,
        state: &ReplicaState,
    ) -> Result<Option<bool>, FollowError> {
        let ends = patiently(|| read_ends(self.store.as_ref(), file)).await?;
        Ok(ends.map(|ends| ends.post_apply == Some(state.checksum)))
    }

    /// Whether the newest state of a history is not older than another one.
    async fn has_newer_head(
        &self,
        history: &History,
        state: &ReplicaState,
    ) -> Result<bool, FollowError> {
        let Some(head) = restorable_txids(&history.tree).last().copied() else { return Ok(false) };
        let head = StateTimes::new(self.store.as_ref(), history).state(head).await?;
        Ok(head.timestamp_ms.is_some_and(|time| time >= state.timestamp_ms))
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Replica) -> Result<T, ReplicaError> + Send + 'static,
    ) -> Result<T, FollowError> {
        let replica = Arc::clone(&self.replica);
        let work = move || work(&mut replica.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(blocking(work).await?)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
