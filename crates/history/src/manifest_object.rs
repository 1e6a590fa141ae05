//! `manifest.json` as an object in storage.
//!
//! Invariant: it is replaced only if it is still the object that was read, so two writers cannot
//! undo each other's entries.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use walrust_engine::manifest::{Manifest, Writer};
use walrust_engine::{ErrorClass, RetryDecision, RetryPolicy, manifest_key};
use walrust_sqlite::hex;
use walrust_storage::{Condition, Metadata, Object, ObjectStore, StorageError};

use crate::{HistoryError, SHA256, patiently};

/// The longest pause between two attempts to change a manifest.
const LONGEST_DELAY: Duration = Duration::from_secs(3);

/// A manifest, and which object it was read from.
#[derive(Clone, Debug)]
pub struct ManifestObject {
    /// The manifest.
    pub manifest: Manifest,
    /// The object's ETag, for [`Condition::IfMatch`].
    pub etag: String,
}

/// Reads the manifest of a database; `None` if it has none.
///
/// # Errors
/// If storage fails, or the manifest is damaged or of a higher format.
pub async fn read_manifest(
    store: &dyn ObjectStore,
    name: &str,
) -> Result<Option<ManifestObject>, HistoryError> {
    match get(store, &manifest_key(name)).await? {
        Some(object) => parse(store, object).await.map(Some),
        None => Ok(None),
    }
}

/// What there is under the key of a manifest.
#[derive(Debug)]
pub enum FoundManifest {
    /// Nothing.
    None,
    /// A manifest.
    Read(ManifestObject),
    /// Something that is not what was stored, or never was a manifest. The files are the truth.
    Damaged {
        /// What is wrong.
        error: HistoryError,
        /// The object's ETag, for [`Condition::IfMatch`].
        etag: String,
    },
}

/// As [`read_manifest`], for whoever may replace one that is damaged.
///
/// # Errors
/// If storage fails, or the manifest is of a higher format.
pub async fn find_manifest(
    store: &dyn ObjectStore,
    name: &str,
) -> Result<FoundManifest, HistoryError> {
    let Some(object) = get(store, &manifest_key(name)).await? else {
        return Ok(FoundManifest::None);
    };
    let etag = object.meta.etag.clone();
    match parse(store, object).await {
        Ok(object) => Ok(FoundManifest::Read(object)),
        Err(error) if error.is_damaged_manifest() => Ok(FoundManifest::Damaged { error, etag }),
        Err(error) => Err(error),
    }
}

/// As [`read_manifest`], but asks again what storage cannot answer at the moment.
///
/// # Errors
/// As [`read_manifest`].
pub(crate) async fn read_manifest_patiently(
    store: &dyn ObjectStore,
    name: &str,
) -> Result<Option<ManifestObject>, HistoryError> {
    let key = manifest_key(name);
    match patiently(|| get(store, &key)).await? {
        Some(object) => parse(store, object).await.map(Some),
        None => Ok(None),
    }
}

