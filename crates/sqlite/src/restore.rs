//! Rebuilds a database file from a chain of LTX files.
//!
//! Invariant: the output appears under its name only when every file and every link was verified,
//! the rolling checksum of the result is that of the last file, and SQLite's check passed. Until
//! then everything happens in a temporary file beside it, which goes on any error (`output.rs`).
//!
//! The files are applied in order while they stream in. Memory: 8 bytes per page of the database,
//! and buffers of fixed size.

use std::fs::File;
use std::io::{self, BufRead};
use std::path::Path;

use rusqlite::Connection;
use walrust_engine::{MissingPages, PageTable};
use walrust_ltx::{Checksum, Decoder, FileName, Header, Mode, PageSize, Pgno, Txid};

use crate::integrity_check::open_immutable;
use crate::output::Output;
use crate::page_writer::PageWriter;
use crate::scratch_database::ScratchDatabase;
use crate::{Cancellation, IntegrityCheck, RestoreError};

/// A restored database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// TXID of the state.
    pub txid: Txid,
    /// Size of the database in pages.
    pub page_count: u32,
    /// Page size.
    pub page_size: PageSize,
    /// Rolling checksum of all pages.
    pub checksum: Checksum,
    /// Timestamp of the last file, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

/// A database that is being rebuilt.
#[derive(Debug)]
pub struct Restore {
    destination: Destination,
    mode: Mode,
    image: Option<Image>,
    pages: PageWriter,
    cancellation: Cancellation,
}

/// Where the database is rebuilt.
#[derive(Debug)]
enum Destination {
    Output(Output),
    Scratch(ScratchDatabase),
}

/// What the files so far add up to.
#[derive(Debug)]
struct Image {
    header: Header,
    /// The pages that the temporary file has.
    pages: PageTable,
    last_file: String,
}

impl Restore {
    /// Begins a restore to `output`; the directories above it are created.
    ///
    /// # Errors
    /// If the output is in the way and `force` is false, or the temporary file cannot be created.
    pub fn begin(output: &Path, force: bool, mode: Mode) -> Result<Self, RestoreError> {
        Ok(Self::to(Destination::Output(Output::begin(output, force)?), mode))
    }

    /// Begins a restore whose result is only looked at, in a directory for temporary files.
    ///
    /// # Errors
    /// If no file can be created there.
    pub fn begin_scratch(directory: &Path, mode: Mode) -> Result<Self, RestoreError> {
        let scratch = ScratchDatabase::create(directory)
            .map_err(RestoreError::io("create a temporary file in", directory))?;
        Ok(Self::to(Destination::Scratch(scratch), mode))
    }

    fn to(destination: Destination, mode: Mode) -> Self {
        let (pages, cancellation) = (PageWriter::default(), Cancellation::default());
        Self { destination, mode, image: None, pages, cancellation }
    }

    /// Has the restore fail when nobody waits for it any more.
    #[must_use]
    pub fn cancelled_by(self, cancellation: Cancellation) -> Self {
        Self { cancellation, ..self }
    }

    /// Applies the next file of the chain. `file` is its key, for messages.
    ///
    /// # Errors
    /// If the file is damaged, is not the one its name promises, or does not continue the chain.
    pub fn apply(
        &mut self,
        file: &str,
        name: FileName,
        input: impl BufRead,
    ) -> Result<(), RestoreError> {
        let damaged = |source| RestoreError::Damaged { file: file.to_owned(), source };
        let mut decoder = Decoder::new(input, self.mode).map_err(damaged)?;
        let header = decoder.header().clone();
        if (header.min_txid, header.max_txid) != (name.min, name.max) {
            return Err(RestoreError::WrongRange {
                file: file.to_owned(),
                name,
                min: header.min_txid,
                max: header.max_txid,
            });
        }
        let mut image = match self.image.take() {
            Some(image) => image.continued_by(file, header)?,
            None => Image::started_by(file, header)?,
        };
        image.shrink(self.destination.file(), self.destination.path())?;
        let (file, page_size) = (self.destination.file(), image.header.page_size.bytes());
        let write_error = || RestoreError::io("write", self.destination.path());
        loop {
            let page = self.pages.place(file, page_size).map_err(write_error())?;
            let Some(pgno) = decoder.next_page(page).map_err(damaged)? else { break };
            image.set(pgno, Checksum::of_page(pgno, page))?;
            self.pages.placed(file, page_size, pgno).map_err(write_error())?;
        }
        self.pages.flush(file).map_err(write_error())?;
        let trailer = decoder.finish().map_err(damaged)?;
        image.check(trailer.post_apply)?;
        self.image = Some(image);
        Ok(())
    }

