//! Deleting in batches.
//!
//! Invariant: a key whose fate is unknown is reported. A batch that succeeds may still have failed
//! for some of its keys.
//!
//! The SDK protects the list of keys with a CRC, which older stores do not know: they demand the
//! MD5 that S3 began with, and S3 still takes it. Stores that know no batches at all get single
//! requests.

use std::sync::atomic::Ordering;

use aws_sdk_s3::config::http::HttpRequest;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use futures_util::stream::{self, StreamExt};
use md5::{Digest, Md5};
use walrust_engine::ErrorClass;

use super::Shared;
use crate::{DeleteFailure, StorageError};

/// S3 takes no more keys in one request.
const BATCH: usize = 1000;
/// Single requests at the same time.
const SINGLES: usize = 8;

impl Shared {
    pub(super) async fn delete(&self, keys: &[String]) -> Result<Vec<DeleteFailure>, StorageError> {
        let mut failures = Vec::new();
        for batch in keys.chunks(BATCH) {
            if self.deletes_singly.load(Ordering::Relaxed) {
                failures.extend(self.delete_singly(batch).await);
                continue;
            }
            match self.delete_batch(batch).await {
                Ok(failed) => failures.extend(failed),
                Err(error) if knows_no_batches(&error) => {
                    tracing::info!(%error, "the store takes no batches, deleting one by one");
                    let failed = self.delete_singly(batch).await;
                    // If these fail too, the batch was not what the store disliked.
                    self.deletes_singly.store(failed.is_empty(), Ordering::Relaxed);
                    failures.extend(failed);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(failures)
    }

    async fn delete_batch(&self, keys: &[String]) -> Result<Vec<DeleteFailure>, StorageError> {
        let about = self.about("delete", "");
        let unbuildable = |error| about.error(ErrorClass::Permanent, error);
        let mut delete = Delete::builder().quiet(true);
        for key in keys {
            let object = ObjectIdentifier::builder().key(self.object(key)).build();
            delete = delete.objects(object.map_err(unbuildable)?);
        }
        let answer = self
            .client
            .delete_objects()
            .bucket(&self.bucket)
            .delete(delete.build().map_err(unbuildable)?)
            .customize()
            .mutate_request(protect_with_md5)
            .send()
            .await
            .map_err(|error| about.request(&error))?;
        let failed = answer.errors.unwrap_or_default().into_iter().map(|failed| {
            let key = failed.key.as_deref().unwrap_or_default();
            let key = key.strip_prefix(&self.prefix).unwrap_or(key);
            let about = self.about("delete", key);
            let error = about.in_batch(failed.code.as_deref(), failed.message.as_deref());
            DeleteFailure { key: key.to_owned(), error }
        });
        Ok(failed.filter(|failure| !is_gone(&failure.error)).collect())
    }

    async fn delete_singly(&self, keys: &[String]) -> Vec<DeleteFailure> {
        let requests = stream::iter(keys.to_vec()).map(|key| async move {
            let request = self.client.delete_object().bucket(&self.bucket).key(self.object(&key));
            let error = self.about("delete", &key).request(&request.send().await.err()?);
            (!is_gone(&error)).then_some(DeleteFailure { key, error })
        });
        requests.buffer_unordered(SINGLES).filter_map(std::future::ready).collect().await
    }
}

/// What is not there needs no deleting; a bucket that is not there is another matter.
fn is_gone(error: &StorageError) -> bool {
    error.class() == ErrorClass::NotFound && !error.is_missing_bucket()
}

fn knows_no_batches(error: &StorageError) -> bool {
    let codes = ["MalformedXML", "MethodNotAllowed", "MissingContentMD5", "NotImplemented"];
    matches!(error.status(), Some(405 | 501))
        || error.code().is_some_and(|code| codes.contains(&code))
}

/// Runs before the request is signed.
fn protect_with_md5(request: &mut HttpRequest) {
    let Some(md5) = request.body().bytes().map(Md5::digest) else { return };
    let headers = request.headers_mut();
    let crc: Vec<String> = headers
        .iter()
        .map(|(name, _)| name.to_owned())
        .filter(|name| {
            name.starts_with("x-amz-checksum-") || name == "x-amz-sdk-checksum-algorithm"
        })
        .collect();
    for name in crc {
        headers.remove(name);
    }
    headers.insert("content-md5", aws_smithy_types::base64::encode(md5));
}
