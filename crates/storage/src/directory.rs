//! A directory as a store: every object is a file.
//!
//! # Consistency
//! An object is written to a hidden temporary file beside its place, with its metadata, and gets
//! its name in one step: a rename that refuses to replace for [`Condition::IfAbsent`], else a
//! rename under the lock `.walrust-lock`, so that comparing the ETag and replacing the file are one
//! step for all processes that use the directory.
//!
//! # Crash consistency
//! File, directory, and directories that were made on the way are synced before an upload is
//! reported. A crash leaves at most a hidden temporary file, which no listing shows; listings
//! remove those that nobody has written for a day.
//!
//! # Metadata
//! It is kept in the extended attribute `user.walrust.metadata`. On a file system without such
//! attributes it is silently absent; files can then be checked through the manifest only.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::object_store::another_object;
use crate::{
    Condition, DeleteFailure, ListEntry, Metadata, Object, ObjectMeta, ObjectStore, PutReceipt,
    StorageError,
};
use crate::{key, metadata};

mod attributes;
mod lock;
mod tree;
mod upload;

use attributes::Attributes;

/// Files are copied and read in steps of this many bytes.
const STEP: usize = 64 * 1024;

/// A directory as a store.
#[derive(Debug)]
pub struct DirectoryStore {
    root: Arc<Path>,
}

/// Where a blocking job works, and what its errors are about.
#[derive(Clone, Debug)]
struct Place {
    root: Arc<Path>,
    operation: &'static str,
    key: String,
}

impl DirectoryStore {
    /// The store in a directory, which the first upload makes if it is not there.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into().into() }
    }

    fn place(&self, operation: &'static str, key: &str) -> Result<Place, StorageError> {
        key::check(operation, &self.url(), key)?;
        Ok(Place { root: self.root.clone(), operation, key: key.to_owned() })
    }
}

impl Place {
    fn path(&self) -> PathBuf {
        self.root.join(&self.key)
    }

    fn url(&self) -> String {
        format!("file://{}", self.root.display())
    }

    fn error(&self, error: io::Error) -> StorageError {
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        let error = StorageError::from_io(self.operation, self.url(), &self.key, error);
        match is_missing && !self.root.is_dir() {
            true => error.with_missing_bucket().with_hint("the directory itself is missing"),
            false => error,
        }
    }

    fn open(&self) -> Result<(File, ObjectMeta), StorageError> {
        let file = File::open(self.path()).map_err(|error| match error.kind() {
            // A part of the key is the name of another object: there is nothing below that.
            io::ErrorKind::NotADirectory => self.error(io::ErrorKind::NotFound.into()),
            _ => self.error(error),
        })?;
        let meta = self.describe(&file).map_err(|error| self.error(error))?;
        Ok((file, meta))
    }

    fn describe(&self, file: &File) -> io::Result<ObjectMeta> {
        let found = file.metadata()?;
        if !found.is_file() {
            // A directory is there because of the objects below it; none has its name.
            return Err(io::ErrorKind::NotFound.into());
        }
        let attributes = Attributes::of(file)?;
        Ok(ObjectMeta {
            key: self.key.clone(),
            size: found.len(),
            etag: attributes.etag(&found),
            modified: found.modified().ok(),
            metadata: attributes.metadata,
        })
    }

    /// Reads a range; with an ETag, of that object only.
    fn read_range(&self, range: &Range<u64>, etag: Option<&str>) -> Result<Bytes, StorageError> {
        use std::os::unix::fs::FileExt;

        let (file, meta) = self.open()?;
        if etag.is_some_and(|etag| etag != meta.etag) {
            return Err(another_object(&self.url(), &self.key));
        }
        if range.end > meta.size {
            let reason = crate::object::past_the_end(range, meta.size);
            return Err(StorageError::permanent(self.operation, self.url(), &self.key, reason));
        }
        let length = usize::try_from(range.end - range.start)
            .map_err(|_| self.error(io::ErrorKind::FileTooLarge.into()))?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, range.start).map_err(|error| self.error(error))?;
        Ok(bytes.into())
    }
}

/// Runs a blocking job. Jobs do not panic, and are not cancelled while the runtime is up.
async fn blocking<T: Send + 'static>(
    place: Place,
    job: impl FnOnce(&Place) -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let about = place.clone();
    match spawn_blocking(move || job(&place)).await {
        Ok(result) => result,
        Err(error) => Err(about.error(io::Error::other(error))),
    }
}

#[async_trait]
impl ObjectStore for DirectoryStore {
    fn url(&self) -> String {
        format!("file://{}", self.root.display())
    }

    async fn put(
        &self,
        key: &str,
        body: Bytes,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        metadata::check(&self.url(), key, metadata)?;
        let (metadata, condition) = (metadata.clone(), condition.clone());
        let place = self.place("put", key)?;
        blocking(place, move |place| upload::put(place, &mut body.as_ref(), metadata, &condition))
            .await
    }

    async fn put_file(
        &self,
        key: &str,
        path: &Path,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        metadata::check(&self.url(), key, metadata)?;
        let (metadata, condition) = (metadata.clone(), condition.clone());
        let source = path.to_owned();
        let place = self.place("put", key)?;
        blocking(place, move |place| {
            let unreadable = |error: io::Error| {
                let reason = format!("cannot read {}: {error}", source.display());
                StorageError::permanent("put", place.url(), &place.key, reason)
            };
            let mut file = File::open(&source).map_err(unreadable)?;
            // Opening a directory works, reading it does not: find out before anything is made.
            file.read(&mut []).map_err(unreadable)?;
            upload::put(place, &mut file, metadata, &condition)
        })
        .await
    }

    async fn get(&self, key: &str) -> Result<Object, StorageError> {
        let place = self.place("get", key)?;
        let about = place.clone();
        let (file, meta) = blocking(place, Place::open).await?;
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(STEP);
        Ok(Object::new(meta, file, move |error| about.error(error)))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        let place = self.place("get", key)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        blocking(place, move |place| place.read_range(&range, None)).await
    }

    async fn get_part(
        &self,
        key: &str,
        range: Range<u64>,
        etag: &str,
    ) -> Result<Vec<Bytes>, StorageError> {
        let (place, etag) = (self.place("get", key)?, etag.to_owned());
        if range.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![blocking(place, move |place| place.read_range(&range, Some(&etag))).await?])
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta, StorageError> {
        let place = self.place("head", key)?;
        Ok(blocking(place, Place::open).await?.1)
    }

    /// A directory that does not exist yet has no objects.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        key::check_prefix(&self.url(), prefix)?;
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        let place = Place { root: self.root.clone(), operation: "list", key: prefix };
        blocking(place, move |place| tree::list(place, after.as_deref())).await
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<DeleteFailure>, StorageError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let places =
            keys.iter().map(|key| self.place("delete", key)).collect::<Result<Vec<_>, _>>()?;
        let whole = Place { root: self.root.clone(), operation: "delete", key: String::new() };
        blocking(whole, move |whole| tree::delete(whole, places)).await
    }
}
