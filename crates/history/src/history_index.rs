//! The manifest of a history, in whatever state it is.

use walrust_engine::manifest::{Manifest, ManifestError};
use walrust_storage::ObjectStore;

use crate::HistoryError;
use crate::manifest_object::{ManifestObject, read_manifest_patiently};

/// What could be read of the manifest.
#[derive(Debug)]
pub(crate) enum HistoryIndex {
    /// There is none.
    None,
    Read(Box<ManifestObject>),
    /// It cannot be used.
    Bad(Unusable),
}

/// Why a manifest cannot be used.
#[derive(Clone, Debug)]
pub(crate) enum Unusable {
    /// It is damaged, or of a higher format.
    Format(ManifestError),
    /// Its bytes are not those that were stored.
    Sha256 {
        /// SHA-256 that was recorded, hex.
        expected: String,
        /// SHA-256 of the bytes received, hex.
        found: String,
    },
}

impl HistoryIndex {
    /// The manifest, if it can be used.
    pub(crate) fn manifest(&self) -> Option<&Manifest> {
        match self {
            Self::Read(object) => Some(&object.manifest),
            Self::None | Self::Bad(_) => None,
        }
    }

    /// The ETag of the manifest, if it can be used.
    pub(crate) fn etag(&self) -> Option<&str> {
        match self {
            Self::Read(object) => Some(&object.etag),
            Self::None | Self::Bad(_) => None,
        }
    }

    /// Reads the manifest of a database.
    pub(crate) async fn read(store: &dyn ObjectStore, name: &str) -> Result<Self, HistoryError> {
        match read_manifest_patiently(store, name).await {
            Ok(None) => Ok(Self::None),
            Ok(Some(object)) => Ok(Self::Read(Box::new(object))),
            Err(HistoryError::Manifest { source, .. }) => Ok(Self::Bad(Unusable::Format(source))),
            Err(HistoryError::ManifestSha256 { expected, found, .. }) => {
                Ok(Self::Bad(Unusable::Sha256 { expected, found }))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a newer program wrote it, and nothing here may be judged.
    pub(crate) fn is_newer(&self) -> bool {
        matches!(self, Self::Bad(Unusable::Format(ManifestError::NewerFormat { .. })))
    }
}
