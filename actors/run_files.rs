//! What a run of a database has offered to storage, for whoever finds it there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use walrust_engine::manifest::FileEntry;
use walrust_ltx::{FileName, Txid};

/// The files that a run has offered to storage. Clones are the same: an update that waits knows what
/// was offered beside it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunFiles(Arc<Mutex<Offered>>);

#[derive(Debug, Default)]
struct Offered {
    /// The newest TXID that may be in storage.
    newest: Option<Txid>,
    /// Files that no manifest has yet. Each is entered once, by the update that has its entry: if a
    /// listing entered it before, it could be removed again before that update brings it back.
    not_entered: BTreeSet<FileName>,
}

impl RunFiles {
    /// To be called before a file is offered, so that whoever finds it in storage knows of it.
    pub(crate) fn offered(&self, name: FileName) {
        self.reach(name.max);
        self.lock().not_entered.insert(name);
    }

    /// Storage is known to have a state.
    pub(crate) fn reach(&self, txid: Txid) {
        let mut offered = self.lock();
        offered.newest = offered.newest.max(Some(txid));
    }

    /// A manifest has these.
    pub(crate) fn entered<'a>(&self, entries: impl IntoIterator<Item = &'a FileEntry>) {
        let mut offered = self.lock();
        for name in entries.into_iter().filter_map(FileEntry::file_name) {
            offered.not_entered.remove(&name);
        }
    }

    /// Of what was offered only these are still to be entered: nobody will hear of the rest.
    pub(crate) fn keep_only<'a>(&self, entries: impl IntoIterator<Item = &'a FileEntry>) {
        let names = entries.into_iter().filter_map(FileEntry::file_name);
        self.lock().not_entered = names.collect();
    }

    /// The newest TXID that may be in storage.
    pub(crate) fn newest(&self) -> Option<Txid> {
        self.lock().newest
    }

    /// The files that no manifest has yet.
    pub(crate) fn not_entered(&self) -> BTreeSet<FileName> {
        self.lock().not_entered.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Offered> {
        // It is never left half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
