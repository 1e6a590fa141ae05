//! `manifest.json`: the index of a database's files.
//!
//! Invariant: it is an index, not the truth. The truth is the listing and the headers of the
//! files; the manifest adds what neither holds (lineage, writer, SHA-256) and makes a file that
//! vanished from the end of the history visible. A manifest of a higher format is refused, since
//! an older program could only misread it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use walrust_ltx::FileName;

use crate::tree::Tree;

/// The newest format this program reads and writes.
pub const FORMAT: u32 = 1;

/// The index of one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format number; see [`FORMAT`].
    pub format: u32,
    /// The database's name in the bucket.
    pub name: String,
    /// Random identifier minted with the first snapshot, 32 hex digits.
    pub lineage: String,
    /// Who wrote last.
    pub writer: Writer,
    /// Page size of the database in bytes.
    pub page_size: u32,
    /// The files, in the order of their names.
    pub files: Vec<FileEntry>,
    /// Files that retention has given up and not deleted yet, in the order of their names. They may
    /// vanish at any moment; no restore point needs them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<RetiredFile>,
}

/// The process that wrote a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// Random identifier of the local state, 32 hex digits.
    pub id: String,
    /// Host name.
    pub host: String,
    /// Grows each time another writer takes the name over.
    pub epoch: u64,
}

/// Snapshot or incremental.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// All pages; begins at TXID 1.
    Snapshot,
    /// The pages that changed.
    Incremental,
}

/// One LTX file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// First TXID, 16 hex digits.
    pub min: String,
    /// Last TXID, 16 hex digits.
    pub max: String,
    /// Snapshot or incremental.
    pub kind: FileKind,
    /// Size of the object in bytes.
    pub size: u64,
    /// SHA-256 of the object, hex.
    pub sha256: String,
    /// Timestamp of the LTX header, RFC 3339 with milliseconds.
    pub created: String,
    /// Of a file that was merged from others: the timestamp of the first of them, RFC 3339 with
    /// milliseconds. Between it and `created` there were states that can no longer be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_since: Option<String>,
    /// Rolling checksum before the file, 16 hex digits; absent for snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre: Option<String>,
    /// Rolling checksum after the file, 16 hex digits.
    pub post: String,
    /// Size of the database in pages after the file.
    pub commit: u32,
}

impl FileEntry {
    /// The file's name; `None` if the TXIDs of the entry are malformed.
    #[must_use]
    pub fn file_name(&self) -> Option<FileName> {
        format!("{}-{}.ltx", self.min, self.max).parse().ok()
    }
}

/// An LTX file that is about to be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredFile {
    /// Since when nothing needs it, RFC 3339. It is deleted after a grace period, so that a restore
    /// in flight does not lose it.
    pub since: String,
    /// Whether its deletion has begun: it may be gone already, and is never put back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// The file.
    #[serde(flatten)]
    pub entry: FileEntry,
}

