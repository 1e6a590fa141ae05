//! A store in memory that fails as it is told to, and counts what it is asked.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;
use walrust_engine::ErrorClass;
use walrust_ltx::FileName;
use walrust_storage::{
    Condition, DeleteFailure, ListEntry, MemoryStore, Metadata, Object, ObjectMeta, ObjectStore,
    PutReceipt, StorageError,
};

/// What happens to one upload of an LTX file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Nothing is stored.
    Refused(ErrorClass),
    /// The file is stored, but the answer is lost.
    LostReply,
    /// Nothing is stored, and there is never an answer.
    Silence,
    /// An upload of other bytes by the same writer arrives just before.
    Overtaken,
    /// The code that talks to the store has a fault.
    Panic,
}

/// What the name of a snapshot begins with.
const FIRST: &str = "0000000000000001-";

#[derive(Debug, Default)]
pub(crate) struct FaultStore {
    inner: MemoryStore,
    /// Faults of the next uploads, one each.
    faults: Mutex<VecDeque<Fault>>,
    /// Uploads of LTX files whose keys begin with one of these do not end.
    held: watch::Sender<Vec<String>>,
    /// Uploads that are being held.
    holding: AtomicUsize,
    away: AtomicBool,
    /// Every request is refused with an error of this class.
    refusal: Mutex<Option<ErrorClass>>,
    /// How long every upload takes.
    latency: Mutex<Duration>,
    /// So many manifests are refused.
    refused_manifests: AtomicUsize,
    requests: AtomicUsize,
    /// Requests about each database.
    concerning: Mutex<BTreeMap<String, usize>>,
    /// Snapshots that are being uploaded, and the most that were at once.
    snapshots: (AtomicUsize, AtomicUsize),
    /// The keys of whole objects that were fetched.
    fetched: Mutex<Vec<String>>,
    /// When each LTX file was uploaded.
    uploads: Mutex<Vec<(String, Instant)>>,
}

impl FaultStore {
    pub(crate) fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// The next fault, if it fits; else it waits.
    fn next_fault(&self, fits: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        if faults.front().is_some_and(fits) { faults.pop_front() } else { None }
    }

    /// Faults that have not happened.
    pub(crate) fn faults_left(&self) -> usize {
        self.faults.lock().unwrap().len()
    }

    /// Forgets the faults that have not happened.
    pub(crate) fn heal(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// While the store is away every request fails.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// Every request is refused with an error of this class, or none any more.
    pub(crate) fn refuse_everything(&self, class: Option<ErrorClass>) {
        *self.refusal.lock().unwrap() = class;
    }

    /// Holds all uploads of LTX files whose keys begin with one of these, instead of those before.
    pub(crate) fn hold(&self, prefixes: impl IntoIterator<Item = String>) {
        self.held.send_replace(prefixes.into_iter().collect());
    }

    /// From now on every upload takes this long.
    pub(crate) fn set_latency(&self, latency: Duration) {
        *self.latency.lock().unwrap() = latency;
    }

    /// Refuses so many manifests from now on.
    pub(crate) fn refuse_manifests(&self, count: usize) {
        self.refused_manifests.store(count, Ordering::SeqCst);
    }

    /// Whether a manifest is still to be refused.
    pub(crate) fn refuses_manifest(&self) -> bool {
        self.refused_manifests.load(Ordering::SeqCst) > 0
    }

    async fn take_time(&self) {
        let latency = *self.latency.lock().unwrap();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }

    /// Requests that concern a database.
    pub(crate) fn requests_for(&self, name: &str) -> usize {
        self.concerning.lock().unwrap().get(name).copied().unwrap_or_default()
    }

    /// The most snapshots that were uploaded at once since this was last asked.
    pub(crate) fn take_most_snapshots(&self) -> usize {
        self.snapshots.1.swap(0, Ordering::SeqCst)
    }

    /// Uploads that are being held.
    pub(crate) fn holding(&self) -> usize {
        self.holding.load(Ordering::SeqCst)
    }

    async fn while_held(&self, key: &str) {
        let mut held = self.held.subscribe();
        let goes_on = |prefixes: &Vec<String>| !prefixes.iter().any(|each| key.starts_with(each));
        if goes_on(&held.borrow()) {
            return;
        }
        let _holding = Holding::new(&self.holding);
        held.wait_for(goes_on).await.expect("the sender is in the store");
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// How often an object was fetched as a whole.
    pub(crate) fn fetches(&self, key: &str) -> usize {
        self.fetched.lock().unwrap().iter().filter(|it| *it == key).count()
    }

    /// The uploads of one database.
    pub(crate) fn uploads(&self, name: &str) -> Vec<Instant> {
        let prefix = format!("{name}/");
        let uploads = self.uploads.lock().unwrap();
        uploads.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(_, at)| *at).collect()
    }

    /// The LTX files of one database, in the order in which they were uploaded.
    pub(crate) fn uploaded(&self, name: &str) -> Vec<FileName> {
        let prefix = format!("{name}/");
        let uploads = self.uploads.lock().unwrap();
        uploads.iter().filter_map(|(key, _)| key.strip_prefix(&prefix)?.parse().ok()).collect()
    }

    fn admit(&self, operation: &'static str, key: &str) -> Result<(), StorageError> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let name = key.split('/').next().unwrap_or_default().to_owned();
        *self.concerning.lock().unwrap().entry(name).or_default() += 1;
        if let Some(class) = *self.refusal.lock().unwrap() {
            return Err(self.error(operation, key, class));
        }
        if self.away.load(Ordering::SeqCst) {
            return Err(self.error(operation, key, ErrorClass::Transient));
        }
        Ok(())
    }

    fn error(&self, operation: &'static str, key: &str, class: ErrorClass) -> StorageError {
        StorageError::new(operation, self.url(), key, class, "injected fault")
    }
}

/// Counts an upload, until it goes on or is given up.
struct Holding<'a>(&'a AtomicUsize);

