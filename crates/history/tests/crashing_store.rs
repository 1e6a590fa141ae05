//! A store in memory whose user dies after some changes, and that counts what it is asked.

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use walrust_engine::ErrorClass;
use walrust_storage::{
    Condition, DeleteFailure, ListEntry, MemoryStore, Metadata, Object, ObjectMeta, ObjectStore,
    PutReceipt, StorageError,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct CrashingStore {
    inner: MemoryStore,
    /// Changes that are still made; each object of a batch is one. Then everything fails.
    changes_left: AtomicUsize,
    requests: AtomicUsize,
    /// Keys of the objects that were fetched.
    fetched: Mutex<Vec<String>>,
}

impl CrashingStore {
    pub(crate) fn new() -> Self {
        let (changes_left, requests) = (AtomicUsize::new(usize::MAX), AtomicUsize::new(0));
        Self { inner: MemoryStore::new(), changes_left, requests, fetched: Mutex::default() }
    }

    /// The same objects in a store that works.
    pub(crate) async fn copied(&self) -> Self {
        let copy = Self::new();
        for entry in self.inner.list("", None).await.unwrap() {
            let object = self.inner.get(&entry.key).await.unwrap();
            let metadata = object.meta.metadata.clone();
            let body = object.bytes().await.unwrap();
            copy.inner.put(&entry.key, body, &metadata, &Condition::None).await.unwrap();
        }
        copy
    }

    /// The user dies after so many changes.
    pub(crate) fn crash_after(&self, changes: usize) {
        self.changes_left.store(changes, Ordering::SeqCst);
    }

    /// A new user comes.
    pub(crate) fn recover(&self) {
        self.crash_after(usize::MAX);
    }

    /// Whether the user has died.
    pub(crate) fn has_crashed(&self) -> bool {
        self.changes_left.load(Ordering::SeqCst) == 0
    }

    /// Requests since the last call.
    pub(crate) fn take_requests(&self) -> usize {
        self.requests.swap(0, Ordering::SeqCst)
    }

    /// Keys of the objects that were fetched since the last call.
    pub(crate) fn take_fetched(&self) -> Vec<String> {
        std::mem::take(&mut self.fetched.lock().unwrap())
    }

    fn read(&self, operation: &'static str, key: &str) -> Result<(), StorageError> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        if self.has_crashed() { Err(self.dead(operation, key)) } else { Ok(()) }
    }

    fn change(&self, operation: &'static str, key: &str) -> Result<(), StorageError> {
        let left = self.changes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            if left == usize::MAX { Some(left) } else { left.checked_sub(1) }
        });
        left.map(|_| ()).map_err(|_| self.dead(operation, key))
    }

    fn dead(&self, operation: &'static str, key: &str) -> StorageError {
        StorageError::new(operation, self.url(), key, ErrorClass::Permanent, "the process died")
    }
}

#[async_trait]
impl ObjectStore for CrashingStore {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn put(
        &self,
        key: &str,
        body: Bytes,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        self.read("put", key)?;
        self.change("put", key)?;
        self.inner.put(key, body, metadata, condition).await
    }

    async fn put_file(
        &self,
        key: &str,
        path: &Path,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        self.read("put", key)?;
        self.change("put", key)?;
        self.inner.put_file(key, path, metadata, condition).await
    }

    async fn get(&self, key: &str) -> Result<Object, StorageError> {
        self.read("get", key)?;
        self.fetched.lock().unwrap().push(key.to_owned());
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.read("get", key)?;
        self.inner.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta, StorageError> {
        self.read("head", key)?;
        self.inner.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.read("list", prefix)?;
        self.inner.list(prefix, after).await
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<DeleteFailure>, StorageError> {
        self.read("delete", "")?;
        for key in keys {
            self.change("delete", key)?;
            self.inner.delete(std::slice::from_ref(key)).await?;
        }
        Ok(Vec::new())
    }
}
