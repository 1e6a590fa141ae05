//! Files that the retention has left alone, so that its next run need not read them again.
//!
//! Invariant: a file counts as odd only while it is the same object, by its ETag; a name that no object
//! had counts only while none has it.

use std::collections::{BTreeMap, BTreeSet};

use walrust_ltx::FileName;

/// The ETags of listed files.
pub(crate) type Listed = BTreeMap<FileName, String>;

/// See the module. What one run reports the next one may be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OddFiles(BTreeMap<FileName, Option<String>>);

impl OddFiles {
    /// Adds a file, as it was listed.
    pub(crate) fn add(&mut self, name: FileName, listed: &Listed) {
        self.0.insert(name, listed.get(&name).cloned());
    }

    /// Adds a file that was stored just now.
    pub(crate) fn add_object(&mut self, name: FileName, etag: String) {
        self.0.insert(name, Some(etag));
    }

    /// Those that are what they were.
    pub(crate) fn still(&self, listed: &Listed) -> Self {
        let is_same =
            |(name, etag): &(&FileName, &Option<String>)| listed.get(name) == etag.as_ref();
        let same = self.0.iter().filter(is_same);
        Self(same.map(|(name, etag)| (*name, etag.clone())).collect())
    }

    /// Whether a file is one of them.
    #[must_use]
    pub fn contains(&self, name: FileName) -> bool {
        self.0.contains_key(&name)
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> BTreeSet<FileName> {
        self.0.keys().copied().collect()
    }
}