impl<'a> Holding<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn put(
        &self,
        key: &str,
        body: bytes::Bytes,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        self.admit("put", key)?;
        self.take_time().await;
        let refused = &self.refused_manifests;
        let refuse = |left: usize| left.checked_sub(1);
        if refused.fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuse).is_ok() {
            return Err(self.error("put", key, ErrorClass::Transient));
        }
        self.inner.put(key, body, metadata, condition).await
    }

    async fn put_file(
        &self,
        key: &str,
        path: &Path,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        self.admit("put", key)?;
        let is_snapshot = key.rsplit('/').next().is_some_and(|name| name.starts_with(FIRST));
        let (now, most) = &self.snapshots;
        let _snapshot = is_snapshot.then(|| Holding::new(now));
        most.fetch_max(now.load(Ordering::SeqCst), Ordering::SeqCst);
        self.while_held(key).await;
        self.take_time().await;
        // A file that was merged is not an upload of a database.
        let is_staged = path.extension().is_some_and(|extension| extension == "ltx");
        // Nothing would make up for a torn snapshot: no store has half of an upload.
        let fits = |fault: &Fault| !(is_snapshot && matches!(fault, Fault::Overtaken));
        let fault = is_staged.then(|| self.next_fault(fits)).flatten();
        match fault {
            Some(Fault::Refused(class)) => return Err(self.error("put", key, class)),
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Panic) => panic!("injected fault"),
            Some(Fault::LostReply | Fault::Overtaken) | None => {}
        }
        if let Some(Fault::Overtaken) = fault {
            let mut earlier = metadata.clone();
            earlier.insert("sha256".to_owned(), "of an earlier run".to_owned());
            let body = bytes::Bytes::from_static(b"torn");
            self.inner.put(key, body, &earlier, &Condition::IfAbsent).await?;
        }
        let receipt = self.inner.put_file(key, path, metadata, condition).await?;
        self.uploads.lock().unwrap().push((key.to_owned(), Instant::now()));
        match fault {
            Some(Fault::LostReply) => Err(self.error("put", key, ErrorClass::Transient)),
            _ => Ok(receipt),
        }
    }

    async fn get(&self, key: &str) -> Result<Object, StorageError> {
        self.admit("get", key)?;
        self.fetched.lock().unwrap().push(key.to_owned());
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<bytes::Bytes, StorageError> {
        self.admit("get", key)?;
        self.inner.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta, StorageError> {
        self.admit("head", key)?;
        self.inner.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.admit("list", prefix)?;
        self.inner.list(prefix, after).await
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<DeleteFailure>, StorageError> {
        self.admit("delete", "")?;
        self.inner.delete(keys).await
    }
}
