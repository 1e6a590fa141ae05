//! Makes a manifest say what a look at the history found: `verify --fix`.
//!
//! Invariants: files are neither written nor removed. Entries go whose files are gone, or are of a branch
//! that does not go on. An entry comes only from a file that was read to
//! its end and is whole; one that contradicts the SHA-256 of its file is believed more than the file,
//! unless storage keeps the same SHA-256 beside the file. A manifest of a higher format is left alone.
//! A crash leaves the old manifest or the new one.
//!
//! A manifest that is missing or cannot be read is made anew, with a new lineage, and with an epoch
//! below that of any writer: whoever replicates the database goes on as the owner of the name.

use std::collections::{BTreeMap, BTreeSet};

use walrust_engine::manifest::{FORMAT, FileEntry, Manifest, ManifestError, Writer};
use walrust_engine::{Layout, manifest_key};
use walrust_ltx::FileName;
use walrust_storage::{Condition, ObjectStore};

use crate::history_index::HistoryIndex;
use crate::retention_report::file_of;
use crate::{
    Finding, HistoryError, Problem, Verification, edit_manifest, patiently, write_manifest,
};

/// Name of the writer of a manifest that was made anew.
const NOBODY: &str = "unknown";

impl Verification {
    /// Repairs the manifest. The findings that this settles are taken out and returned.
    ///
    /// # Errors
    /// If storage fails, another writer has taken the name over, or somebody else replaces the
    /// manifest all the time.
    pub async fn repair_index(
        &mut self,
        store: &dyn ObjectStore,
    ) -> Result<Vec<Finding>, HistoryError> {
        let (repaired, left): (Vec<Finding>, Vec<Finding>) =
            std::mem::take(&mut self.findings).into_iter().partition(|it| self.can_repair(it));
        self.findings = left;
        if repaired.is_empty() {
            return Ok(repaired);
        }
        let missing = repaired.iter().filter(|it| matches!(it.problem, Problem::Missing));
        self.lost = missing.filter_map(|finding| self.state_after_head(finding)).max();
        match self.index.manifest() {
            Some(manifest) => self.edit(store, &manifest.writer, &repaired).await?,
            None => self.make_anew(store).await?,
        }
        Ok(repaired)
    }

    /// Whether a repair of the manifest settles a finding.
    pub(crate) fn can_repair(&self, finding: &Finding) -> bool {
        if self.layout != Layout::Walrust || self.whole.is_empty() {
            return false;
        }
        let is_manifest = finding.key == manifest_key(&self.name);
        match &finding.problem {
            Problem::NoManifest | Problem::Missing | Problem::AbandonedEntry => true,
            Problem::Manifest(error) => !matches!(error, ManifestError::NewerFormat { .. }),
            Problem::WrongSha256 { .. } => is_manifest,
            Problem::NotIndexed => self.whole_file(finding).is_some(),
            Problem::WrongEntry { field, .. } => {
                let file = self.whole_file(finding).and_then(|name| self.whole.get(&name));
                file.is_some_and(|file| file.is_recorded || *field != Problem::SHA256)
            }
            _ => false,
        }
    }

    /// The file that a finding is about, if it is whole.
    fn whole_file(&self, finding: &Finding) -> Option<FileName> {
        file_of(&finding.key).filter(|name| self.whole.contains_key(name))
    }

    async fn edit(
        &self,
        store: &dyn ObjectStore,
        writer: &Writer,
        repaired: &[Finding],
    ) -> Result<(), HistoryError> {
        let mut going = BTreeSet::new();
        let mut entries: BTreeMap<FileName, FileEntry> = BTreeMap::new();
        for finding in repaired {
            let Some(name) = file_of(&finding.key) else { continue };
            match (&finding.problem, self.whole.get(&name)) {
                (Problem::Missing | Problem::AbandonedEntry, _) => drop(going.insert(name)),
                (_, Some(whole)) => drop(entries.insert(name, whole.entry.clone())),
                (_, None) => {}
            }
        }
        let edit = |manifest: &mut Manifest| {
            let goes = |entry: &FileEntry| entry.file_name().is_some_and(|it| going.contains(&it));
            manifest.files.retain(|entry| !goes(entry));
            manifest.add(entries.values().cloned());
        };
        edit_manifest(store, &self.name, writer, edit).await.map(|_| ())
    }

    async fn make_anew(&self, store: &dyn ObjectStore) -> Result<(), HistoryError> {
        let newest = self.whole.values().max_by_key(|file| file.entry.max.clone());
        let id = newest.and_then(|file| file.writer.clone()).unwrap_or_else(|| "0".repeat(32));
        let mut manifest = Manifest {
            format: FORMAT,
            name: self.name.clone(),
            lineage: format!("{:032x}", fastrand::u128(..)),
            writer: Writer { id, host: NOBODY.to_owned(), epoch: 0 },
            page_size: newest.map_or(0, |file| file.page_size),
            files: Vec::new(),
            retired: Vec::new(),
        };
        manifest.add(self.whole.values().map(|file| file.entry.clone()));
        let condition = match &self.index {
            HistoryIndex::None => Condition::IfAbsent,
            _ => {
                let key = manifest_key(&self.name);
                Condition::IfMatch(patiently(|| store.head(&key)).await?.etag)
            }
        };
        Ok(write_manifest(store, &manifest, &condition).await?)
    }
}
