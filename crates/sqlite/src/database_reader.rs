//! Reads one state of a database page for page, behind a pin.
//!
//! Invariant: whatever is read through a [`Generation`] is the state of the wal-index it was made
//! from. Each operation checks at its end that the WAL has not restarted meanwhile and otherwise
//! yields `None`, so that the caller looks again.
//!
//! Dropping order: connections go before the descriptors of the files.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use walrust_engine::WalPosition;
use walrust_ltx::{Header, PageSize};
use walrust_wal::{Committed, WalChecksum, WalIndex};

use crate::DatabaseError;
use crate::connection;
use crate::connection_pin::ConnectionPin;
use crate::database_files::{DatabaseFiles, open_database, read_header};
use crate::detached_pin::{DetachedPin, lock_database, lock_wal_index};
use crate::page_checksums::NewPageChecksums;
use crate::page_view::PageView;
use crate::pin::{Pin, WalPin};
use crate::staging::StagedFile;
use crate::wal_source::{WalRead, read_frames};

/// How often something starts over when the WAL restarts under it. Under a pin that happens at
/// most once; the rest is for writers that replace the files.
pub(crate) const ATTEMPTS: usize = 4;

/// A database that can be read.
#[derive(Debug)]
pub(crate) struct DatabaseReader {
    pub(crate) pin: Pin,
    /// Shared with snapshots that are being read.
    pub(crate) files: Arc<DatabaseFiles>,
    pub(crate) page_size: PageSize,
}

/// The whole WAL up to one commit: what it holds, and the size of the database there.
#[derive(Debug)]
pub(crate) struct Generation {
    /// `None` if all pages are read from the database file.
    wal: Option<File>,
    frames: Committed,
    pub(crate) page_count: u32,
    index: WalIndex,
}

impl DatabaseReader {
    /// Opens a database in WAL mode, whose path has no symbolic links, and pins its WAL.
    /// `captured` is where the captured part of the WAL ends.
    pub(crate) fn open(
        path: &Path,
        wal_pin: WalPin,
        captured: Option<&WalPosition>,
    ) -> Result<Self, DatabaseError> {
        let database = open_database(path)?;
        let header = read_header(path, &database)?;
        let page_size = PageSize::try_from(header.page_size).map_err(|error| {
            DatabaseError::Unsupported { path: path.to_owned(), what: error.to_string() }
        })?;
        let detached = wal_pin != WalPin::Connection && lock_database(path, &database)?;
        if wal_pin == WalPin::Detached && !detached {
            return Err(DatabaseError::NoDetachedPin { path: path.to_owned() });
        }
        // Builds the wal-index if nobody has the database open, and keeps it until it is locked.
        let first = connection::open(path)?;
        connection::begin_read(&first)
            .map_err(DatabaseError::sqlite("begin a read transaction", path))?;
        let files = Arc::new(DatabaseFiles::new(path, database)?);
        let mut pin = if detached {
            lock_wal_index(&files)?;
            Pin::Detached(DetachedPin::default())
        } else {
            Pin::Connection(ConnectionPin::open(path)?)
        };
        pin.hold(&files, captured)?;
        Ok(Self { pin, files, page_size })
    }

    /// Reads the WAL from its start to the last commit of `index`.
    pub(crate) fn read_generation(
        &self,
        index: &WalIndex,
    ) -> Result<Option<Generation>, DatabaseError> {
        let wal = self.files.open_wal()?;
        let frames = match &wal {
            Some(wal) if index.header.mx_frame > 0 => {
                let salts = index.header.salts;
                match read_frames(&self.files, wal, salts, None, index.header.mx_frame)? {
                    WalRead::Complete(frames) => frames,
                    WalRead::Restarted => return Ok(None),
                }
            }
            None if index.header.mx_frame > 0 => return Ok(None),
            _ => empty_wal(),
        };
        let page_count = match frames.page_count {
            Some(page_count) => page_count,
            None => self.pages_in_file()?,
        };
        if page_count == 0 {
            return Err(DatabaseError::Empty { path: self.files.path().to_owned() });
        }
        Ok(Some(Generation { wal, frames, page_count, index: *index }))
    }

