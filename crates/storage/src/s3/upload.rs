//! Uploads: in one request, or in parts.
//!
//! Invariant: an upload in parts ends with the object complete or with its parts removed, also if
//! its future is dropped. The condition is checked by the store when it completes. Only a crash of
//! the process leaves parts behind; a lifecycle rule of the bucket (`AbortIncompleteMultipartUpload`)
//! is there for those.

use std::path::Path;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio_util::task::task_tracker::TaskTrackerToken;
use walrust_engine::ErrorClass;

use super::Shared;
use super::classify::About;
use super::client::sending;
use super::payload::{Payload, unreadable};
use crate::{Condition, Metadata, PutReceipt, StorageError};

/// S3 takes no more parts of one object.
const MOST_PARTS: u64 = 10_000;

/// A condition as headers.
struct Headers {
    if_none_match: Option<String>,
    if_match: Option<String>,
}

impl From<&Condition> for Headers {
    fn from(condition: &Condition) -> Self {
        let (if_none_match, if_match) = match condition {
            Condition::IfAbsent => (Some("*".to_owned()), None),
            Condition::IfMatch(etag) => (None, Some(etag.clone())),
            Condition::None => (None, None),
        };
        Self { if_none_match, if_match }
    }
}

impl Shared {
    pub(super) async fn put_bytes(
        &self,
        about: &About,
        body: Bytes,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        let size = body.len() as u64;
        let headers = Headers::from(condition);
        let answer = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.object(&about.key))
            .set_metadata(Some(metadata.clone().into_iter().collect()))
            .set_if_none_match(headers.if_none_match)
            .set_if_match(headers.if_match)
            .body(ByteStream::from(body))
            .customize()
            .config_override(sending(size))
            .send()
            .await
            .map_err(|error| refused(about.request(&error), about, condition))?;
        receipt(about, answer.e_tag)
    }

    pub(super) async fn put_whole_file(
        &self,
        about: &About,
        path: &Path,
        size: u64,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        let payload =
            Payload::of(path, 0, size).await.map_err(|error| unreadable(about, path, &error))?;
        let headers = Headers::from(condition);
        let answer = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.object(&about.key))
            .set_metadata(Some(metadata.clone().into_iter().collect()))
            .set_if_none_match(headers.if_none_match)
            .set_if_match(headers.if_match)
            .body(payload.body)
            .customize()
            .config_override(sending(size))
            .interceptor(payload.signed)
            .send()
            .await
            .map_err(|error| refused(about.request(&error), about, condition))?;
        receipt(about, answer.e_tag)
    }

    pub(super) async fn put_parts(
        &self,
        about: &About,
        path: &Path,
        size: u64,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        let upload = self.begin(about, metadata).await?;
        let result = self.send_parts(&upload, about, path, size, condition).await;
        match &result {
            Ok(_) => upload.keep(),
            // Awaited, so that an uploader that retries does not pile up uploads.
            Err(_) => upload.abort().await,
        }
        result
    }

    async fn begin(&self, about: &About, metadata: &Metadata) -> Result<Multipart, StorageError> {
        let key = self.object(&about.key);
        let answer = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(&key)
            .set_metadata(Some(metadata.clone().into_iter().collect()))
            .send()
            .await
            .map_err(|error| about.request(&error))?;
        let Some(id) = answer.upload_id else {
            return Err(about.error(ErrorClass::Permanent, "the store gave the upload no id"));
        };
        let (client, bucket) = (self.client.clone(), self.bucket.clone());
        let about = About { operation: "abort", ..about.clone() };
        let token = self.multiparts.token();
        Ok(Multipart(Some(Abort { client, bucket, key, id, about, _token: token })))
    }

    async fn send_parts(
        &self,
        upload: &Multipart,
        about: &About,
        path: &Path,
        size: u64,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        let part_size = part_size(size, self.part_size);
        let pieces = (0..size.div_ceil(part_size)).map(|index| {
            let offset = index * part_size;
            (index, offset, part_size.min(size - offset))
        });
        let mut parts: Vec<CompletedPart> = stream::iter(pieces)
            .map(|(index, offset, length)| {
                self.send_part(upload, about, path, index, offset..offset + length)
            })
            .buffer_unordered(self.part_concurrency)
            .try_collect()
            .await?;
        parts.sort_unstable_by_key(|part| part.part_number);
        let headers = Headers::from(condition);
        let answer = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(self.object(&about.key))
            .upload_id(upload.id())
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .set_if_none_match(headers.if_none_match)
            .set_if_match(headers.if_match)
            .customize()
            // S3 may take minutes to put a large object together.
            .config_override(sending(size / 16))
            .send()
            .await
            .map_err(|error| refused(about.request(&error), about, condition))?;
        receipt(about, answer.e_tag)
    }

    async fn send_part(
        &self,
        upload: &Multipart,
        about: &About,
        path: &Path,
        index: u64,
        piece: std::ops::Range<u64>,
    ) -> Result<CompletedPart, StorageError> {
        let length = piece.end - piece.start;
        let payload = Payload::of(path, piece.start, length)
            .await
            .map_err(|error| unreadable(about, path, &error))?;
        // Parts are counted from 1; there are 10,000 at most.
        let number =
            i32::try_from(index + 1).map_err(|error| about.error(ErrorClass::Permanent, error))?;
        let answer = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(self.object(&about.key))
            .upload_id(upload.id())
            .part_number(number)
            .body(payload.body)
            .customize()
            .config_override(sending(length))
            .interceptor(payload.signed)
            .send()
            .await
            .map_err(|error| about.request(&error))?;
        let part = CompletedPart::builder().part_number(number).set_e_tag(answer.e_tag);
        Ok(part.build())
    }
}

