//! Whether the files of a history lead from one state to the next, down to the checksum of each page.
//!
//! A restore takes one way through a history; this takes all of them at once. Each file is put on
//! the state that it continues, as a restore would, with the checksums of its pages in the place of
//! the pages. Two files that lead to the same TXID must lead to the same database: a restore may take
//! either.
//!
//! A file that only follows files with problems has one itself, so that one walk names every file that is
//! of no use.
//!
//! Invariant: if no file has a problem, every restore that follows the names of the files finds each
//! link in order and arrives at the checksum that its last file states.
//!
//! Memory: one [`PageTable`] for each state that a file still has to continue: one for a history that
//! was not merged, one more beside each merged file.

use std::collections::{BTreeMap, BTreeSet};

use walrust_ltx::{Checksum, FileName, PageSize, Pgno, Txid};

use crate::page_table::{MissingPages, PageTable};

/// What an LTX file does to a database.
#[derive(Clone, Debug)]
pub struct FileChanges {
    /// Its name, which its header agrees with.
    pub name: FileName,
    /// Page size of the database.
    pub page_size: PageSize,
    /// Size of the database in pages after it.
    pub commit: u32,
    /// Rolling checksum of the state that it continues; `None` for a snapshot.
    pub pre_apply: Option<Checksum>,
    /// Rolling checksum of the state that it leads to.
    pub post_apply: Checksum,
    /// Its pages with their checksums, in ascending order.
    pub pages: Vec<(Pgno, Checksum)>,
}

/// Why a restore that takes a file fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainProblem {
    /// No file ends where it begins.
    #[error("it continues TXID {after}, which no file leads to")]
    Unreachable {
        /// The state that it continues.
        after: Txid,
    },
    /// The files that end where it begins are damaged, or follow one that is damaged or lost.
    #[error("no sound file leads to TXID {after}, which it continues: nothing is restored from it")]
    LostBase {
        /// The state that it continues.
        after: Txid,
    },
    /// It does not continue the state that the files before it lead to.
    #[error(
        "it continues a database with checksum {found}, at TXID {after} the database has {expected}"
    )]
    BrokenLink {
        /// The TXID of that state.
        after: Txid,
        /// Its checksum.
        expected: Checksum,
        /// The checksum that the file continues.
        found: Checksum,
    },
    /// It states no checksum to continue, though it is not a snapshot.
    #[error("it does not say which database it continues")]
    NoPreApply,
    /// It has another page size than the state that it continues.
    #[error("its page size is {found}, that of the files before it is {expected}")]
    PageSize {
        /// Page size of the state in bytes.
        expected: u32,
        /// Page size of the file in bytes.
        found: u32,
    },
    /// Pages are in no file.
    #[error("after it {0}")]
    MissingPages(#[from] MissingPages),
    /// It leads to another database than it states.
    #[error("after it the database should have checksum {expected}, it has {found}")]
    PostApply {
        /// The checksum that it states.
        expected: Checksum,
        /// The checksum of the database.
        found: Checksum,
    },
    /// Another file leads to another database under the same TXID.
    #[error("it leads to another database at TXID {txid} than other files do")]
    OtherState {
        /// The TXID.
        txid: Txid,
    },
}

/// A walk over the files of a history; see the module.
#[derive(Debug)]
pub struct ChainCheck {
    /// States that files end with, those that cannot be read included.
    ends: BTreeSet<Txid>,
    /// Files that are still to come, by the state that they continue.
    continuing: BTreeMap<Txid, usize>,
    states: BTreeMap<Txid, State>,
}

/// What is known of a state.
#[derive(Debug)]
struct State {
    checksum: Checksum,
    page_size: PageSize,
    /// Its pages, if the way to it is sound and a file still continues it.
    pages: Option<PageTable>,
}

impl ChainCheck {
    /// Begins a walk over these files, each of which then comes in [`order`](Self::order).
    #[must_use]
    pub fn new(files: impl IntoIterator<Item = FileName>) -> Self {
        let (mut ends, mut continuing) = (BTreeSet::new(), BTreeMap::new());
        for name in files {
            ends.insert(name.max);
            if let Some(before) = before(name) {
                *continuing.entry(before).or_default() += 1;
            }
        }
        Self { ends, continuing, states: BTreeMap::new() }
    }