    /// Checks the result and gives it its name.
    ///
    /// # Errors
    /// If SQLite finds faults, or the output cannot be written. The output is untouched then.
    pub fn finish(self, check: IntegrityCheck) -> Result<Restored, RestoreError> {
        let Self { destination, image, pages, cancellation, .. } = self;
        let path = destination.path();
        let Some(image) = image else {
            return Err(RestoreError::NoPages { file: path.display().to_string() });
        };
        if image.header.commit == 0 {
            return Err(RestoreError::NoPages { file: image.last_file });
        }
        let file = destination.file();
        file.set_len(u64::from(image.header.commit) * u64::from(image.header.page_size.get()))
            .map_err(RestoreError::io("resize", path))?;
        check.run(|| destination.open(), &cancellation)?;
        let synced = pages.finish().and_then(|()| destination.sync());
        synced.map_err(RestoreError::io("sync", path))?;
        if !cancellation.commit() {
            return Err(RestoreError::Cancelled);
        }
        if let Destination::Output(output) = destination {
            output.publish()?;
        }
        Ok(Restored {
            txid: image.header.max_txid,
            page_count: image.header.commit,
            page_size: image.header.page_size,
            checksum: image.pages.rolling(),
            timestamp_ms: image.header.timestamp_ms,
        })
    }
}

impl Destination {
    fn file(&self) -> &File {
        match self {
            Self::Output(output) => output.file(),
            Self::Scratch(scratch) => scratch.file(),
        }
    }

    /// Where the file is now.
    fn path(&self) -> &Path {
        match self {
            Self::Output(output) => output.temporary_path(),
            Self::Scratch(scratch) => scratch.path(),
        }
    }

    /// Opens the database for SQLite's check.
    fn open(&self) -> rusqlite::Result<Connection> {
        match self {
            Self::Output(output) => open_immutable(output.temporary_path()),
            Self::Scratch(scratch) => scratch.open(),
        }
    }

    /// Brings the file to the disk if it is going to stay.
    fn sync(&self) -> io::Result<()> {
        match self {
            Self::Output(output) => output.file().sync_all(),
            Self::Scratch(_) => Ok(()),
        }
    }
}

impl Image {
    fn started_by(file: &str, header: Header) -> Result<Self, RestoreError> {
        if !header.is_snapshot() {
            return Err(broken(file, "the first file is not a snapshot".to_owned()));
        }
        let pages = PageTable::new(header.page_size);
        Ok(Self { header, pages, last_file: file.to_owned() })
    }

    fn continued_by(mut self, file: &str, header: Header) -> Result<Self, RestoreError> {
        let expected = self.header.max_txid.next();
        let follows = if header.tracking {
            header.min_txid == expected
        } else {
            // Litestream's merged files may repeat what was applied already.
            header.min_txid <= expected && header.max_txid > self.header.max_txid
        };
        if !follows {
            let what = format!("it begins at TXID {}, expected is {expected}", header.min_txid);
            return Err(broken(file, what));
        }
        if header.page_size != self.header.page_size {
            let what = format!(
                "its page size is {}, that of the chain {}",
                header.page_size.get(),
                self.header.page_size.get()
            );
            return Err(broken(file, what));
        }
        if let Some(pre_apply) = header.pre_apply
            && pre_apply != self.pages.rolling()
        {
            let what = format!(
                "it continues a database with checksum {pre_apply}, this one has {}",
                self.pages.rolling()
            );
            return Err(broken(file, what));
        }
        self.header = header;
        file.clone_into(&mut self.last_file);
        Ok(self)
    }

    /// Begins the new state, without pages past its end.
    fn shrink(&mut self, out: &File, path: &Path) -> Result<(), RestoreError> {
        if !self.pages.begin(self.header.commit) {
            return Ok(());
        }
        let length = u64::from(self.header.commit) * u64::from(self.header.page_size.get());
        let truncate = || -> io::Result<()> {
            if out.metadata()?.len() > length { out.set_len(length) } else { Ok(()) }
        };
        truncate().map_err(RestoreError::io("resize", path))
    }

    fn set(&mut self, pgno: Pgno, checksum: Checksum) -> Result<(), RestoreError> {
        self.pages.set(pgno, checksum).map_err(|missing| self.missing_pages(missing))
    }

    fn check(&mut self, post_apply: Option<Checksum>) -> Result<(), RestoreError> {
        let rolling = self.pages.end().map_err(|missing| self.missing_pages(missing))?;
        if let Some(post_apply) = post_apply
            && post_apply != rolling
        {
            let what = format!(
                "after it the database should have checksum {post_apply}, it has {rolling}"
            );
            return Err(broken(&self.last_file, what));
        }
        Ok(())
    }

    fn missing_pages(&self, missing: MissingPages) -> RestoreError {
        let MissingPages { commit, missing } = missing;
        RestoreError::MissingPages { file: self.last_file.clone(), commit, missing }
    }
}

fn broken(file: &str, what: String) -> RestoreError {
    RestoreError::BrokenLink { file: file.to_owned(), what }
}
