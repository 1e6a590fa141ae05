//! The files of one database in storage, and their index.
//!
//! Invariant: the listing and the headers of the files are the truth. What the manifest says of a
//! file counts only while the listing has the file with the same size, and a manifest that is damaged
//! says nothing: the history is read as if it had none. What is lost with it is what neither listing
//! nor files hold: whether files are missing at the end, and which ones retention has given up.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use walrust_engine::manifest::{FileEntry, Manifest};
use walrust_engine::{StoredFile, Tree, manifest_key, restorable_txids};
use walrust_ltx::{FileName, Txid};
use walrust_storage::ObjectStore;

use crate::branches::take_abandoned;
use crate::file_description::{HEADERS, read_header};
use crate::manifest_object::read_manifest_patiently;
use crate::{HistoryError, patiently};

/// The files of one database in storage.
#[derive(Clone, Debug)]
pub struct History {
    /// Name of the database.
    pub name: String,
    /// Its files, without those that it has left behind.
    pub tree: Tree,
    /// Files of a branch that does not go on: another writer had continued a state that this history
    /// has continued as well. Nothing is restored from them.
    pub abandoned: Vec<StoredFile>,
    /// Their index, if there is one that can be used.
    pub manifest: Option<Manifest>,
}

/// When each state of a history was committed: the timestamps of the files' headers, in
/// milliseconds since the Unix epoch.
pub type Times = BTreeMap<FileName, i64>;

impl History {
    /// Lists the files of a database and reads its manifest. A name without files has an empty
    /// history.
    ///
    /// Where names leave in doubt which files belong together, their ends are read.
    ///
    /// # Errors
    /// If storage fails, or the manifest is of a higher format. One that is damaged is warned of.
    pub async fn read(store: &dyn ObjectStore, name: &str) -> Result<Self, HistoryError> {
        let name = name.trim_matches('/');
        let prefix = format!("{name}/");
        // First, so that what it knows is listed: files that are stored meanwhile are not missing.
        let manifest = match read_manifest_patiently(store, name).await {
            // What a place without anything means is for its listing to say.
            Err(HistoryError::Storage(error)) if error.is_missing_bucket() => None,
            Err(error) if error.is_damaged_manifest() => {
                tracing::warn!(
                    %error,
                    "the history is read without its manifest: whether its newest files are all \
                     there cannot be told"
                );
                None
            }
            manifest => manifest?,
        };
        let listing = patiently(|| store.list(&prefix, None)).await?;
        let mut tree =
            Tree::read(name, listing.iter().map(|entry| (entry.key.as_str(), entry.size)));
        let manifest = manifest.map(|object| object.manifest);
        let abandoned = take_abandoned(store, &mut tree, manifest.as_ref()).await?;
        Ok(Self { name: name.to_owned(), tree, abandoned, manifest })
    }

    /// The files that the manifest lists and storage does not have.
    #[must_use]
    pub fn missing(&self) -> Vec<FileName> {
        let mut missing = self
            .manifest
            .as_ref()
            .map_or_else(Vec::new, |manifest| manifest.missing_from(&self.tree));
        missing.retain(|name| self.abandoned.iter().all(|file| file.name != *name));
        missing
    }

    /// Refuses a history without any file.
    ///
    /// # Errors
    /// If it has none: the manifest tells whether there ever was one.
    pub fn refuse_empty(&self, store: &dyn ObjectStore) -> Result<(), HistoryError> {
        if !self.tree.files.is_empty() {
            return Ok(());
        }
        let url = store.url();
        match self.missing().len() {
            0 => Err(HistoryError::UnknownName { name: self.name.clone(), url }),
            count => {
                let object = format!("{url}/{}", manifest_key(&self.name));
                Err(HistoryError::AllFilesLost { object, count })
            }
        }
    }

    /// The files that are not about to be deleted.
    pub(crate) fn staying(&self) -> Tree {
        staying(&self.tree, self.manifest.as_ref())
    }

    /// A file that vanished from the end of a history leaves no gap; only the manifest knows it.
    /// `missing` are its files that are not there, `head` is the end of the wanted history.
    pub(crate) fn refuse_lost_tail(
        &self,
        store: &dyn ObjectStore,
        missing: &[FileName],
        head: Txid,
    ) -> Result<(), HistoryError> {
        let Some(lost) = missing.iter().find(|file| file.max > head) else { return Ok(()) };
        let newest = restorable_txids(&self.tree);
        let newest = newest.last().map_or_else(String::new, ToString::to_string);
        Err(HistoryError::LostTail {
            object: format!("{}/{}", store.url(), manifest_key(&self.name)),
            file: lost.to_string(),
            newest,
        })
    }

    /// What the manifest says of the files that are in storage with the size they should have, those
    /// that retention has given up and not deleted yet included.
    #[must_use]
    pub fn entries(&self) -> BTreeMap<FileName, &FileEntry> {
        let sizes: BTreeMap<FileName, u64> =
            self.tree.files.iter().map(|file| (file.name, file.size)).collect();
        let entries = self.manifest.iter().flat_map(Manifest::entries_with_retired);
        let named = entries.filter_map(|entry| Some((entry.file_name()?, entry)));
        named.filter(|(name, entry)| sizes.get(name) == Some(&entry.size)).collect()
    }

    /// When the state of each file was committed: as the manifest has it, and for files that it
    /// does not know from their headers.
    ///
    /// # Errors
    /// If storage fails, or a file that the manifest does not know is not an LTX file.
    pub async fn times(&self, store: &dyn ObjectStore) -> Result<Times, HistoryError> {
        let known = self.entries();
        let mut times = Times::new();
        let mut unknown = Vec::new();
        for file in &self.tree.files {
            let created = known.get(&file.name).map(|entry| entry.created.parse::<Timestamp>());
            match created {
                Some(Ok(time)) => drop(times.insert(file.name, time.as_millisecond())),
                _ => unknown.push(file),
            }
        }
        let headers = unknown.into_iter().map(|file| async move {
            match read_header(store, file).await? {
                Some(header) => Ok((file.name, header.timestamp_ms)),
                None => {
                    Err(HistoryError::NotLtx { object: format!("{}/{}", store.url(), file.key) })
                }
            }
        });
        let read: Vec<_> =
            futures_util::stream::iter(headers).buffered(HEADERS).try_collect().await?;
        times.extend(read);
        Ok(times)
    }
}

/// The files of a tree that are not about to be deleted.
pub(crate) fn staying(tree: &Tree, manifest: Option<&Manifest>) -> Tree {
    let retired = manifest.map(Manifest::retired_names).unwrap_or_default();
    let mut staying = tree.clone();
    staying.files.retain(|file| !retired.contains(&file.name));
    staying
}