    /// The key by which the files are to be sorted: what a file continues comes before it, and of
    /// files with the same end the snapshot, which proves itself.
    #[must_use]
    pub fn order(name: FileName) -> (Txid, Txid) {
        (name.max, name.min)
    }

    /// Puts the next file in its place.
    ///
    /// # Errors
    /// Why a restore that takes it fails.
    pub fn add(&mut self, file: &FileChanges) -> Result<(), ChainProblem> {
        let (pages, result) = match self.apply(file) {
            Ok(pages) => (Some(pages), Ok(())),
            Err(problem) => (None, Err(problem)),
        };
        let joined = self.arrive(file, pages);
        result.and(joined)
    }

    /// Passes a file whose contents are not known.
    pub fn skip(&mut self, name: FileName) {
        if let Some(before) = before(name) {
            self.let_go(before);
        }
    }

    /// The pages after a file.
    fn apply(&mut self, file: &FileChanges) -> Result<PageTable, ChainProblem> {
        let mut pages = match before(file.name) {
            None => PageTable::new(file.page_size),
            Some(before) => {
                let checked = self.check_link(before, file);
                let pages = self.let_go(before);
                checked?;
                pages.ok_or(ChainProblem::LostBase { after: before })?
            }
        };
        pages.begin(file.commit);
        for (pgno, checksum) in &file.pages {
            pages.set(*pgno, *checksum)?;
        }
        let found = pages.end()?;
        if found != file.post_apply {
            return Err(ChainProblem::PostApply { expected: file.post_apply, found });
        }
        Ok(pages)
    }

    fn check_link(&self, before: Txid, file: &FileChanges) -> Result<(), ChainProblem> {
        let found = file.pre_apply.ok_or(ChainProblem::NoPreApply)?;
        let Some(state) = self.states.get(&before) else {
            return match self.ends.contains(&before) {
                true => Ok(()),
                false => Err(ChainProblem::Unreachable { after: before }),
            };
        };
        if file.page_size != state.page_size {
            let (expected, found) = (state.page_size.get(), file.page_size.get());
            return Err(ChainProblem::PageSize { expected, found });
        }
        match state.checksum == found {
            true => Ok(()),
            false => {
                let expected = state.checksum;
                Err(ChainProblem::BrokenLink { after: before, expected, found })
            }
        }
    }

    /// The pages of a state, for one of the files that continue it: the last one takes them.
    fn let_go(&mut self, txid: Txid) -> Option<PageTable> {
        let left = self.continuing.get_mut(&txid)?;
        *left = left.saturating_sub(1);
        let is_last = *left == 0;
        let state = self.states.get_mut(&txid)?;
        if is_last { state.pages.take() } else { state.pages.clone() }
    }

    /// Keeps the state that a file leads to.
    fn arrive(&mut self, file: &FileChanges, pages: Option<PageTable>) -> Result<(), ChainProblem> {
        let txid = file.name.max;
        let is_continued = self.continuing.get(&txid).is_some_and(|left| *left > 0);
        if let Some(state) = self.states.get_mut(&txid) {
            let differs = state.checksum != file.post_apply
                || matches!((&state.pages, &pages), (Some(one), Some(other)) if one != other);
            if is_continued && state.pages.is_none() && !differs {
                state.pages = pages;
            }
            return if differs { Err(ChainProblem::OtherState { txid }) } else { Ok(()) };
        }
        let (checksum, page_size) = (file.post_apply, file.page_size);
        let pages = pages.filter(|_| is_continued);
        self.states.insert(txid, State { checksum, page_size, pages });
        Ok(())
    }
}

/// The state that a file continues; `None` for a snapshot.
fn before(name: FileName) -> Option<Txid> {
    if name.is_snapshot() { None } else { Txid::new(name.min.get() - 1) }
}

#[cfg(test)]
mod tests;