/// Why a manifest cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ManifestError {
    /// A newer program wrote it.
    #[error("it has format {found}, this program reads up to {FORMAT}; use a newer walrust")]
    NewerFormat {
        /// The format number found.
        found: u32,
    },
    /// It is not the JSON that was written.
    #[error(
        "it is damaged ({0}); it is an index only, and `walrust verify --fix` makes it anew from the files"
    )]
    Damaged(String),
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// If it has a higher format, or is not a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = |error: serde_json::Error| ManifestError::Damaged(error.to_string());
        let Format { format } = serde_json::from_slice(bytes).map_err(damaged)?;
        if format > FORMAT {
            return Err(ManifestError::NewerFormat { found: format });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(damaged)?;
        let mut entries = manifest.entries_with_retired();
        match entries.find(|entry| entry.file_name().is_none()) {
            Some(entry) => Err(ManifestError::Damaged(format!(
                "{:?}-{:?} is not a range of TXIDs",
                entry.min, entry.max
            ))),
            None => {
                drop(entries);
                Ok(manifest)
            }
        }
    }

    /// The manifest as it is stored: indented JSON with a final newline.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .expect("strings, numbers and lists always have a JSON form");
        bytes.push(b'\n');
        bytes
    }

    /// Adds files that are not in it yet, keeping the order of their names. Files that are retired
    /// stay so: an entry that comes late does not bring them back.
    pub fn add(&mut self, entries: impl IntoIterator<Item = FileEntry>) {
        let retired = self.retired_names();
        for entry in entries {
            if entry.file_name().is_none_or(|name| !retired.contains(&name)) {
                insert(&mut self.files, entry, |entry| entry);
            }
        }
    }

    /// Takes files out of the index: they are to be deleted. What was retired before is so anew.
    pub fn retire(&mut self, names: &BTreeSet<FileName>, since: &str) {
        let is_named = |entry: &FileEntry| entry.file_name().is_some_and(|it| names.contains(&it));
        for entry in self.files.extract_if(.., |entry| is_named(entry)) {
            let file = RetiredFile { since: since.to_owned(), deleting: false, entry };
            insert(&mut self.retired, file, |file| &file.entry);
        }
        for file in self.retired.iter_mut().filter(|file| is_named(&file.entry)) {
            since.clone_into(&mut file.since);
        }
    }

    /// Puts retired files back into the index, as far as their deletion has not begun.
    pub fn take_back(&mut self, names: &BTreeSet<FileName>) {
        let is_named = |file: &mut RetiredFile| {
            !file.deleting && file.entry.file_name().is_some_and(|name| names.contains(&name))
        };
        for RetiredFile { entry, .. } in self.retired.extract_if(.., is_named) {
            insert(&mut self.files, entry, |entry| entry);
        }
    }

    /// Says that the deletion of retired files begins: whoever reads this does not count on them.
    pub fn begin_deletion(&mut self, names: &BTreeSet<FileName>) {
        for file in &mut self.retired {
            file.deleting |= file.entry.file_name().is_some_and(|name| names.contains(&name));
        }
    }

    /// The names of the retired files whose deletion has begun.
    #[must_use]
    pub fn names_in_deletion(&self) -> BTreeSet<FileName> {
        let files = self.retired.iter().filter(|file| file.deleting);
        files.filter_map(|file| file.entry.file_name()).collect()
    }

    /// Whether, since it was as `before`, files were added at most.
    #[must_use]
    pub fn only_grew_since(&self, before: &Self) -> bool {
        let key = |entry: &&FileEntry| (entry.min.clone(), entry.max.clone());
        let mut files = self.files.iter().peekable();
        // Both are in the order of their names.
        let is_there = |entry: &FileEntry| {
            while files.next_if(|it| key(it) < key(&entry)).is_some() {}
            files.next_if(|it| *it == entry).is_some()
        };
        self.retired == before.retired && before.files.iter().all(is_there)
    }

    /// Forgets retired files that are gone.
    pub fn forget_retired(&mut self, names: &BTreeSet<FileName>) {
        self.retired.retain(|file| file.entry.file_name().is_none_or(|it| !names.contains(&it)));
    }

    /// The names of the retired files.
    #[must_use]
    pub fn retired_names(&self) -> BTreeSet<FileName> {
        self.retired.iter().filter_map(|file| file.entry.file_name()).collect()
    }

    /// The entries of all files that may be in storage, those of the index first.
    pub fn entries_with_retired(&self) -> impl Iterator<Item = &FileEntry> {
        self.files.iter().chain(self.retired.iter().map(|file| &file.entry))
    }

    /// The files of the manifest that are not in the tree.
    #[must_use]
    pub fn missing_from(&self, tree: &Tree) -> Vec<FileName> {
        let present: BTreeSet<FileName> = tree.files.iter().map(|file| file.name).collect();
        let names = self.files.iter().filter_map(FileEntry::file_name);
        names.filter(|name| !present.contains(name)).collect()
    }
}

