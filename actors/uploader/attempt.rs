//! One attempt to bring one thing to storage.

use std::fmt;
use std::time::Duration;

use ractor::ActorRef;
use walrust_engine::{ErrorClass, manifest_key, object_key};
use walrust_history::{MERGED_SINCE, SHA256, WRITER, rfc3339};
use walrust_sqlite::{StagedFile, hex};
use walrust_storage::{Condition, Metadata, ObjectStore, StorageError};

use super::upload::LaneKey;
use super::{AttemptEnded, Upload, UploaderMsg};
use crate::manifest_update::{self, ManifestUpdateError, Stored, Writer, took_over};

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum AttemptError {
    /// Storage did not take it.
    Storage(StorageError),
    /// Another writer has stored other bytes under the key.
    Conflict(Conflict),
    /// The key, or one with later TXIDs, holds other bytes that came from before: an upload of an
    /// earlier run that arrived late, or of a writer whose name we took over, and who stops with its
    /// next manifest.
    Overtaken {
        /// Where the object is.
        object: String,
    },
    /// It ended without an outcome.
    Panicked,
}

/// Two writers under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// The object exists with other bytes.
    Object {
        /// Where the object is.
        object: String,
        /// SHA-256 of the object in storage, if it says so.
        theirs: Option<String>,
        /// SHA-256 of the file that was to be stored.
        ours: String,
    },
    /// A later writer has taken the name over.
    Superseded {
        /// Where the manifest is.
        object: String,
        /// The host of the later writer.
        host: String,
        /// Its epoch.
        epoch: u64,
    },
    /// A newer program has written the manifest.
    Newer {
        /// What it says, and where it is.
        error: String,
    },
}

impl Conflict {
    /// What happened to a database, and what to do.
    pub(crate) fn with_advice(&self, database: &str) -> String {
        match self {
            Self::Object { .. } | Self::Superseded { .. } => format!(
                "{self}; stop the other one and then run `walrust resume {database}` here, or give \
                 this database another prefix in the configuration file"
            ),
            // What to do about it is part of the message.
            Self::Newer { .. } => self.to_string(),
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object { object, theirs, ours } => {
                let theirs = theirs.as_deref().unwrap_or("unknown");
                write!(
                    f,
                    "{object} exists with other content (SHA-256 {theirs}, ours is {ours}): \
                     another process replicates into this name"
                )
            }
            Self::Superseded { object, host, epoch } => write!(
                f,
                "{object} belongs to a later writer: host {host} has taken the name over \
                 (epoch {epoch})"
            ),
            Self::Newer { error } => f.write_str(error),
        }
    }
}

impl From<StorageError> for AttemptError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// The slowest upload that is waited for, bytes per second; as slow as the S3 client waits for.
const SLOWEST: u64 = 64 * 1024;

/// How long an attempt may take.
pub(super) fn time_limit(base: Duration, bytes: u64) -> Duration {
    base.saturating_add(Duration::from_secs(bytes / SLOWEST))
}

/// Makes one attempt, which ends within the time.
///
/// A store ends requests by itself and says better what was wrong; this is for what it does not
/// see: a directory on a server that is gone, many requests that are all slow.
pub(super) async fn attempt(
    store: &dyn ObjectStore,
    database: &str,
    upload: &Upload,
    number: u32,
    limit: Duration,
) -> Result<Stored, AttemptError> {
    match tokio::time::timeout(limit, put(store, database, upload, number > 1)).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let (url, key) = (store.url(), upload.key(database));
            let reason = format!("not done after {} s", limit.as_secs_f64());
            Err(StorageError::new("put", url, &key, ErrorClass::Transient, reason).into())
        }
    }
}

/// Tells the uploader how an attempt ended, also if its task panics: a slot that is never given
/// back would be lost.
#[derive(Debug)]
pub(super) struct Report {
    uploader: ActorRef<UploaderMsg>,
    lane: LaneKey,
    outcome: Result<Stored, AttemptError>,
}

impl Report {
    pub(super) fn new(uploader: ActorRef<UploaderMsg>, lane: LaneKey) -> Self {
        Self { uploader, lane, outcome: Err(AttemptError::Panicked) }
    }

