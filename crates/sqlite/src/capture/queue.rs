//! The files that are staged and not confirmed by storage yet, oldest first.
//!
//! Invariant: they continue one another, and the first continues the confirmed position. A file
//! that a crash left behind is taken up again only if it proves that it does: it decodes without a
//! fault, its links fit, and the checksums of its pages add up to the state it claims to lead to.
//! Everything from the first file on that fails is given up and made again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::Path;

use walrust_engine::{Position, WalPosition};
use walrust_ltx::{Checksum, Decoder, FileName, Mode, Pgno, Txid};

use crate::DatabaseError;
use crate::page_checksums::{NewPageChecksums, PageChecksums};
use crate::staging::{StagedFile, merge_staged, read_note, sha256_of, staged_names};
use crate::state_directory::StateDirectory;

/// A staged file and the position that its confirmation leads to.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) file: StagedFile,
    pub(super) next: Position,
    pub(super) changes: Changes,
    /// Whether the file survives a loss of power.
    pub(super) durable: bool,
}

/// How the table of page checksums changes with a file.
#[derive(Debug)]
pub(super) enum Changes {
    /// These pages, ascending.
    Pages(Vec<(Pgno, Checksum)>),
    /// The whole table at [`StateDirectory::new_table_path`].
    NewTable,
}

