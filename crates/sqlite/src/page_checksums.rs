//! One checksum per page of the state that storage has confirmed.
//!
//! They serve two ends: an incremental takes the old checksum of each page it replaces out of the
//! rolling checksum, and a healing comparison finds the pages that changed while nobody watched.
//!
//! Invariant: the table proves itself. The rolling checksum of a database is the XOR of its page
//! checksums, so a table that was torn, or is older or newer than the position beside it, does not
//! add up to the position's checksum and is not used.
//!
//! Format of `pages.crc64`: little-endian `u64` per page from page 1 on, 0 for the lock page. The
//! file belongs to this host, is never uploaded, and may be deleted at the cost of a snapshot.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use walrust_ltx::{Checksum, Pgno};

use crate::DatabaseError;
use crate::database_files::read_up_to;

const ENTRY: u64 = 8;

/// The table of a database, on disk.
#[derive(Debug)]
pub(crate) struct PageChecksums {
    path: PathBuf,
    file: File,
}

impl PageChecksums {
    /// Opens a table, creating an empty one if there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, DatabaseError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(DatabaseError::io("open the page checksums", path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// The checksum of a page; `None` if the table has none.
    pub(crate) fn get(&self, pgno: Pgno) -> Result<Option<Checksum>, DatabaseError> {
        let mut bytes = [0; ENTRY as usize];
        let offset = u64::from(pgno - 1) * ENTRY;
        read_up_to(&self.file, &mut bytes, offset).map_err(self.io("read the page checksums"))?;
        Ok(Checksum::from_raw(u64::from_le_bytes(bytes)))
    }

    /// The checksums of all pages, in order, read in one sweep.
    pub(crate) fn sweep(&self) -> Result<Sweep, DatabaseError> {
        let file = File::open(&self.path).map_err(self.io("open the page checksums"))?;
        Ok(Sweep { entries: BufReader::new(file), path: self.path.clone() })
    }

    /// The rolling checksum that the table adds up to.
    pub(crate) fn rolling(&self) -> Result<Checksum, DatabaseError> {
        let mut rolling = Checksum::EMPTY;
        let mut sweep = self.sweep()?;
        while let Some(entry) = sweep.next_entry()? {
            if let Some(checksum) = entry {
                rolling = rolling.toggle(checksum);
            }
        }
        Ok(rolling)
    }

    /// Sets the checksums of single pages and the number of pages, and writes both through to disk.
    pub(crate) fn apply(
        &self,
        changes: &[(Pgno, Checksum)],
        page_count: u32,
    ) -> Result<(), DatabaseError> {
        let write = || {
            for (pgno, checksum) in changes {
                let offset = u64::from(pgno - 1) * ENTRY;
                self.file.write_all_at(&checksum.raw().to_le_bytes(), offset)?;
            }
            self.file.set_len(u64::from(page_count) * ENTRY)?;
            self.file.sync_data()
        };
        write().map_err(self.io("write the page checksums"))
    }

    fn io(&self, operation: &'static str) -> impl FnOnce(io::Error) -> DatabaseError {
        DatabaseError::io(operation, &self.path)
    }
}

/// Reads a table from its first entry to its last.
#[derive(Debug)]
pub(crate) struct Sweep {
    entries: BufReader<File>,
    path: PathBuf,
}

impl Sweep {
    /// The next entry: outer `None` at the end, inner `None` for a page without a checksum.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Option<Checksum>>, DatabaseError> {
        let mut bytes = [0; ENTRY as usize];
        match self.entries.read_exact(&mut bytes) {
            Ok(()) => Ok(Some(Checksum::from_raw(u64::from_le_bytes(bytes)))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(DatabaseError::io("read the page checksums", &self.path)(error)),
        }
    }
}

/// Writes a whole new table beside the old one.
#[derive(Debug)]
pub(crate) struct NewPageChecksums {
    path: PathBuf,
    entries: BufWriter<File>,
    pages: u32,
}

impl NewPageChecksums {
    pub(crate) fn create(path: &Path) -> Result<Self, DatabaseError> {
        let file =
            File::create(path).map_err(DatabaseError::io("create the page checksums", path))?;
        Ok(Self { path: path.to_owned(), entries: BufWriter::new(file), pages: 0 })
    }

    /// Adds the checksum of a page; pages are added in ascending order.
    pub(crate) fn push(&mut self, pgno: Pgno, checksum: Checksum) -> Result<(), DatabaseError> {
        debug_assert!(pgno > self.pages, "pages are added in ascending order");
        self.pad(pgno - 1)?;
        self.write(checksum.raw())
    }

    /// Ends the table at `page_count` pages and makes it durable.
    pub(crate) fn finish(mut self, page_count: u32) -> Result<(), DatabaseError> {
        self.pad(page_count)?;
        let path = self.path;
        let sync = |entries: BufWriter<File>| entries.into_inner()?.sync_all();
        sync(self.entries).map_err(DatabaseError::io("write the page checksums", &path))
    }

    fn pad(&mut self, pages: u32) -> Result<(), DatabaseError> {
        while self.pages < pages {
            self.write(0)?;
        }
        Ok(())
    }

    fn write(&mut self, entry: u64) -> Result<(), DatabaseError> {
        self.pages += 1;
        self.entries
            .write_all(&entry.to_le_bytes())
            .map_err(DatabaseError::io("write the page checksums", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(pgno: Pgno, fill: u8) -> Checksum {
        Checksum::of_page(pgno, &[fill; 512])
    }

    #[test]
    fn a_table_adds_up_to_the_rolling_checksum_after_changes_and_shrinking() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pages.crc64");
        let mut new = NewPageChecksums::create(&path).unwrap();
        for pgno in [1, 2, 4] {
            new.push(pgno, page(pgno, 1)).unwrap();
        }
        new.finish(4).unwrap();
        let table = PageChecksums::open(&path).unwrap();
        assert_eq!(table.get(2).unwrap(), Some(page(2, 1)));
        assert_eq!(table.get(3).unwrap(), None, "the lock page has none");
        assert_eq!(table.get(9).unwrap(), None, "a page beyond the end has none");
        table.apply(&[(2, page(2, 9)), (6, page(6, 9))], 6).unwrap();
        let all = [page(1, 1), page(2, 9), page(4, 1), page(6, 9)];
        let rolling = all.into_iter().fold(Checksum::EMPTY, Checksum::toggle);
        assert_eq!(table.rolling().unwrap(), rolling);
        table.apply(&[], 2).unwrap();
        let rolling = Checksum::EMPTY.toggle(page(1, 1)).toggle(page(2, 9));
        assert_eq!(table.rolling().unwrap(), rolling);
    }
}
