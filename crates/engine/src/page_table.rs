//! One checksum for each page of a database, while the files of a chain are put on top of each other.
//!
//! Invariant: after [`PageTable::end`] every page up to the end of the database is known, and the
//! rolling checksum is the XOR of what is known (`ltx-format`, "rolling checksum"). The table grows
//! with the pages that arrive, never with what a header claims.

use walrust_ltx::{Checksum, PageSize, Pgno};

/// The pages of one state. 8 bytes of memory for each.
#[derive(Clone, Debug)]
pub struct PageTable {
    page_size: PageSize,
    /// Pages that the state has.
    commit: u32,
    /// Raw checksums from page 1 on; 0 for the lock page, which is never stored.
    checksums: Vec<u64>,
    rolling: Checksum,
}

/// Pages of a state were in no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the database has {commit} pages, but up to {missing} of them are in no file")]
pub struct MissingPages {
    /// Size of the database in pages.
    pub commit: u32,
    /// How many at its end are missing, as far as is known.
    pub missing: u32,
}

impl PageTable {
    /// A database without pages.
    #[must_use]
    pub fn new(page_size: PageSize) -> Self {
        Self { page_size, commit: 0, checksums: Vec::new(), rolling: Checksum::EMPTY }
    }

    /// Page size of the database.
    #[must_use]
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Size of the database in pages.
    #[must_use]
    pub fn commit(&self) -> u32 {
        self.commit
    }

    /// Rolling checksum of all pages.
    #[must_use]
    pub fn rolling(&self) -> Checksum {
        self.rolling
    }

    /// Begins a state of `commit` pages, and forgets pages past its end: should the database grow
    /// again, they must come from a file. Whether there were any.
    pub fn begin(&mut self, commit: u32) -> bool {
        self.commit = commit;
        if commit as usize >= self.checksums.len() {
            return false;
        }
        for checksum in self.checksums.drain(commit as usize..).filter_map(Checksum::from_raw) {
            self.rolling = self.rolling.toggle(checksum);
        }
        true
    }

    /// Sets the checksum of a page, which must be one that is known or the next one.
    ///
    /// # Errors
    /// If pages before it are missing.
    pub fn set(&mut self, pgno: Pgno, checksum: Checksum) -> Result<(), MissingPages> {
        self.pass_lock_page();
        let index = (pgno as usize).checked_sub(1).ok_or_else(|| self.missing())?;
        if index == self.checksums.len() {
            self.checksums.push(0);
        }
        let Some(slot) = self.checksums.get_mut(index) else { return Err(self.missing()) };
        if let Some(old) = Checksum::from_raw(std::mem::replace(slot, checksum.raw())) {
            self.rolling = self.rolling.toggle(old);
        }
        self.rolling = self.rolling.toggle(checksum);
        Ok(())
    }

    /// Ends a state: all its pages must be known now. Returns its rolling checksum.
    ///
    /// # Errors
    /// If pages at its end are missing.
    pub fn end(&mut self) -> Result<Checksum, MissingPages> {
        if self.checksums.len() < self.commit as usize {
            self.pass_lock_page();
        }
        match self.checksums.len() == self.commit as usize {
            true => Ok(self.rolling),
            false => Err(self.missing()),
        }
    }

    /// Makes room for the lock page where it is the next one.
    fn pass_lock_page(&mut self) {
        if self.checksums.len() + 1 == self.page_size.lock_page() as usize {
            self.checksums.push(0);
        }
    }

    fn missing(&self) -> MissingPages {
        let known = u32::try_from(self.checksums.len()).unwrap_or(u32::MAX);
        MissingPages { commit: self.commit, missing: self.commit.saturating_sub(known) }
    }
}

impl PartialEq for PageTable {
    /// Whether both are the same database.
    fn eq(&self, other: &Self) -> bool {
        (self.page_size, self.rolling) == (other.page_size, other.rolling)
            && self.checksums == other.checksums
    }
}

impl Eq for PageTable {}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(seed: u64) -> Checksum {
        Checksum::from_raw(seed | 1 << 63).unwrap()
    }

    fn table(pages: &[u64]) -> PageTable {
        let mut table = PageTable::new(PageSize::ALL[0]);
        table.begin(u32::try_from(pages.len()).unwrap());
        for (index, seed) in pages.iter().enumerate() {
            table.set(u32::try_from(index).unwrap() + 1, checksum(*seed)).unwrap();
        }
        table.end().unwrap();
        table
    }

    #[test]
    fn the_rolling_checksum_does_not_depend_on_the_way() {
        let mut other = table(&[1, 2, 3]);
        assert!(other.begin(2));
        other.set(1, checksum(7)).unwrap();
        assert_eq!(other.end().unwrap(), table(&[7, 2]).rolling());
        assert_eq!(other, table(&[7, 2]));
        assert_ne!(other, table(&[2, 7]), "the same checksum, other pages");
    }

    #[test]
    fn pages_that_no_file_has_are_missed() {
        let mut table = table(&[1, 2]);
        table.begin(4);
        assert_eq!(table.set(4, checksum(4)), Err(MissingPages { commit: 4, missing: 2 }));
        table.set(3, checksum(3)).unwrap();
        assert_eq!(table.end(), Err(MissingPages { commit: 4, missing: 1 }));
        assert_eq!(table.set(0, checksum(1)), Err(MissingPages { commit: 4, missing: 1 }));
    }

    #[test]
    fn pages_past_the_end_do_not_come_back() {
        let mut table = table(&[1, 2, 3]);
        table.begin(1);
        table.end().unwrap();
        table.begin(3);
        assert_eq!(table.end(), Err(MissingPages { commit: 3, missing: 2 }));
    }
}
