//! A place that gets a tree for Litestream.
//!
//! Invariant: nothing that is there is replaced, and what is there already stays the only database in
//! the place. A crash leaves whole files.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use walrust_engine::{ErrorClass, Layout};
use walrust_ltx::FileName;
use walrust_storage::{Condition, Metadata, ObjectStore, StorageError, StorageUrl};

use crate::litestream_file::LitestreamFile;
use crate::scratch::fetch;
use crate::{HistoryError, SHA256, patiently};

/// The metadata key under which Litestream keeps the time of a state on S3, RFC 3339.
const LITESTREAM_TIMESTAMP: &str = "litestream-timestamp";

/// Where an export goes: what Litestream calls a replica.
#[derive(Clone, Debug)]
pub struct ExportTarget {
    store: Arc<dyn ObjectStore>,
    layout: Layout,
    /// The place, if it is a directory.
    directory: Option<PathBuf>,
}

impl ExportTarget {
    /// The place at a URL, with which `store` was opened.
    #[must_use]
    pub fn new(url: &StorageUrl, store: Arc<dyn ObjectStore>) -> Self {
        let (layout, directory) = match url {
            StorageUrl::S3 { .. } => (Layout::LitestreamS3, None),
            StorageUrl::File { directory } => (Layout::LitestreamFile, Some(directory.clone())),
        };
        Self { store, layout, directory }
    }

    /// The layout that Litestream expects there.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Refuses a place with anything in it.
    pub(crate) async fn check_empty(&self) -> Result<(), HistoryError> {
        let listing = patiently(|| self.store.list("", None)).await?;
        match listing.into_iter().next() {
            Some(entry) => Err(self.in_use(entry.key)),
            None => Ok(()),
        }
    }

    fn in_use(&self, key: String) -> HistoryError {
        HistoryError::TargetInUse { url: self.store.url(), key }
    }

    /// Stores a file.
    pub(crate) async fn store(
        &self,
        level: u8,
        name: FileName,
        file: &LitestreamFile,
    ) -> Result<(), HistoryError> {
        let key = self.layout.key(level, name);
        let time = Timestamp::from_millisecond(file.timestamp_ms);
        let mut metadata = Metadata::from([(SHA256.to_owned(), file.sha256.clone())]);
        metadata.extend(time.ok().map(|time| (LITESTREAM_TIMESTAMP.to_owned(), time.to_string())));
        let path = file.file.path();
        let put = || self.store.put_file(&key, &path, &metadata, &Condition::IfAbsent);
        match patiently(put).await {
            // An earlier attempt, whose answer got lost, may have stored it.
            Err(error) if error.class() == ErrorClass::Precondition => {
                if fetch(self.store.as_ref(), &key).await?.sha256 != file.sha256 {
                    return Err(self.in_use(key));
                }
            }
            stored => drop(stored?),
        }
        self.set_time(&key, file.timestamp_ms)
    }

    /// In a directory Litestream takes the time of a state from its file.
    fn set_time(&self, key: &str, timestamp_ms: i64) -> Result<(), HistoryError> {
        let (Some(directory), Ok(ms)) = (&self.directory, u64::try_from(timestamp_ms)) else {
            return Ok(());
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let set = File::open(directory.join(key)).and_then(|file| file.set_modified(time));
        set.map_err(|error| {
            let reason = format!("cannot set the time of the file: {error}");
            StorageError::permanent("put", self.store.url(), key, reason).into()
        })
    }
}