    pub(super) fn send(mut self, outcome: Result<Stored, AttemptError>) {
        self.outcome = outcome;
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Err(AttemptError::Panicked));
        let ended = AttemptEnded { lane: std::mem::take(&mut self.lane), outcome };
        // A dead uploader aborts its attempts; nobody is left to be told.
        let _ = self.uploader.cast(UploaderMsg::Ended(ended));
    }
}

async fn put(
    store: &dyn ObjectStore,
    database: &str,
    upload: &Upload,
    again: bool,
) -> Result<Stored, AttemptError> {
    let update = match upload {
        Upload::File(file, writer) => {
            return put_file(store, database, file, writer).await.map(|()| Stored::default());
        }
        Upload::Manifest(update) => update,
    };
    let written = manifest_update::write(store, database, update, again).await;
    written.map_err(|error| manifest_failed(store, database, error))
}

fn manifest_failed(
    store: &dyn ObjectStore,
    database: &str,
    error: ManifestUpdateError,
) -> AttemptError {
    match error {
        ManifestUpdateError::Storage(error) => error.into(),
        ManifestUpdateError::Superseded(Writer { host, epoch, .. }) => {
            let object = format!("{}/{}", store.url(), manifest_key(database));
            AttemptError::Conflict(Conflict::Superseded { object, host, epoch })
        }
        ManifestUpdateError::Newer(error) => {
            AttemptError::Conflict(Conflict::Newer { error: error.to_string() })
        }
        ManifestUpdateError::Overtaken { key } => {
            AttemptError::Overtaken { object: format!("{}/{key}", store.url()) }
        }
    }
}

async fn put_file(
    store: &dyn ObjectStore,
    database: &str,
    file: &StagedFile,
    writer: &str,
) -> Result<(), AttemptError> {
    let key = object_key(database, file.name);
    if !file.is_whole() {
        let path = file.path.display();
        let reason = format!("{path} is gone, or not as long as it was staged");
        return Err(StorageError::permanent("put", store.url(), &key, reason).into());
    }
    let mut metadata = Metadata::from([
        (SHA256.to_owned(), file.sha256.clone()),
        (WRITER.to_owned(), writer.to_owned()),
    ]);
    metadata.extend(file.merged_since_ms.map(|ms| (MERGED_SINCE.to_owned(), rfc3339(ms))));
    match store.put_file(&key, &file.path, &metadata, &Condition::IfAbsent).await {
        Ok(_) => Ok(()),
        Err(error) if error.class() == ErrorClass::Precondition => {
            let (theirs, by) = stored_sha256(store, &key, file.size).await?;
            if theirs.as_deref() == Some(file.sha256.as_str()) {
                return Ok(());
            }
            let object = format!("{}/{key}", store.url());
            let superseded = by.is_some()
                && took_over(store, database, writer)
                    .await
                    .map_err(|error| manifest_failed(store, database, error))?;
            if superseded || by.as_deref() == Some(writer) {
                return Err(AttemptError::Overtaken { object });
            }
            Err(AttemptError::Conflict(Conflict::Object {
                object,
                theirs,
                ours: file.sha256.clone(),
            }))
        }
        Err(error) => Err(error.into()),
    }
}

/// SHA-256 of a stored object, from its metadata, else from its bytes if they can be ours; and who
/// wrote it, if it says so.
async fn stored_sha256(
    store: &dyn ObjectStore,
    key: &str,
    our_size: u64,
) -> Result<(Option<String>, Option<String>), StorageError> {
    use sha2::{Digest, Sha256};
    use tokio::io::AsyncReadExt;

    let meta = store.head(key).await?;
    let writer = meta.metadata.get(WRITER).cloned();
    if let Some(sha256) = meta.metadata.get(SHA256) {
        return Ok((Some(sha256.clone()), writer));
    }
    if meta.size != our_size {
        return Ok((None, writer));
    }
    let mut object = store.get(key).await?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = object.body.read(&mut buffer).await.map_err(|error| {
            StorageError::new("get", store.url(), key, ErrorClass::Transient, error)
        })?;
        if length == 0 {
            return Ok((Some(hex(&hasher.finalize())), writer));
        }
        hasher.update(&buffer[..length]);
    }
}