async fn get(store: &dyn ObjectStore, key: &str) -> Result<Option<Object>, StorageError> {
    match store.get(key).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.class() == ErrorClass::NotFound && !error.is_missing_bucket() => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn parse(store: &dyn ObjectStore, object: Object) -> Result<ManifestObject, HistoryError> {
    let key = object.meta.key.clone();
    let etag = object.meta.etag.clone();
    let expected = object.meta.metadata.get(SHA256).cloned();
    let bytes = object.bytes().await?;
    let object = format!("{}/{key}", store.url());
    // A newer program's manifest is recognised before anything else is asked of it.
    let manifest = Manifest::parse(&bytes);
    let found = hex(&Sha256::digest(&bytes));
    match (manifest, expected) {
        (Ok(_), Some(expected)) if expected != found => {
            Err(HistoryError::ManifestSha256 { object, expected, found })
        }
        (Ok(manifest), _) => Ok(ManifestObject { manifest, etag }),
        (Err(source), _) => Err(HistoryError::Manifest { object, source }),
    }
}

/// Stores the manifest of a database.
///
/// # Errors
/// If storage fails; class `Precondition` if the condition does not hold.
pub async fn write_manifest(
    store: &dyn ObjectStore,
    manifest: &Manifest,
    condition: &Condition,
) -> Result<(), StorageError> {
    put(store, &manifest_key(&manifest.name), manifest, condition).await
}

async fn put(
    store: &dyn ObjectStore,
    key: &str,
    manifest: &Manifest,
    condition: &Condition,
) -> Result<(), StorageError> {
    let bytes = manifest.to_bytes();
    let sha256 = hex(&Sha256::digest(&bytes));
    let metadata = Metadata::from([(SHA256.to_owned(), sha256)]);
    store.put(key, Bytes::from(bytes), &metadata, condition).await.map(|_| ())
}

/// Reads the manifest of a database that belongs to a writer.
///
/// # Errors
/// As [`read_manifest`]; or if there is none, or another writer has taken the name over.
pub(crate) async fn read_own_manifest(
    store: &dyn ObjectStore,
    name: &str,
    writer: &Writer,
) -> Result<ManifestObject, HistoryError> {
    let object = format!("{}/{}", store.url(), manifest_key(name));
    let Some(found) = read_manifest(store, name).await? else {
        return Err(HistoryError::NoManifest { object });
    };
    check_writer(&object, &found.manifest, writer)?;
    Ok(found)
}

/// Whether a manifest belongs to a writer. `object` is its key, with the storage.
///
/// # Errors
/// If another writer has taken the name over.
pub(crate) fn check_writer(
    object: &str,
    manifest: &Manifest,
    writer: &Writer,
) -> Result<(), HistoryError> {
    let Writer { id, host, epoch } = &manifest.writer;
    if (id, epoch) == (&writer.id, &writer.epoch) {
        return Ok(());
    }
    let object = object.to_owned();
    Err(HistoryError::Superseded { object, host: host.clone(), epoch: *epoch })
}

/// Changes the manifest of a database that belongs to a writer. If somebody else changes it in the
/// same moment, their change is kept and this one made again on top of it; so is one whose answer got
/// lost, which has to change nothing then. Returns the manifest as it was stored.
///
/// # Errors
/// As [`read_manifest`] and [`write_manifest`]; or if there is none, or another writer has taken the
/// name over.
pub async fn edit_manifest(
    store: &dyn ObjectStore,
    name: &str,
    writer: &Writer,
    edit: impl Fn(&mut Manifest),
) -> Result<Manifest, HistoryError> {
    let edit = |manifest: &mut Manifest| {
        edit(manifest);
        Ok(())
    };
    try_edit_manifest(store, name, writer, edit).await
}

/// As [`edit_manifest`], with a change that may be refused by what there is.
///
/// # Errors
/// As [`edit_manifest`]; or if the change is refused.
pub(crate) async fn try_edit_manifest(
    store: &dyn ObjectStore,
    name: &str,
    writer: &Writer,
    edit: impl Fn(&mut Manifest) -> Result<(), HistoryError>,
) -> Result<Manifest, HistoryError> {
    const ATTEMPTS: u32 = 10;
    let policy = RetryPolicy::default();
    let mut attempt = 1;
    loop {
        let edited = edit_once(store, name, writer, &edit).await;
        match edited {
            Err(HistoryError::Storage(error)) if attempt < ATTEMPTS => {
                let class = match error.class() {
                    // Somebody else was faster.
                    ErrorClass::Precondition => ErrorClass::Transient,
                    class if class.is_retryable() => class,
                    _ => return Err(error.into()),
                };
                let decision = policy.after_failure(class, attempt, fastrand::f64());
                let RetryDecision::After { delay, .. } = decision else { return Err(error.into()) };
                tokio::time::sleep(delay.min(LONGEST_DELAY)).await;
                attempt += 1;
            }
            edited => return edited,
        }
    }
}

async fn edit_once(
    store: &dyn ObjectStore,
    name: &str,
    writer: &Writer,
    edit: &impl Fn(&mut Manifest) -> Result<(), HistoryError>,
) -> Result<Manifest, HistoryError> {
    let ManifestObject { manifest, etag } = read_own_manifest(store, name, writer).await?;
    let mut edited = manifest.clone();
    edit(&mut edited)?;
    if edited != manifest {
        // Where it was read: seen through a URL with another prefix the history has another name.
        put(store, &manifest_key(name), &edited, &Condition::IfMatch(etag)).await?;
    }
    Ok(edited)
}
