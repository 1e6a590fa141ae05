//! The history of a database whose files were listed together with those of others.

use walrust_engine::Tree;
use walrust_engine::manifest::ManifestError;
use walrust_storage::ObjectStore;

use crate::branches::take_abandoned;
use crate::manifest_object::read_manifest_patiently;
use crate::{History, HistoryError};

impl History {
    /// The history of the files in a tree: a request for its manifest, if there is one, and where names
    /// leave in doubt which files belong together, requests for their ends.
    ///
    /// A damaged manifest is as good as none, since the files are the truth.
    ///
    /// # Errors
    /// If storage fails, or the manifest is of a higher format: whoever does not know its rules must not
    /// say what its files mean.
    pub async fn of_tree(
        store: &dyn ObjectStore,
        name: &str,
        mut tree: Tree,
    ) -> Result<Self, HistoryError> {
        let manifest = match tree.has_manifest {
            false => None,
            true => match read_manifest_patiently(store, name).await {
                Err(HistoryError::Manifest { source: ManifestError::Damaged(_), .. })
                | Err(HistoryError::ManifestSha256 { .. }) => None,
                manifest => manifest?.map(|object| object.manifest),
            },
        };
        let abandoned = take_abandoned(store, &mut tree, manifest.as_ref()).await?;
        Ok(Self { name: name.to_owned(), tree, abandoned, manifest })
    }
}