/// Puts an item in its place; one of the same name is replaced.
fn insert<T>(items: &mut Vec<T>, item: T, entry: impl Fn(&T) -> &FileEntry) {
    let key = |item: &T| (entry(item).min.clone(), entry(item).max.clone());
    match items.binary_search_by_key(&key(&item), key) {
        Ok(index) => items[index] = item,
        Err(index) => items.insert(index, item),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(min: u64, max: u64) -> FileEntry {
        FileEntry {
            min: format!("{min:016x}"),
            max: format!("{max:016x}"),
            kind: if min == 1 { FileKind::Snapshot } else { FileKind::Incremental },
            size: 10,
            sha256: "00".repeat(32),
            created: "2026-01-01T00:00:00.000Z".to_owned(),
            merged_since: None,
            pre: (min > 1).then(|| "8000000000000000".to_owned()),
            post: "8000000000000000".to_owned(),
            commit: 1,
        }
    }

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            name: "app".to_owned(),
            lineage: "ab".repeat(16),
            writer: Writer { id: "cd".repeat(16), host: "host".to_owned(), epoch: 1 },
            page_size: 4096,
            files: vec![entry(1, 1), entry(2, 10)],
            retired: Vec::new(),
        }
    }

    #[test]
    fn it_survives_a_round_trip() {
        let manifest = manifest();
        assert_eq!(Manifest::parse(&manifest.to_bytes()).unwrap(), manifest);
    }

    #[test]
    fn a_higher_format_is_refused_even_if_the_rest_is_unknown() {
        let error = Manifest::parse(br#"{"format": 2, "shape": "new"}"#).unwrap_err();
        assert!(matches!(error, ManifestError::NewerFormat { found: 2 }));
    }

    #[test]
    fn damaged_json_and_damaged_names_are_refused() {
        let mut broken = manifest();
        broken.files[1].min = "2".to_owned();
        for bytes in [b"{}".to_vec(), b"\0".to_vec(), broken.to_bytes()] {
            assert!(matches!(Manifest::parse(&bytes), Err(ManifestError::Damaged(_))));
        }
    }

    #[test]
    fn added_files_keep_the_order_and_replace_their_equals() {
        let mut manifest = manifest();
        manifest.add([entry(11, 12), entry(1, 12), entry(2, 10)]);
        let names: Vec<_> = manifest.files.iter().map(|e| (e.min.clone(), e.max.clone())).collect();
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(names, sorted);
        assert_eq!(names.len(), 4);
    }

    #[test]
    fn files_that_vanished_are_named() {
        let tree = Tree::read("app", [("app/0000000000000001-0000000000000001.ltx", 10)]);
        let missing = manifest().missing_from(&tree);
        let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["0000000000000002-000000000000000a.ltx"]);
    }

    fn name(min: u64, max: u64) -> FileName {
        entry(min, max).file_name().unwrap()
    }

    #[test]
    fn retired_files_leave_the_index_stay_out_of_it_and_can_be_taken_back() {
        let before = manifest();
        let mut manifest = before.clone();
        let names = BTreeSet::from([name(2, 10)]);
        manifest.retire(&names, "2026-01-02T00:00:00Z");
        manifest.add([entry(2, 10), entry(11, 12)]);
        assert_eq!(manifest.files, [entry(1, 1), entry(11, 12)]);
        assert_eq!(manifest.retired_names(), names);
        assert_eq!(Manifest::parse(&manifest.to_bytes()).unwrap(), manifest);

        manifest.retire(&names, "2026-01-03T00:00:00Z");
        assert_eq!(manifest.retired[0].since, "2026-01-03T00:00:00Z");
        let mut deleted = manifest.clone();
        deleted.forget_retired(&names);
        assert_eq!(deleted.retired, []);
        manifest.take_back(&names);
        manifest.files.pop();
        assert_eq!(manifest, before);
    }

    #[test]
    fn a_file_whose_deletion_has_begun_does_not_come_back() {
        let mut manifest = manifest();
        let names = BTreeSet::from([name(2, 10)]);
        manifest.begin_deletion(&names);
        assert_eq!(manifest.names_in_deletion(), BTreeSet::new(), "it is not retired");
        manifest.retire(&names, "2026-01-02T00:00:00Z");
        manifest.begin_deletion(&names);
        manifest.take_back(&names);
        manifest.add([entry(2, 10)]);
        assert_eq!(manifest.files, [entry(1, 1)]);
        assert_eq!(manifest.names_in_deletion(), names);
        assert_eq!(Manifest::parse(&manifest.to_bytes()).unwrap(), manifest);
    }

    #[test]
    fn a_manifest_only_grew_if_nothing_was_retired_removed_or_changed() {
        let before = manifest();
        let mut now = before.clone();
        now.add([entry(1, 5), entry(5, 6), entry(11, 12)]);
        assert!(now.only_grew_since(&before) && !before.only_grew_since(&now));
        let mut changed = now.clone();
        changed.add([FileEntry { size: 11, ..entry(2, 10) }]);
        assert!(!changed.only_grew_since(&before));
        now.retire(&BTreeSet::from([name(5, 6)]), "2026-01-02T00:00:00Z");
        assert!(!now.only_grew_since(&before));
        let retired = now.clone();
        now.begin_deletion(&BTreeSet::from([name(5, 6)]));
        assert!(!now.only_grew_since(&retired));
    }

    #[test]
    fn a_manifest_without_retired_files_is_written_as_before() {
        let text = String::from_utf8(manifest().to_bytes()).unwrap();
        assert!(!text.contains("retired"), "{text}");
    }
}