/// What the queue knows of a page.
pub(super) enum Lookup {
    /// Its checksum in the newest staged state, if it exists there.
    Known(Option<Checksum>),
    /// What the base table says.
    AsBefore,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct StagedQueue(VecDeque<Staged>);

impl StagedQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, staged: Staged) {
        self.0.push_back(staged);
    }

    pub(super) fn front(&self) -> Option<&Staged> {
        self.0.front()
    }

    pub(super) fn pop_front(&mut self) -> Option<Staged> {
        let first = self.0.pop_front();
        if self.0.is_empty() {
            // Most databases are idle most of the time, and there are many.
            self.0.shrink_to_fit();
        }
        first
    }

    /// The staged files.
    pub(super) fn files(&self) -> impl Iterator<Item = &StagedFile> {
        self.0.iter().map(|staged| &staged.file)
    }

    /// The state after the last staged file.
    pub(super) fn captured(&self) -> Option<&Position> {
        self.0.back().map(|staged| &staged.next)
    }

    /// Number of files up to the one that leads to a state, if there is one.
    pub(super) fn reaching(&self, txid: Txid, checksum: Checksum) -> Option<usize> {
        let leads = |staged: &Staged| staged.next.txid == txid && staged.next.checksum == checksum;
        self.0.iter().position(leads).map(|index| index + 1)
    }

    /// Whether the base of the queue is the table of a staged snapshot.
    pub(super) fn has_new_table(&self) -> bool {
        self.0.front().is_some_and(|staged| matches!(staged.changes, Changes::NewTable))
    }

    /// What the staged files say of a page.
    pub(super) fn lookup(&self, pgno: Pgno) -> Lookup {
        for staged in self.0.iter().rev() {
            match &staged.changes {
                Changes::NewTable => return Lookup::AsBefore,
                Changes::Pages(pages) => {
                    if let Ok(index) = pages.binary_search_by_key(&pgno, |(pgno, _)| *pgno) {
                        return Lookup::Known(Some(pages[index].1));
                    }
                    if pgno > staged.next.page_count {
                        return Lookup::Known(None);
                    }
                }
            }
        }
        Lookup::AsBefore
    }

    /// Makes all staged files survive a loss of power.
    pub(super) fn make_durable(&mut self, staging: &Path) -> Result<(), DatabaseError> {
        let mut synced = false;
        for staged in self.0.iter_mut().filter(|staged| !staged.durable) {
            let path = &staged.file.path;
            File::open(path)
                .and_then(|file| file.sync_all())
                .map_err(DatabaseError::io("sync a staged file", path))?;
            staged.durable = true;
            synced = true;
        }
        if synced {
            File::open(staging)
                .and_then(|directory| directory.sync_all())
                .map_err(DatabaseError::io("sync the staging directory", staging))?;
        }
        Ok(())
    }

    /// Merges the files after the first `kept` into one, as far as that is possible: a snapshot
    /// that begins the queue stays as it is.
    ///
    /// The merged file is complete and synced before a source goes. After a crash in between, the
    /// next start takes it up instead of its sources.
    pub(super) fn merge_after(&mut self, kept: usize, staging: &Path) -> Result<(), DatabaseError> {
        let kept = kept.max(usize::from(self.has_new_table()));
        if self.0.len() < kept + 2 {
            return Ok(());
        }
        let sources: Vec<&StagedFile> = self.0.range(kept..).map(|staged| &staged.file).collect();
        let next = self.0.back().map(|staged| staged.next.clone());
        let next = next.expect("at least two files are merged");
        let file = merge_staged(staging, &sources, &next.wal)?;
        let sources: Vec<Staged> = self.0.drain(kept..).collect();
        let mut changes = BTreeMap::new();
        for staged in &sources {
            if let Changes::Pages(pages) = &staged.changes {
                changes.extend(pages.iter().copied());
            }
        }
        changes.retain(|pgno, _| *pgno <= next.page_count);
        let changes = Changes::Pages(changes.into_iter().collect());
        self.0.push_back(Staged { file, next, changes, durable: true });
        sources.iter().try_for_each(|staged| staged.file.remove())
    }

    /// Removes all staged files.
    pub(super) fn clear(&mut self) -> Result<(), DatabaseError> {
        while let Some(staged) = self.0.pop_back() {
            staged.file.remove()?;
        }
        Ok(())
    }

    /// Takes up what an earlier run staged after `confirmed`; removes the rest of the directory.
    /// The flag tells whether it is known where in the WAL the last of them ends.
    pub(super) fn load(
        state: &StateDirectory,
        confirmed: Option<&Position>,
    ) -> Result<(Self, bool), DatabaseError> {
        let mut names = staged_names(&state.staging())?;
        // Of a merged file and its sources the one that leads furthest comes first. Of a state that
        // both lead to, the file that continues comes before a snapshot beside it.
        names.sort_by_key(|name| (name.is_snapshot(), Reverse(name.max)));
        let mut queue = Self::default();
        let mut wal_known = true;
        loop {
            let before = queue.0.back().map(|staged| &staged.next).or(confirmed).cloned();
            let fits = |name: &FileName| match &before {
                // What is not newer is in storage already.
                Some(before) if name.is_snapshot() => queue.is_empty() && name.max > before.txid,
                Some(before) => name.min == before.txid.next() && name.max > before.txid,
                None => name.is_snapshot(),
            };
            let Some(index) = names.iter().position(fits) else { break };
            if let Some((staged, known)) = queue.load_file(state, names.remove(index), before)? {
                queue.0.push_back(staged);
                wal_known = known;
            }
        }
        let kept: Vec<FileName> = queue.files().map(|file| file.name).collect();
        state.clear_staging(&kept)?;
        Ok((queue, wal_known))
    }

    fn load_file(
        &self,
        state: &StateDirectory,
        name: FileName,
        before: Option<Position>,
    ) -> Result<Option<(Staged, bool)>, DatabaseError> {
        let path = state.staging().join(name.to_string());
        let give_up = |what: &str| {
            tracing::warn!(path = %path.display(), what, "a staged file is made again");
            Ok(None)
        };
        let file = File::open(&path).map_err(DatabaseError::io("open a staged file", &path))?;
        let size =
            file.metadata().map_err(DatabaseError::io("look at a staged file", &path))?.len();
        let Ok(mut decoder) = Decoder::new(std::io::BufReader::new(file), Mode::Strict) else {
            return give_up("its header is torn");
        };
        let header = decoder.header().clone();
        let follows = match &before {
            Some(before) if !name.is_snapshot() => {
                name.min == before.txid.next() && header.pre_apply == Some(before.checksum)
            }
            // A snapshot begins the queue.
            _ => name.is_snapshot() && self.is_empty(),
        };
        if header.file_name() != name || !follows {
            return give_up("it does not continue what is in storage");
        }
        let old = PageChecksums::open(&state.base_table_path(self.has_new_table()))?;
        let old_of = |pgno| match self.lookup(pgno) {
            Lookup::Known(checksum) => Ok(checksum),
            Lookup::AsBefore => old.get(pgno),
        };
        let mut table = match name.is_snapshot() {
            true => Some(NewPageChecksums::create(&state.new_table_path())?),
            false => None,
        };
        let mut rolling = header.pre_apply.unwrap_or(Checksum::EMPTY);
        let (mut pages, mut count) = (Vec::new(), 0);
        let mut page = vec![0; header.page_size.bytes()];
        loop {
            let pgno = match decoder.next_page(&mut page) {
                Ok(Some(pgno)) => pgno,
                Ok(None) => break,
                Err(_) => return give_up("it is torn"),
            };
            count += 1;
            let checksum = Checksum::of_page(pgno, &page);
            rolling = rolling.toggle(checksum);
            match &mut table {
                Some(table) => table.push(pgno, checksum)?,
                None => {
                    rolling = old_of(pgno)?.map_or(rolling, |old| rolling.toggle(old));
                    pages.push((pgno, checksum));
                }
            }
        }
        let Ok(trailer) = decoder.finish() else { return give_up("it is torn") };
        if let Some(before) = before.as_ref().filter(|_| table.is_none()) {
            for pgno in header.commit + 1..=before.page_count {
                rolling = old_of(pgno)?.map_or(rolling, |old| rolling.toggle(old));
            }
        }
        if trailer.post_apply != Some(rolling) {
            return give_up("its pages do not add up to its state");
        }
        let changes = match table {
            Some(table) => {
                table.finish(header.commit)?;
                Changes::NewTable
            }
            None => Changes::Pages(pages),
        };
        let note = read_note(&path);
        let next = Position {
            txid: name.max,
            checksum: rolling,
            page_size: header.page_size,
            page_count: header.commit,
            timestamp_ms: header.timestamp_ms,
            wal: note.as_ref().map_or(WalPosition::UNKNOWN, |note| note.wal),
        };
        let sha256 = sha256_of(&path)?;
        let merged_since_ms = note.as_ref().and_then(|note| note.merged_since_ms);
        let file = StagedFile {
            path,
            name,
            header,
            post_apply: rolling,
            size,
            sha256,
            pages: count,
            merged_since_ms,
        };
        // Its bytes were read, which does not mean that they are on the disk.
        Ok(Some((Staged { file, next, changes, durable: false }, note.is_some())))
    }
}
