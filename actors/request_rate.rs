//! How many requests a second the process may make, uploads and everything else together.
//!
//! The uploader asks before it starts an attempt and does not wait with a slot in its hands; everything
//! else goes through [`PacedStore`], which waits.

use std::num::NonZeroU32;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use walrust_storage::{
    Condition, DeleteFailure, ListEntry, Metadata, Object, ObjectMeta, ObjectStore, PutReceipt,
    StorageError,
};

/// The rate; clones are the same, and may be changed while it is used.
#[derive(Clone, Debug)]
pub(crate) struct RequestRate(Arc<ArcSwapOption<Limit>>);

#[derive(Debug)]
struct Limit {
    most: NonZeroU32,
    limiter: DefaultDirectRateLimiter,
}

impl RequestRate {
    /// So many requests a second; 0: no limit.
    pub(crate) fn new(per_second: u32) -> Self {
        let rate = Self(Arc::new(ArcSwapOption::empty()));
        rate.set(per_second);
        rate
    }

    /// From now on so many.
    pub(crate) fn set(&self, per_second: u32) {
        let limit = NonZeroU32::new(per_second).map(|most| {
            Arc::new(Limit { most, limiter: RateLimiter::direct(Quota::per_second(most)) })
        });
        self.0.store(limit);
    }

    /// The most that is ever allowed at once; `None`: no limit.
    pub(crate) fn most(&self) -> Option<NonZeroU32> {
        self.0.load().as_ref().map(|limit| limit.most)
    }

    /// Takes one request off, or tells how long to wait.
    pub(crate) fn check(&self) -> Result<(), Duration> {
        let Some(limit) = self.0.load_full() else { return Ok(()) };
        let now = DefaultClock::default().now();
        limit.limiter.check().map_err(|not_until| not_until.wait_time_from(now))
    }

    async fn ready(&self) {
        while let Err(wait) = self.check() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// A store whose requests wait until the rate allows them. What one call needs besides its first
/// request, the pages of a listing and the parts of a large file, is not counted.
#[derive(Debug)]
pub(crate) struct PacedStore {
    inner: Arc<dyn ObjectStore>,
    rate: RequestRate,
}

impl PacedStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, rate: RequestRate) -> Self {
        Self { inner, rate }
    }
}

#[async_trait]
impl ObjectStore for PacedStore {
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
        self.rate.ready().await;
        self.inner.put(key, body, metadata, condition).await
    }

    async fn put_file(
        &self,
        key: &str,
        path: &Path,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        self.rate.ready().await;
        self.inner.put_file(key, path, metadata, condition).await
    }

    async fn get(&self, key: &str) -> Result<Object, StorageError> {
        self.rate.ready().await;
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.rate.ready().await;
        self.inner.get_range(key, range).await
    }

    async fn get_part(
        &self,
        key: &str,
        range: Range<u64>,
        etag: &str,
    ) -> Result<Vec<Bytes>, StorageError> {
        self.rate.ready().await;
        self.inner.get_part(key, range, etag).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta, StorageError> {
        self.rate.ready().await;
        self.inner.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.rate.ready().await;
        self.inner.list(prefix, after).await
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<DeleteFailure>, StorageError> {
        self.rate.ready().await;
        self.inner.delete(keys).await
    }

    async fn settle(&self) {
        self.inner.settle().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use walrust_storage::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn requests_wait_for_the_rate_and_follow_its_changes() {
        let rate = RequestRate::new(20);
        let store = PacedStore::new(Arc::new(MemoryStore::default()), rate.clone());
        let began = Instant::now();
        for _ in 0..30 {
            store.list("", None).await.unwrap();
        }
        // The first twenty are a burst, the others come every 50 ms.
        assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
        rate.set(1);
        store.list("", None).await.unwrap();
        // Should a second have passed meanwhile, there is one more and no second one.
        let two = rate.check().and_then(|()| rate.check());
        assert!(two.is_err(), "the uploader has no more than the others leave");
        rate.set(0);
        for _ in 0..10_000 {
            store.list("", None).await.unwrap();
        }
    }
}
