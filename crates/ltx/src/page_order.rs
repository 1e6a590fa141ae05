//! The rules for the sequence of pages in a file, the same for writing and reading.
//!
//! Invariant: page numbers ascend, none is beyond the end of the database, none is the lock page;
//! a snapshot misses none.

use crate::{Error, Header, Pgno};

/// Follows the pages of one file.
#[derive(Clone, Debug)]
pub(crate) struct PageOrder {
    commit: u32,
    lock_page: Pgno,
    is_snapshot: bool,
    previous: Pgno,
}

impl PageOrder {
    pub(crate) fn new(header: &Header) -> Self {
        Self {
            commit: header.commit,
            lock_page: header.page_size.lock_page(),
            is_snapshot: header.is_snapshot(),
            previous: 0,
        }
    }

    /// The next page is `pgno`.
    pub(crate) fn next(&mut self, pgno: Pgno) -> Result<(), Error> {
        let previous = self.previous;
        let misplaced = |why| Err(Error::PageOutOfPlace { pgno, previous, why });
        if pgno <= previous {
            return misplaced("page numbers must ascend");
        }
        if pgno > self.commit {
            return misplaced("it is beyond the end of the database");
        }
        if pgno == self.lock_page {
            return misplaced("the lock page is never stored");
        }
        if self.is_snapshot && pgno != self.following(previous) {
            return misplaced("a snapshot has all pages");
        }
        self.previous = pgno;
        Ok(())
    }

    /// There are no more pages.
    pub(crate) fn end(&self) -> Result<(), Error> {
        let next = self.following(self.previous);
        if self.is_snapshot && next <= self.commit {
            let why = "a snapshot has all pages";
            return Err(Error::PageOutOfPlace { pgno: next, previous: self.previous, why });
        }
        Ok(())
    }

    fn following(&self, pgno: Pgno) -> Pgno {
        let next = pgno.saturating_add(1);
        if next == self.lock_page { next + 1 } else { next }
    }
}
