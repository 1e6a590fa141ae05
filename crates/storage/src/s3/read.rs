//! Reading: GET, ranged GET, HEAD.
//!
//! Invariant: what is returned is all that was asked for. A body that ends early is an error of
//! class `Transient`, an object that is too short for a range one of class `Permanent`. Parts of one
//! object are never mixed with those of another: an answer without an ETag is an error as well.

use std::io;
use std::ops::Range;

use aws_sdk_s3::primitives::DateTime;
use bytes::Bytes;
use walrust_engine::ErrorClass;

use super::classify::{About, innermost};
use super::{Shared, system_time};
use crate::object_store::another_object;
use crate::{Metadata, Object, ObjectMeta, StorageError};

impl Shared {
    pub(super) async fn get(&self, about: About) -> Result<Object, StorageError> {
        let answer = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.object(&about.key))
            .send()
            .await
            .map_err(|error| about.request(&error))?;
        let meta = describe(
            &about,
            answer.content_length,
            answer.e_tag,
            answer.metadata,
            answer.last_modified.as_ref(),
        )?;
        let body = answer.body.into_async_read();
        Ok(Object::new(meta, body, move |error| broken_off(&about, &error)))
    }

    /// The bytes of a range, in the parts in which they arrived.
    pub(super) async fn get_range(
        &self,
        about: &About,
        range: Range<u64>,
        etag: Option<&str>,
    ) -> Result<Vec<Bytes>, StorageError> {
        // The last byte is included in HTTP.
        let header = format!("bytes={}-{}", range.start, range.end - 1);
        let answer = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.object(&about.key))
            .range(header)
            .set_if_match(etag.map(str::to_owned))
            .send()
            .await
            .map_err(|error| about.request(&error))?;
        // A store that does not know the condition answers with whatever is there now.
        match (etag, answer.e_tag.as_deref()) {
            (Some(_), None | Some("")) => return Err(without_etag(about)),
            (Some(wanted), Some(found)) if found != wanted => {
                return Err(another_object(&about.url, &about.key));
            }
            _ => {}
        }
        let wanted = range.end - range.start;
        let length = answer.content_length.and_then(|length| u64::try_from(length).ok());
        let total = answer.content_range.as_deref().and_then(total_of);
        match (answer.content_range.as_deref().and_then(start_of), total) {
            (Some(start), _) if start == range.start && length == Some(wanted) => {}
            (Some(_), Some(total)) if total < range.end => {
                let reason = crate::object::past_the_end(&range, total);
                return Err(about.error(ErrorClass::Permanent, reason));
            }
            // Some stores answer a range that is the whole object as if none had been wanted.
            (None, _) if range.start == 0 && length == Some(wanted) => {}
            _ => {
                let reason = "the store answered with a different range than requested";
                return Err(about.error(ErrorClass::Permanent, reason));
            }
        }
        let (mut body, mut parts, mut missing) = (answer.body, Vec::new(), wanted);
        while let Some(part) = body.next().await {
            let part = part.map_err(|error| broken_off(about, &io::Error::other(error)))?;
            let rest = missing.checked_sub(part.len() as u64);
            missing = rest.ok_or_else(|| {
                about
                    .error(ErrorClass::Permanent, "the store answered with more than was requested")
            })?;
            parts.push(part);
        }
        if missing > 0 {
            return Err(about.error(ErrorClass::Transient, "the body broke off"));
        }
        Ok(parts)
    }

    pub(super) async fn head(&self, about: &About) -> Result<ObjectMeta, StorageError> {
        let answer = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(self.object(&about.key))
            .send()
            .await
            .map_err(|error| about.request(&error))?;
        describe(
            about,
            answer.content_length,
            answer.e_tag,
            answer.metadata,
            answer.last_modified.as_ref(),
        )
    }
}

fn describe(
    about: &About,
    size: Option<i64>,
    etag: Option<String>,
    metadata: Option<std::collections::HashMap<String, String>>,
    modified: Option<&DateTime>,
) -> Result<ObjectMeta, StorageError> {
    let size = size.and_then(|size| u64::try_from(size).ok()).ok_or_else(|| {
        about.error(ErrorClass::Permanent, "the store does not say how long the object is")
    })?;
    // Names of headers have no case; some stores send them as `X-Amz-Meta-Sha256`.
    let metadata: Metadata = metadata
        .unwrap_or_default()
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    let etag = etag.filter(|etag| !etag.is_empty()).ok_or_else(|| without_etag(about))?;
    Ok(ObjectMeta { key: about.key.clone(), size, etag, metadata, modified: system_time(modified) })
}

/// Without one no later request could say that it means the same object.
fn without_etag(about: &About) -> StorageError {
    about.error(ErrorClass::Permanent, "the store does not say which object it is: no ETag")
}

/// Whatever ends a body early, the next attempt may get it whole.
fn broken_off(about: &About, error: &io::Error) -> StorageError {
    let why = innermost(error);
    about.error(ErrorClass::Transient, format!("the body broke off: {why}"))
}

/// First byte in `bytes 0-9/100`.
fn start_of(content_range: &str) -> Option<u64> {
    content_range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// Size of the object in `bytes 0-9/100`.
fn total_of(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.parse().ok()
}
