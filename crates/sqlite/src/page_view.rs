//! The database as it was at one commit: the database file overlaid with pages of the WAL.
//!
//! Invariant: while the pin that was held when the view was made is still held, and the WAL has
//! not restarted since, every page reads as it was at that commit. Checkpoints of others write
//! only pages whose newest version the view takes from the WAL anyway.

use std::collections::BTreeMap;
use std::fs::File;

use walrust_ltx::{PageSize, Pgno};
use walrust_wal::{FrameHeader, frame_offset};

use crate::DatabaseError;
use crate::database_files::{DatabaseFiles, read_up_to};

/// A readable state of a database.
#[derive(Debug)]
pub(crate) struct PageView<'a> {
    pub(crate) files: &'a DatabaseFiles,
    pub(crate) wal: Option<&'a File>,
    /// For each page in the WAL the 0-based index of its newest frame.
    pub(crate) pages: &'a BTreeMap<Pgno, u32>,
    pub(crate) page_size: PageSize,
    pub(crate) page_count: u32,
}

impl PageView<'_> {
    /// Reads one page into `page`, which has the length of a page.
    pub(crate) fn read(&self, pgno: Pgno, page: &mut [u8]) -> Result<(), DatabaseError> {
        match (self.pages.get(&pgno), self.wal) {
            (Some(frame), Some(wal)) => {
                let offset = frame_offset(self.page_size.get(), *frame) + FrameHeader::SIZE as u64;
                let length = read_up_to(wal, page, offset)
                    .map_err(DatabaseError::io("read the WAL", self.files.wal_path()))?;
                if length == page.len() {
                    return Ok(());
                }
                Err(DatabaseError::Unstable { path: self.files.wal_path().to_owned() })
            }
            _ => self.read_database(pgno, page),
        }
    }

    /// Reads a page of the database file. A page behind the end of the file was allocated and
    /// never written; SQLite reads it as zeros.
    fn read_database(&self, pgno: Pgno, page: &mut [u8]) -> Result<(), DatabaseError> {
        let offset = u64::from(pgno - 1) * page.len() as u64;
        let length = read_up_to(self.files.database(), page, offset)
            .map_err(DatabaseError::io("read the database", self.files.path()))?;
        page[length..].fill(0);
        Ok(())
    }

    /// All page numbers of the state but the lock page, ascending.
    pub(crate) fn pgnos(&self) -> impl Iterator<Item = Pgno> + use<> {
        let lock_page = self.page_size.lock_page();
        (1..=self.page_count).filter(move |pgno| *pgno != lock_page)
    }
}
