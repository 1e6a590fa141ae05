//! A store in memory, for tests and for wrappers that inject faults.
//!
//! Invariant: one lock is held over each check and change, so conditions hold as in a real store.
//! A crash loses everything.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use walrust_engine::ErrorClass;

use crate::{
    Condition, DeleteFailure, ListEntry, Metadata, Object, ObjectMeta, ObjectStore, PutReceipt,
    StorageError,
};
use crate::{key, metadata};

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Stored>,
    /// Number of uploads so far; makes every ETag new.
    version: u64,
}

#[derive(Clone, Debug)]
struct Stored {
    body: Bytes,
    metadata: Metadata,
    etag: String,
    modified: SystemTime,
}

const URL: &str = "memory://";

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No change is made in several steps: what a panicking test left is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, operation: &'static str, key: &str) -> Result<Stored, StorageError> {
        key::check(operation, URL, key)?;
        self.state().objects.get(key).cloned().ok_or_else(|| {
            let reason = "there is no such object";
            StorageError::new(operation, URL.to_owned(), key, ErrorClass::NotFound, reason)
        })
    }
}

impl Stored {
    fn meta(&self, key: &str) -> ObjectMeta {
        ObjectMeta {
            key: key.to_owned(),
            size: self.body.len() as u64,
            etag: self.etag.clone(),
            metadata: self.metadata.clone(),
            modified: Some(self.modified),
        }
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    fn url(&self) -> String {
        URL.to_owned()
    }

    async fn put(
        &self,
        key: &str,
        body: Bytes,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        key::check("put", URL, key)?;
        metadata::check(URL, key, metadata)?;
        let mut state = self.state();
        let current = state.objects.get(key).map(|stored| stored.etag.as_str());
        let refused = match (condition, current) {
            (Condition::IfAbsent, Some(_)) => Some("the object exists already"),
            (Condition::IfMatch(_), None) => Some("the object to replace is gone"),
            (Condition::IfMatch(wanted), Some(etag)) if wanted != etag => {
                Some("the object has changed")
            }
            _ => None,
        };
        if let Some(reason) = refused {
            let class = ErrorClass::Precondition;
            return Err(StorageError::new("put", URL.to_owned(), key, class, reason));
        }
        state.version += 1;
        let etag = format!("\"{}\"", state.version);
        let (metadata, modified) = (metadata.clone(), SystemTime::now());
        let stored = Stored { body, metadata, etag: etag.clone(), modified };
        state.objects.insert(key.to_owned(), stored);
        Ok(PutReceipt { etag })
    }

    async fn put_file(
        &self,
        key: &str,
        path: &Path,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        key::check("put", URL, key)?;
        let body = tokio::fs::read(path).await.map_err(|error| {
            let reason = format!("cannot read {}: {error}", path.display());
            StorageError::permanent("put", URL.to_owned(), key, reason)
        })?;
        self.put(key, body.into(), metadata, condition).await
    }

    async fn get(&self, key: &str) -> Result<Object, StorageError> {
        let stored = self.find("get", key)?;
        let name = key.to_owned();
        Ok(Object::new(stored.meta(key), Cursor::new(stored.body), move |error| {
            StorageError::from_io("get", URL.to_owned(), &name, error)
        }))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        key::check("get", URL, key)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let body = self.find("get", key)?.body;
        let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
        match (start, end) {
            (Ok(start), Ok(end)) if end <= body.len() => Ok(body.slice(start..end)),
            _ => {
                let reason = crate::object::past_the_end(&range, body.len() as u64);
                Err(StorageError::permanent("get", URL.to_owned(), key, reason))
            }
        }
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta, StorageError> {
        Ok(self.find("head", key)?.meta(key))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        key::check_prefix(URL, prefix)?;
        let state = self.state();
        let entries = state
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .filter(|(key, _)| after.is_none_or(|after| key.as_str() > after));
        Ok(entries
            .map(|(key, stored)| ListEntry {
                key: key.clone(),
                size: stored.body.len() as u64,
                etag: stored.etag.clone(),
                modified: Some(stored.modified),
            })
            .collect())
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<DeleteFailure>, StorageError> {
        for key in keys {
            key::check("delete", URL, key)?;
        }
        let mut state = self.state();
        for key in keys {
            state.objects.remove(key);
        }
        Ok(Vec::new())
    }
}
