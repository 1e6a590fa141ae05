//! The trait that every store implements, and the plain types of its requests and answers.
//!
//! Invariant: an object is there whole or not at all. A reader never sees a part of one, and an
//! upload that ends in an error, a crash included, leaves at most what a later upload of the same
//! key may ignore.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use walrust_engine::ErrorClass;

use crate::{Metadata, Object, StorageError};

/// What must hold in the store for an upload to take effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key has no object.
    IfAbsent,
    /// The key has the object with this ETag.
    IfMatch(String),
    /// Anything: an object under the key is replaced.
    None,
}

/// The store has the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutReceipt {
    /// Identifies this content under this key; opaque, to be used with [`Condition::IfMatch`].
    pub etag: String,
}

/// What a store knows about an object besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The key, relative to the URL of the store.
    pub key: String,
    /// Bytes of the object.
    pub size: u64,
    /// Identifies this content under this key; opaque.
    pub etag: String,
    /// User metadata.
    pub metadata: Metadata,
    /// When the object was stored, by the clock of the store.
    pub modified: Option<SystemTime>,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// The key, relative to the URL of the store.
    pub key: String,
    /// Bytes of the object.
    pub size: u64,
    /// Identifies this content under this key; opaque.
    pub etag: String,
    /// When the object was stored, by the clock of the store.
    pub modified: Option<SystemTime>,
}

/// An object that a batch could not delete.
#[derive(Debug)]
pub struct DeleteFailure {
    /// The key, relative to the URL of the store.
    pub key: String,
    /// Why it may still be there.
    pub error: StorageError,
}

/// A place for objects: a bucket with a prefix, a directory, or memory.
///
/// Keys are relative to the URL of the store, separated by `/`, without empty segments, `.` and
/// `..`; other keys are refused before anything is sent. Nothing is retried here: the caller has
/// the policy, and [`StorageError::class`] tells it what to do. Every call may be cancelled by
/// dropping its future; an upload that was cancelled may or may not have taken effect.
#[async_trait]
pub trait ObjectStore: fmt::Debug + Send + Sync + 'static {
    /// The place, for messages: `s3://bucket/prefix` or `file:///directory`, never a secret.
    fn url(&self) -> String;

    /// Stores an object from memory.
    ///
    /// # Errors
    /// Class `Precondition` if the condition does not hold; that includes
    /// [`Condition::IfMatch`] on a key without an object.
    async fn put(
        &self,
        key: &str,
        body: Bytes,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError>;

    /// Stores an object from a file, which is streamed and must not change meanwhile.
    ///
    /// # Errors
    /// As [`put`](Self::put); class `Permanent` if the file cannot be read.
    async fn put_file(
        &self,
        key: &str,
        path: &Path,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError>;

    /// Opens an object for reading.
    ///
    /// # Errors
    /// Class `NotFound` if there is none. A body that breaks off gives an error when it is read,
    /// never fewer bytes.
    async fn get(&self, key: &str) -> Result<Object, StorageError>;

    /// Reads exactly the bytes of a range; nothing is sent for an empty one.
    ///
    /// # Errors
    /// Class `NotFound` if there is no object, class `Permanent` if it ends before the range does.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError>;

    /// Reads exactly the bytes of a range of the object that has this ETag, so that the ranges of
    /// several requests are of one object. They come as they arrived, in order and uncopied.
    ///
    /// # Errors
    /// As [`get_range`](Self::get_range); class `Precondition` if the key has another object.
    async fn get_part(
        &self,
        key: &str,
        range: Range<u64>,
        etag: &str,
    ) -> Result<Vec<Bytes>, StorageError> {
        // For stores that cannot ask both at once.
        if self.head(key).await?.etag != etag {
            return Err(another_object(&self.url(), key));
        }
        Ok(vec![self.get_range(key, range).await?])
    }

    /// Describes an object.
    ///
    /// # Errors
    /// Class `NotFound` if there is none.
    async fn head(&self, key: &str) -> Result<ObjectMeta, StorageError>;

    /// Lists the objects whose keys start with `prefix` and are greater than `after`, in ascending
    /// order of their keys as bytes. The prefix may end anywhere: `a` finds `a/1` and `ab/1`.
    ///
    /// # Errors
    /// If any page of the listing fails: a listing is whole or an error.
    async fn list(&self, prefix: &str, after: Option<&str>)
    -> Result<Vec<ListEntry>, StorageError>;

    /// Deletes objects; deleting what is not there is success. Returns those that may still be
    /// there.
    ///
    /// # Errors
    /// If a whole request fails; objects of earlier requests may be gone then.
    async fn delete(&self, keys: &[String]) -> Result<Vec<DeleteFailure>, StorageError>;

    /// Waits until nothing is left of uploads that were cancelled. To be called, for a bounded time,
    /// before the end of the runtime.
    async fn settle(&self) {}
}

/// The object under a key is not the one that was meant.
pub(crate) fn another_object(url: &str, key: &str) -> StorageError {
    let reason = "the object has changed while it was read";
    StorageError::new("get", url.to_owned(), key, ErrorClass::Precondition, reason)
}
