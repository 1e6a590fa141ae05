//! What a replica becomes next: an LTX file that continues it, or a whole database.
//!
//! Invariant: an [`Incoming`] was read to its end and verified: an LTX file by its own checksum, a
//! database by the rolling checksum of its pages. Whether it fits the replica is asked apart, and
//! before the replica changes.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use walrust_ltx::{Checksum, Decoder, FileName, Header, Mode, Pgno};

use crate::database_files::read_up_to;
use crate::page_checksums::PageChecksums;
use crate::replica_directory::ReplicaState;
use crate::{DatabaseError, ReplicaError, RestoreError};

/// Pages on their way into a replica.
#[derive(Debug)]
pub(crate) struct Incoming {
    path: PathBuf,
    /// What it is called in messages: the key of the object, or the path.
    name: String,
    /// The header, if it is an LTX file.
    header: Option<Header>,
    /// Its pages with their checksums, ascending.
    pages: Vec<(Pgno, Checksum)>,
    /// The state that it leads to.
    pub(crate) state: ReplicaState,
}

impl Incoming {
    /// Reads an LTX file that is to lead on from `from`.
    pub(crate) fn read_file(
        path: &Path,
        name: &str,
        from: &ReplicaState,
    ) -> Result<Self, ReplicaError> {
        let damaged = |source| RestoreError::Damaged { file: name.to_owned(), source };
        let mut decoder = open_ltx(path)?.map_err(damaged)?;
        let header = decoder.header().clone();
        let mut pages = Vec::new();
        let mut page = vec![0; header.page_size.bytes()];
        while let Some(pgno) = decoder.next_page(&mut page).map_err(damaged)? {
            pages.push((pgno, Checksum::of_page(pgno, &page)));
        }
        let trailer = decoder.finish().map_err(damaged)?;
        let Some(checksum) = trailer.post_apply else {
            return Err(broken(name, "it carries no checksums of the database".to_owned()));
        };
        if header.commit == 0 {
            return Err(RestoreError::NoPages { file: name.to_owned() }.into());
        }
        let state = ReplicaState {
            source: from.source.clone(),
            txid: header.max_txid,
            checksum,
            page_size: header.page_size,
            page_count: header.commit,
            timestamp_ms: header.timestamp_ms,
            lineage: from.lineage.clone(),
        };
        Ok(Self {
            path: path.to_owned(),
            name: name.to_owned(),
            header: Some(header),
            pages,
            state,
        })
    }

    /// Reads a database that nobody has open, and which is in `state`.
    pub(crate) fn read_database(path: &Path, state: ReplicaState) -> Result<Self, ReplicaError> {
        let name = path.display().to_string();
        let mut incoming =
            Self { path: path.to_owned(), name, header: None, pages: Vec::new(), state };
        let (mut pages, mut rolling) = (Vec::new(), Checksum::EMPTY);
        incoming.each_database_page(&mut |pgno, page| {
            let checksum = Checksum::of_page(pgno, page);
            rolling = rolling.toggle(checksum);
            pages.push((pgno, checksum));
            Ok(())
        })?;
        if rolling != incoming.state.checksum {
            let what = format!(
                "the database should have checksum {}, it has {rolling}",
                incoming.state.checksum
            );
            return Err(broken(&incoming.name, what));
        }
        incoming.pages = pages;
        Ok(incoming)
    }

    /// Whether it is an LTX file, which holds only what changes.
    pub(crate) fn is_file(&self) -> bool {
        self.header.is_some()
    }

    /// The pages with their checksums, ascending.
    pub(crate) fn pages(&self) -> &[(Pgno, Checksum)] {
        &self.pages
    }

    /// The checksum that a page gets; `None` if it stays.
    pub(crate) fn checksum(&self, pgno: Pgno) -> Option<Checksum> {
        let found = self.pages.binary_search_by_key(&pgno, |(pgno, _)| *pgno).ok()?;
        Some(self.pages[found].1)
    }

    /// Makes sure that an LTX file is the one that its name promises.
    pub(crate) fn check_name(&self, name: FileName) -> Result<(), RestoreError> {
        match self.header.as_ref().map(Header::file_name) {
            Some(FileName { min, max }) if (min, max) != (name.min, name.max) => {
                Err(RestoreError::WrongRange { file: self.name.clone(), name, min, max })
            }
            _ => Ok(()),
        }
    }

    /// Gives the file its last name, under which it counts as verified.
    pub(crate) fn move_to(&mut self, path: &Path) -> Result<(), DatabaseError> {
        fs::rename(&self.path, path).map_err(DatabaseError::io("rename", &self.path))?;
        path.clone_into(&mut self.path);
        Ok(())
    }

