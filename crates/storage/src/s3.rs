//! An S3-compatible store.
//!
//! # Consistency
//! S3 shows an object only when its upload has ended, so a reader never sees a part of one. An
//! upload that broke off may still have taken effect: [`Condition::IfAbsent`] tells the next
//! attempt.
//!
//! # Dialects
//! Bodies carry no trailing checksums and are always signed (`client`, `upload`); batches of deletes
//! carry the MD5 that older stores demand, and become single deletes where batches are unknown
//! (`delete`).

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::DateTime;
use bytes::Bytes;
use tokio_util::task::TaskTracker;
use walrust_engine::ErrorClass;

use crate::{
    Condition, DeleteFailure, ListEntry, Metadata, Object, ObjectMeta, ObjectStore, PutReceipt,
    StorageError, StorageUrl,
};
use crate::{key, metadata};

mod classify;
mod client;
mod delete;
mod listing;
mod options;
mod payload;
mod read;
mod trust;
mod upload;

use classify::About;
pub use options::{ENDPOINT_VARIABLES, REGION_VARIABLES, S3Credentials, S3Options, check_endpoint};
pub use trust::{BundleError, trusted_certificates};

/// An S3-compatible store: a bucket, and a prefix in it.
#[derive(Clone, Debug)]
pub struct S3Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    bucket: String,
    /// Empty, or the start of all keys with a slash at its end.
    prefix: String,
    url: String,
    /// The server, if it is not AWS.
    endpoint: Option<Arc<str>>,
    conditional_writes: bool,
    multipart_threshold: u64,
    part_size: u64,
    part_concurrency: usize,
    /// The store has refused a batch of deletes for being one.
    deletes_singly: AtomicBool,
    /// Uploads in parts that have begun and neither ended nor been aborted.
    multiparts: TaskTracker,
}

impl S3Store {
    /// The store in a bucket, under a prefix that may be empty. Nothing is sent.
    ///
    /// # Errors
    /// Class `Permanent` if options or environment are wrong.
    pub async fn open(
        bucket: &str,
        prefix: &str,
        options: &S3Options,
    ) -> Result<Self, StorageError> {
        let prefix = prefix.trim_matches('/');
        let url =
            StorageUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() }.to_string();
        let (client, endpoint) = client::connect(options)
            .await
            .map_err(|reason| StorageError::permanent("open", url.clone(), "", reason))?;
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self {
            shared: Arc::new(Shared {
                client,
                bucket: bucket.to_owned(),
                prefix,
                url,
                endpoint: endpoint.map(Arc::from),
                conditional_writes: options.conditional_writes,
                multipart_threshold: options.multipart_threshold,
                part_size: options.part_size,
                part_concurrency: options.part_concurrency.max(1),
                deletes_singly: AtomicBool::new(false),
                multiparts: TaskTracker::new(),
            }),
        })
    }

    /// Makes the bucket; one that we have already is success.
    ///
    /// # Errors
    /// If the store refuses, for example because somebody else has a bucket of this name.
    pub async fn create_bucket(&self) -> Result<(), StorageError> {
        let about = self.shared.about("create", "");
        match self.shared.client.create_bucket().bucket(&self.shared.bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) => match error.as_service_error() {
                Some(refused) if refused.is_bucket_already_owned_by_you() => Ok(()),
                _ => Err(about.request(&error)),
            },
        }
    }

    /// The condition that is sent; where the store knows none, it is checked here and now.
    async fn sent_condition(
        &self,
        about: &About,
        condition: &Condition,
    ) -> Result<Condition, StorageError> {
        if self.shared.conditional_writes || *condition == Condition::None {
            return Ok(condition.clone());
        }
        let found = match self.head(&about.key).await {
            Ok(meta) => Some(meta.etag),
            Err(error) if error.class() == ErrorClass::NotFound => None,
            Err(error) => return Err(error),
        };
        let holds = match condition {
            Condition::IfMatch(etag) => found.as_ref() == Some(etag),
            _ => found.is_none(),
        };
        if holds {
            return Ok(Condition::None);
        }
        Err(about.error(ErrorClass::Precondition, "the condition of the request does not hold"))
    }
}

impl Shared {
    fn about(&self, operation: &'static str, key: &str) -> About {
        About {
            operation,
            url: self.url.clone(),
            key: key.to_owned(),
            endpoint: self.endpoint.clone(),
        }
    }

    fn checked(&self, operation: &'static str, key: &str) -> Result<About, StorageError> {
        key::check(operation, &self.url, key)?;
        Ok(self.about(operation, key))
    }

    /// The key in the bucket.
    fn object(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

fn system_time(time: Option<&DateTime>) -> Option<SystemTime> {
    time.and_then(|time| SystemTime::try_from(*time).ok())
}

#[async_trait]
impl ObjectStore for S3Store {
    fn url(&self) -> String {
        self.shared.url.clone()
    }

    async fn put(
        &self,
        key: &str,
        body: Bytes,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        let about = self.shared.checked("put", key)?;
        metadata::check(&self.shared.url, key, metadata)?;
        let condition = self.sent_condition(&about, condition).await?;
        self.shared.put_bytes(&about, body, metadata, &condition).await
    }

    async fn put_file(
        &self,
        key: &str,
        path: &Path,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        let about = self.shared.checked("put", key)?;
        metadata::check(&self.shared.url, key, metadata)?;
        let size = payload::size_of(path)
            .await
            .map_err(|error| payload::unreadable(&about, path, &error))?;
        let condition = self.sent_condition(&about, condition).await?;
        // An upload in parts has at least one, and an empty file has none.
        if size < self.shared.multipart_threshold || size == 0 {
            return self.shared.put_whole_file(&about, path, size, metadata, &condition).await;
        }
        // Gigabytes that exist already need not be sent to be refused.
        if condition == Condition::IfAbsent {
            match self.head(key).await {
                Ok(_) => {
                    return Err(about.error(ErrorClass::Precondition, "the object exists already"));
                }
                Err(error) if error.class() == ErrorClass::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.shared.put_parts(&about, path, size, metadata, &condition).await
    }

    async fn settle(&self) {
        self.shared.multiparts.close();
        self.shared.multiparts.wait().await;
    }

    async fn get(&self, key: &str) -> Result<Object, StorageError> {
        let about = self.shared.checked("get", key)?;
        self.shared.get(about).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        let about = self.shared.checked("get", key)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let parts = self.shared.get_range(&about, range, None).await?;
        Ok(match <[Bytes; 1]>::try_from(parts) {
            Ok([whole]) => whole,
            Err(parts) => parts.concat().into(),
        })
    }

    async fn get_part(
        &self,
        key: &str,
        range: Range<u64>,
        etag: &str,
    ) -> Result<Vec<Bytes>, StorageError> {
        let about = self.shared.checked("get", key)?;
        if range.is_empty() {
            return Ok(Vec::new());
        }
        self.shared.get_range(&about, range, Some(etag)).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta, StorageError> {
        let about = self.shared.checked("head", key)?;
        self.shared.head(&about).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        key::check_prefix(&self.shared.url, prefix)?;
        self.shared.list(prefix, after).await
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<DeleteFailure>, StorageError> {
        for key in keys {
            key::check("delete", &self.shared.url, key)?;
        }
        self.shared.delete(keys).await
    }
}
