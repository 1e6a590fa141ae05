//! A store that is reached through something that a test has put in the way.

use std::fmt::Debug;
use std::ops::Range;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use walrust_storage::{
    Condition, DeleteFailure, ListEntry, Metadata, Object, ObjectMeta, ObjectStore, PutReceipt,
    StorageError,
};

use crate::crashing_store::CrashingStore;

/// What is in the way.
#[async_trait]
pub(crate) trait Way: Debug + Send + Sync + 'static {
    /// The store that it leads to at the moment.
    fn store(&self) -> &CrashingStore;

    /// Comes before each request.
    async fn before(&self) {}

    /// Comes after each listing.
    fn listed(&self) {}
}

/// The store at the end of a way.
#[derive(Debug)]
pub(crate) struct Through<W>(pub(crate) W);

#[async_trait]
impl<W: Way> ObjectStore for Through<W> {
    fn url(&self) -> String {
        self.0.store().url()
    }

    async fn put(
        &self,
        key: &str,
        body: Bytes,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        self.0.before().await;
        self.0.store().put(key, body, metadata, condition).await
    }

    async fn put_file(
        &self,
        key: &str,
        path: &Path,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        self.0.before().await;
        self.0.store().put_file(key, path, metadata, condition).await
    }

    async fn get(&self, key: &str) -> Result<Object, StorageError> {
        self.0.before().await;
        self.0.store().get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.0.before().await;
        self.0.store().get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta, StorageError> {
        self.0.before().await;
        self.0.store().head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.0.before().await;
        let listed = self.0.store().list(prefix, after).await;
        self.0.listed();
        listed
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<DeleteFailure>, StorageError> {
        self.0.before().await;
        self.0.store().delete(keys).await
    }
}