/// The size of parts that fit a file of this size, a multiple of 1 MiB if it must be raised.
fn part_size(size: u64, wanted: u64) -> u64 {
    const MIB: u64 = 1024 * 1024;
    let smallest = size.div_ceil(MOST_PARTS);
    if smallest <= wanted { wanted } else { smallest.next_multiple_of(MIB) }
}

/// Replacing an object that is gone is a condition that does not hold, not a search that failed.
fn refused(error: StorageError, about: &About, condition: &Condition) -> StorageError {
    let replaces = matches!(condition, Condition::IfMatch(_));
    if replaces && error.class() == ErrorClass::NotFound && !error.is_missing_bucket() {
        return about.error(ErrorClass::Precondition, "the object to replace is gone");
    }
    if *condition != Condition::None && error.code() == Some("NotImplemented") {
        return error.with_hint(
            "it may not know conditional writes: see conditional_writes in the configuration",
        );
    }
    error
}

fn receipt(about: &About, etag: Option<String>) -> Result<PutReceipt, StorageError> {
    match etag {
        Some(etag) => Ok(PutReceipt { etag }),
        None => Err(about.error(ErrorClass::Permanent, "the store gave the object no ETag")),
    }
}

/// An upload in parts that has begun; aborts it unless it is kept.
struct Multipart(Option<Abort>);

/// What names an upload in parts.
struct Abort {
    client: Client,
    bucket: String,
    key: String,
    id: String,
    about: About,
    /// Counts the upload until it has ended.
    _token: TaskTrackerToken,
}

impl Multipart {
    fn id(&self) -> &str {
        self.0.as_ref().map_or("", |abort| abort.id.as_str())
    }

    fn keep(mut self) {
        self.0 = None;
    }

    async fn abort(mut self) {
        if let Some(abort) = self.0.take() {
            abort.run().await;
        }
    }
}

impl Drop for Multipart {
    fn drop(&mut self) {
        let Some(abort) = self.0.take() else { return };
        // Outside of a runtime the process ends; then this is a crash. Whoever ends the runtime waits
        // with `ObjectStore::settle`.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(abort.run());
        }
    }
}

impl Abort {
    async fn run(self) {
        let Self { client, bucket, key, id, about, _token } = self;
        let request = client.abort_multipart_upload().bucket(bucket).key(key).upload_id(id);
        if let Err(error) = request.send().await {
            let error = about.request(&error);
            // An upload that completed although its answer was lost is not there any more.
            if error.class() != ErrorClass::NotFound && error.code() != Some("NoSuchUpload") {
                tracing::warn!(%error, "parts of an upload stay in the bucket");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::part_size;

    #[test]
    fn every_file_fits_into_ten_thousand_parts() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(part_size(100 * MIB, 16 * MIB), 16 * MIB);
        assert_eq!(part_size(160_000 * MIB, 16 * MIB), 16 * MIB);
        assert_eq!(part_size(160_000 * MIB + 1, 16 * MIB), 17 * MIB);
        let huge = 5 * 1024 * 1024 * MIB;
        assert!(huge.div_ceil(part_size(huge, 16 * MIB)) <= 10_000);
    }
}