    /// The pages of a state.
    pub(crate) fn view<'a>(&'a self, generation: &'a Generation) -> PageView<'a> {
        generation.view(&self.files, self.page_size)
    }

    /// Whether the WAL still is the generation that was read.
    pub(crate) fn is_current(&self, generation: &Generation) -> Result<bool, DatabaseError> {
        self.is_current_index(&generation.index)
    }

    /// Whether the WAL still is the generation of `index`.
    pub(crate) fn is_current_index(&self, index: &WalIndex) -> Result<bool, DatabaseError> {
        Ok(self.files.wal_index()?.header.salts == index.header.salts)
    }

    /// Writes all pages of a state into one file in `staging`, and their checksums into `table`.
    pub(crate) fn stage_all_pages(
        &self,
        staging: &Path,
        generation: &Generation,
        header: Header,
        table: Option<&mut NewPageChecksums>,
    ) -> Result<Option<StagedFile>, DatabaseError> {
        let view = self.view(generation);
        let Some((writer, rolling)) = view.write_all(staging, header, table, || true)? else {
            return Ok(None);
        };
        if !self.is_current(generation)? {
            writer.discard()?;
            return Ok(None);
        }
        writer.finish(rolling).map(Some)
    }

    /// The error of an operation that started over too often.
    pub(crate) fn unstable(&self) -> DatabaseError {
        DatabaseError::Unstable { path: self.files.wal_path().to_owned() }
    }

    fn pages_in_file(&self) -> Result<u32, DatabaseError> {
        let pages = self.files.database_size()?.div_ceil(u64::from(self.page_size.get()));
        u32::try_from(pages).map_err(|_| DatabaseError::Unsupported {
            path: self.files.path().to_owned(),
            what: format!("{pages} pages are more than SQLite can have"),
        })
    }
}

impl Generation {
    /// The pages of the state.
    pub(crate) fn view<'a>(
        &'a self,
        files: &'a DatabaseFiles,
        page_size: PageSize,
    ) -> PageView<'a> {
        PageView {
            files,
            wal: self.wal.as_ref(),
            pages: &self.frames.pages,
            page_size,
            page_count: self.page_count,
        }
    }

    /// The same state, read from the database file alone if that has all of it: then it does not
    /// matter whether the WAL restarts.
    pub(crate) fn without_wal_if_copied(mut self) -> Self {
        if self.index.backfilled == self.index.header.mx_frame {
            self.wal = None;
        }
        self
    }

    /// Whether the files still hold the state, as far as can be seen.
    pub(crate) fn is_readable(&self, files: &DatabaseFiles) -> Result<bool, DatabaseError> {
        Ok(self.wal.is_none() || files.wal_index()?.header.salts == self.index.header.salts)
    }

    /// Where the state ends in the WAL.
    pub(crate) fn wal_position(&self) -> WalPosition {
        wal_position(&self.index, &self.frames)
    }
}

/// Where some frames end.
pub(crate) fn wal_position(index: &WalIndex, frames: &Committed) -> WalPosition {
    WalPosition { salts: index.header.salts, frames: frames.frames, checksum: frames.checksum }
}

/// Takes a page that was missing in the WAL for what it is: under read lock 0 others may truncate
/// the WAL while it is read, and all of it is in the database file then.
pub(crate) fn unless_truncated<T>(
    result: Result<Option<T>, DatabaseError>,
) -> Result<Option<T>, DatabaseError> {
    match result {
        Err(DatabaseError::Unstable { .. }) => Ok(None),
        result => result,
    }
}

fn empty_wal() -> Committed {
    Committed {
        frames: 0,
        checksum: WalChecksum::default(),
        commits: 0,
        page_count: None,
        smallest_page_count: None,
        pages: BTreeMap::new(),
    }
}
