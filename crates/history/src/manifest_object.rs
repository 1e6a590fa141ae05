//! `manifest.json` as an object in storage.
//!
//! Invariant: it is replaced only if it is still the object that was read, so two writers cannot
//! undo each other's entries.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use walrust_engine::manifest::Manifest;
use walrust_engine::{ErrorClass, manifest_key};
use walrust_sqlite::hex;
use walrust_storage::{Condition, Metadata, ObjectStore, StorageError};

use crate::{HistoryError, SHA256};

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
    let key = manifest_key(name);
    let object = match store.get(&key).await {
        Ok(object) => object,
        Err(error) if error.class() == ErrorClass::NotFound && !error.is_missing_bucket() => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
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
        (Ok(manifest), _) => Ok(Some(ManifestObject { manifest, etag })),
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
    let bytes = manifest.to_bytes();
    let sha256 = hex(&Sha256::digest(&bytes));
    let metadata = Metadata::from([(SHA256.to_owned(), sha256)]);
    let key = manifest_key(&manifest.name);
    store.put(&key, Bytes::from(bytes), &metadata, condition).await.map(|_| ())
}
