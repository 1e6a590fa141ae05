//! A restore whose large file is replaced while it is fetched piece by piece.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Builder;
use walrust_engine::{ErrorClass, RestoreTarget};
use walrust_history::{HistoryError, PlannedRestore, RestoreOptions};
use walrust_ltx::{Checksum, Encoder, Header, PageSize};
use walrust_storage::{
    Condition, DeleteFailure, ListEntry, MemoryStore, Metadata, Object, ObjectMeta, ObjectStore,
    PutReceipt, StorageError,
};

use crate::scene::{NAME, key, txid};

/// A store in which an object is replaced as soon as a part of it was read.
#[derive(Debug)]
struct Replacing {
    inner: MemoryStore,
    key: String,
    other: Bytes,
    armed: AtomicBool,
}

#[async_trait]
impl ObjectStore for Replacing {
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
        self.inner.put(key, body, metadata, condition).await
    }

    async fn put_file(
        &self,
        key: &str,
        path: &Path,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        self.inner.put_file(key, path, metadata, condition).await
    }

    async fn get(&self, key: &str) -> Result<Object, StorageError> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        let bytes = self.inner.get_range(key, range).await?;
        if key == self.key && self.armed.swap(false, Ordering::SeqCst) {
            let (other, none) = (self.other.clone(), Metadata::new());
            self.inner.put(key, other, &none, &Condition::None).await?;
        }
        Ok(bytes)
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta, StorageError> {
        self.inner.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.inner.list(prefix, after).await
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<DeleteFailure>, StorageError> {
        self.inner.delete(keys).await
    }
}

/// A snapshot of some mebibytes that do not compress.
fn snapshot(seed: u64) -> Bytes {
    const PAGES: u32 = 1000;
    let page_size = PageSize::try_from(4096).unwrap();
    let header = Header { tracking: true, ..Header::new(page_size, PAGES, txid(1), txid(1)) };
    let mut encoder = Encoder::new(Vec::new(), header).unwrap();
    let (mut random, mut rolling) = (fastrand::Rng::with_seed(seed), Checksum::EMPTY);
    for pgno in 1..=PAGES {
        let page: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(4096).collect();
        rolling = rolling.toggle(Checksum::of_page(pgno, &page));
        encoder.page(pgno, &page).unwrap();
    }
    encoder.finish(Some(rolling)).unwrap().0.into()
}

#[test]
fn c16_pieces_of_two_objects_are_never_put_together() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (first, other) = (snapshot(1), snapshot(2));
        assert_eq!(first.len(), other.len(), "nothing but the ETag tells them apart");
        let (key, armed) = (key(1, 1), AtomicBool::new(false));
        let store = Replacing { inner: MemoryStore::new(), key: key.clone(), other, armed };
        store.put(&key, first, &Metadata::new(), &Condition::None).await.unwrap();
        let store = Arc::new(store);
        let planned =
            PlannedRestore::plan(store.as_ref(), NAME, RestoreTarget::Latest).await.unwrap();
        store.armed.store(true, Ordering::SeqCst);
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("out.db");
        let options = RestoreOptions::default();
        let shared = Arc::clone(&store) as Arc<dyn ObjectStore>;
        let error = planned.execute(shared, &output, options, |_| {}).await.unwrap_err();
        assert!(!store.armed.load(Ordering::SeqCst), "it was fetched in pieces");
        let HistoryError::Storage(error) = error else { panic!("{error}") };
        assert_eq!(error.class(), ErrorClass::Precondition, "{error}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    });
}
