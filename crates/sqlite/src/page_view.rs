//! The database as it was at one commit: the database file overlaid with pages of the WAL.
//!
//! Invariant: while the pin that was held when the view was made is still held, and the WAL has
//! not restarted since, every page reads as it was at that commit. Checkpoints of others write
//! only pages whose newest version the view takes from the WAL anyway.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use walrust_ltx::{Checksum, Header, PageSize, Pgno};
use walrust_wal::{FrameHeader, frame_offset};

use crate::DatabaseError;
use crate::database_files::{DatabaseFiles, read_up_to};
use crate::page_checksums::NewPageChecksums;
use crate::staging::StagedWriter;

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

    /// Reads a page of the database file. A page beyond the end of the file was allocated and
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

    /// Writes all pages into a file in `staging`, which is complete but for its end, and their
    /// checksums into `table`; returns the rolling checksum as well. `None` if `go_on` said no.
    pub(crate) fn write_all(
        &self,
        staging: &Path,
        header: Header,
        table: Option<&mut NewPageChecksums>,
        go_on: impl Fn() -> bool,
    ) -> Result<Option<(StagedWriter, Checksum)>, DatabaseError> {
        let mut writer = StagedWriter::create(staging, header)?;
        match self.write_pages(&mut writer, table, go_on) {
            Ok(Some(rolling)) => Ok(Some((writer, rolling))),
            Ok(None) => writer.discard().map(|()| None),
            Err(error) => {
                // The disk may be full because of it.
                if let Err(discard) = writer.discard() {
                    tracing::warn!(error = %discard, "a file that nobody needs stays behind");
                }
                Err(error)
            }
        }
    }

    fn write_pages(
        &self,
        writer: &mut StagedWriter,
        mut table: Option<&mut NewPageChecksums>,
        go_on: impl Fn() -> bool,
    ) -> Result<Option<Checksum>, DatabaseError> {
        let mut rolling = Checksum::EMPTY;
        let mut page = vec![0; self.page_size.bytes()];
        for pgno in self.pgnos() {
            if !go_on() {
                return Ok(None);
            }
            self.read(pgno, &mut page)?;
            let checksum = writer.page(pgno, &page)?;
            rolling = rolling.toggle(checksum);
            if let Some(table) = table.as_deref_mut() {
                table.push(pgno, checksum)?;
            }
        }
        Ok(Some(rolling))
    }
}