    /// Makes sure that an LTX file leads from one state, whose pages have the checksums of `table`,
    /// to its own.
    ///
    /// A file that begins before the end of the state, as merged ones do, has no pre-apply checksum
    /// to compare; whether it fits is told by the checksum after it.
    pub(crate) fn check_continues(
        &self,
        from: &ReplicaState,
        table: &PageChecksums,
    ) -> Result<(), ReplicaError> {
        let Some(header) = &self.header else { return Ok(()) };
        let next = from.txid.next();
        if header.min_txid > next || header.max_txid <= from.txid || header.is_snapshot() {
            let what = format!("it begins at TXID {}, expected is {next}", header.min_txid);
            return Err(broken(&self.name, what));
        }
        if header.page_size != from.page_size {
            let (new, old) = (header.page_size.get(), from.page_size.get());
            let what = format!("its page size is {new}, that of the replica {old}");
            return Err(broken(&self.name, what));
        }
        if header.min_txid == next && header.pre_apply != Some(from.checksum) {
            let pre_apply = header.pre_apply.map_or("none".to_owned(), |sum| sum.to_string());
            let what = format!(
                "it continues a database with checksum {pre_apply}, the replica has {}",
                from.checksum
            );
            return Err(broken(&self.name, what));
        }
        if self.pages.is_empty() && header.commit != from.page_count {
            let what = "it changes the size of the database and no page".to_owned();
            return Err(broken(&self.name, what));
        }
        let rolling = self.rolling_after(from, table)?;
        if rolling != self.state.checksum {
            let what = format!(
                "after it the database should have checksum {}, the replica would have {rolling}",
                self.state.checksum
            );
            return Err(broken(&self.name, what));
        }
        Ok(())
    }

    /// The rolling checksum of the replica with these pages.
    fn rolling_after(
        &self,
        from: &ReplicaState,
        table: &PageChecksums,
    ) -> Result<Checksum, ReplicaError> {
        let commit = self.state.page_count;
        let mut rolling = from.checksum;
        let mut remove = |pgno| -> Result<(), DatabaseError> {
            if let Some(old) = table.get(pgno)? {
                rolling = rolling.toggle(old);
            }
            Ok(())
        };
        for pgno in commit.saturating_add(1)..=from.page_count {
            remove(pgno)?;
        }
        for (pgno, _) in self.pages.iter().filter(|(pgno, _)| *pgno <= from.page_count) {
            remove(*pgno)?;
        }
        let lock_page = self.state.page_size.lock_page();
        let new = from.page_count.saturating_add(1)..=commit;
        let wanted = commit.saturating_sub(from.page_count) - u32::from(new.contains(&lock_page));
        let found = self.pages.iter().filter(|(pgno, _)| new.contains(pgno)).count();
        let missing = wanted - u32::try_from(found).expect("a file has each page once");
        if missing > 0 {
            return Err(
                RestoreError::MissingPages { file: self.name.clone(), commit, missing }.into()
            );
        }
        Ok(self.pages.iter().fold(rolling, |rolling, (_, checksum)| rolling.toggle(*checksum)))
    }

    /// Reads all pages once more, ascending.
    pub(crate) fn each_page(
        &self,
        mut take: impl FnMut(Pgno, &[u8]) -> Result<(), ReplicaError>,
    ) -> Result<(), ReplicaError> {
        if self.header.is_none() {
            return self.each_database_page(&mut take);
        }
        let damaged = |source| RestoreError::Damaged { file: self.name.clone(), source };
        let mut decoder = open_ltx(&self.path)?.map_err(damaged)?;
        let mut page = vec![0; self.state.page_size.bytes()];
        while let Some(pgno) = decoder.next_page(&mut page).map_err(damaged)? {
            take(pgno, &page)?;
        }
        Ok(())
    }

    fn each_database_page(&self, take: &mut TakePage<'_>) -> Result<(), ReplicaError> {
        let file = File::open(&self.path).map_err(DatabaseError::io("open", &self.path))?;
        let mut page = vec![0; self.state.page_size.bytes()];
        let lock_page = self.state.page_size.lock_page();
        for pgno in (1..=self.state.page_count).filter(|pgno| *pgno != lock_page) {
            let offset = u64::from(pgno - 1) * page.len() as u64;
            let length = read_up_to(&file, &mut page, offset)
                .map_err(DatabaseError::io("read", &self.path))?;
            page[length..].fill(0);
            take(pgno, &page)?;
        }
        Ok(())
    }
}

/// Takes a page, or fails and ends the reading.
type TakePage<'a> = dyn FnMut(Pgno, &[u8]) -> Result<(), ReplicaError> + 'a;

type LtxFile = Decoder<BufReader<File>>;

fn open_ltx(path: &Path) -> Result<Result<LtxFile, walrust_ltx::Error>, DatabaseError> {
    let file = File::open(path).map_err(DatabaseError::io("open", path))?;
    Ok(Decoder::new(BufReader::new(file), Mode::Strict))
}

fn broken(file: &str, what: String) -> ReplicaError {
    RestoreError::BrokenLink { file: file.to_owned(), what }.into()
}
