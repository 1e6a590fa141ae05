//! Turns a state of the database into staged files: the frames of some commits, all pages, or the
//! pages that differ from what was shipped.
//!
//! Each function reads one state, that of the wal-index it is given, and yields `None` if the WAL
//! restarted meanwhile: then the caller looks again.

use std::collections::BTreeMap;
use std::fs::File;

use walrust_engine::{HealReason, Position, WalPosition};
use walrust_ltx::{Checksum, Header, Pgno, Txid};
use walrust_wal::{Committed, WalChecksum, WalIndex, frame_offset};

use super::{Capture, Changes, Head, History, Pending, StagedSnapshot, SyncOutcome};
use crate::DatabaseError;
use crate::page_checksums::NewPageChecksums;
use crate::page_view::PageView;
use crate::staging::{StagedFile, StagedWriter};
use crate::wal_source::{WalRead, read_frames};

/// The whole WAL up to one commit: what it holds, and the size of the database there.
struct Generation {
    wal: Option<File>,
    frames: Committed,
    page_count: u32,
}

impl Capture {
    /// Stages the commits behind a position. `resume` is the number of frames to skip and the
    /// running checksum after them; `None` reads a new generation from its start.
    pub(super) fn stage_frames(
        &mut self,
        index: &WalIndex,
        position: &Position,
        resume: Option<(u32, WalChecksum)>,
        now_ms: i64,
    ) -> Result<Option<SyncOutcome>, DatabaseError> {
        let Some(wal) = self.files.open_wal()? else { return Ok(None) };
        let salts = index.header.salts;
        let read = read_frames(&self.files, &wal, salts, resume, index.header.mx_frame)?;
        let WalRead::Complete(mut frames) = read else { return Ok(None) };
        let Some(page_count) = frames.page_count else { return Ok(Some(SyncOutcome::UpToDate)) };
        let written: Vec<Pgno> = frames.pages.keys().copied().collect();

        // Pages that came into being without being written must be in the file all the same, and so
        // must pages that a smaller size in between cut off.
        let kept = position.page_count.min(frames.smallest_page_count.unwrap_or(page_count));
        let lock_page = self.page_size.lock_page();
        let unwritten: Vec<Pgno> = (kept + 1..=page_count)
            .filter(|pgno| *pgno != lock_page && !frames.pages.contains_key(pgno))
            .collect();
        if !unwritten.is_empty() && resume.is_some() {
            // Their newest version may be in a frame that was shipped before.
            let read = read_frames(&self.files, &wal, salts, None, index.header.mx_frame)?;
            let WalRead::Complete(all) = read else { return Ok(None) };
            frames.pages = all.pages;
        }
        let view = PageView {
            files: &self.files,
            wal: Some(&wal),
            pages: &frames.pages,
            page_size: self.page_size,
            page_count,
        };

        let max_txid = self.later(position.txid, frames.commits)?;
        let from = resume.map_or(0, |(from, _)| from);
        let wal_offset = frame_offset(self.page_size.get(), from);
        let wal_end = frame_offset(self.page_size.get(), frames.frames);
        let header = Header {
            wal_offset: signed(wal_offset),
            wal_size: signed(wal_end - wal_offset),
            wal_salt1: salts.0,
            wal_salt2: salts.1,
            ..self.header(page_count, self.after(position.txid)?, max_txid, now_ms)
        };
        let header = Header { pre_apply: Some(position.checksum), ..header };
        let table = self.state.page_checksums()?;
        let mut writer = StagedWriter::create(&self.state.staging(), header)?;
        let mut rolling = position.checksum;
        let mut changes = Vec::with_capacity(written.len() + unwritten.len());
        let mut page = vec![0; self.page_size.bytes()];
        for pgno in merge(&written, &unwritten) {
            view.read(pgno, &mut page)?;
            let checksum = writer.page(pgno, &page)?;
            rolling = replace(rolling, table.get(pgno)?, Some(checksum));
            changes.push((pgno, checksum));
        }
        for pgno in page_count + 1..=position.page_count {
            rolling = replace(rolling, table.get(pgno)?, None);
        }
        if self.files.wal_index()?.header.salts != salts {
            writer.discard()?;
            return Ok(None);
        }
        let file = writer.finish(rolling)?;
        let next = self.next_position(&file, wal_position(index, &frames));
        Ok(Some(self.stage(file, next, Changes::Pages(changes), None)))
    }

    /// Stages a snapshot that begins a chain.
    pub(super) fn stage_base(
        &mut self,
        index: &WalIndex,
        txid: Txid,
        now_ms: i64,
    ) -> Result<Option<SyncOutcome>, DatabaseError> {
        let Some(generation) = self.read_generation(index)? else { return Ok(None) };
        let header = self.header(generation.page_count, Txid::FIRST, txid, now_ms);
        let mut table = NewPageChecksums::create(&self.state.new_table_path())?;
        let Some(file) = self.stage_all_pages(index, &generation, header, Some(&mut table))? else {
            return Ok(None);
        };
        table.finish(generation.page_count)?;
        let next = self.next_position(&file, wal_position(index, &generation.frames));
        Ok(Some(self.stage(file, next, Changes::NewTable, None)))
    }

    /// Stages the pages that differ from what was shipped, as one incremental.
    pub(super) fn stage_heal(
        &mut self,
        index: &WalIndex,
        position: Position,
        reason: HealReason,
        now_ms: i64,
    ) -> Result<Option<SyncOutcome>, DatabaseError> {
        let Some(generation) = self.read_generation(index)? else { return Ok(None) };
        let view = self.page_view(&generation);
        let txid = self.after(position.txid)?;
        let header = Header {
            pre_apply: Some(position.checksum),
            ..self.header(generation.page_count, txid, txid, now_ms)
        };
        let mut writer = StagedWriter::create(&self.state.staging(), header)?;
        let mut shipped = self.state.page_checksums()?.sweep()?;
        let mut rolling = position.checksum;
        let mut changes = Vec::new();
        let mut page = vec![0; self.page_size.bytes()];
        for pgno in 1..=generation.page_count.max(position.page_count) {
            let old = shipped.next_entry()?.flatten();
            if pgno > generation.page_count {
                rolling = replace(rolling, old, None);
            } else if pgno != self.page_size.lock_page() {
                view.read(pgno, &mut page)?;
                if old != Some(Checksum::of_page(pgno, &page)) {
                    let checksum = writer.page(pgno, &page)?;
                    rolling = replace(rolling, old, Some(checksum));
                    changes.push((pgno, checksum));
                }
            }
        }
        if self.files.wal_index()?.header.salts != index.header.salts {
            writer.discard()?;
            return Ok(None);
        }
        let wal = wal_position(index, &generation.frames);
        if changes.is_empty() && generation.page_count == position.page_count {
            writer.discard()?;
            let position = Position { wal, ..position };
            self.state.save(&position, &[])?;
            self.pin.advance(&self.files, wal.salts)?;
            self.history = History::Continue(position);
            return Ok(Some(SyncOutcome::UpToDate));
        }
        let file = writer.finish(rolling)?;
        let next = self.next_position(&file, wal);
        Ok(Some(self.stage(file, next, Changes::Pages(changes), Some(reason))))
    }

    /// Stages a snapshot of the state of `index`, and before it the commits that lead there.
    pub(super) fn stage_snapshot(
        &mut self,
        index: &WalIndex,
        now_ms: i64,
    ) -> Result<Option<StagedSnapshot>, DatabaseError> {
        let incremental = match self.stage_next(index, now_ms)? {
            None => return Ok(None),
            Some(SyncOutcome::UpToDate) => None,
            Some(SyncOutcome::Staged { file, .. }) if file.name.is_snapshot() => {
                return Ok(Some(StagedSnapshot { incremental: Some(file), snapshot: None }));
            }
            Some(SyncOutcome::Staged { file, .. }) => Some(file),
        };
        let next = match (&self.pending, &self.history) {
            (Some(pending), _) => pending.next.clone(),
            (None, History::Continue(position)) => position.clone(),
            (None, History::Begin { .. }) => return Ok(None),
        };
        let Some(generation) = self.read_generation(index)? else {
            self.discard()?;
            return Ok(None);
        };
        // The time is that of the state, so a snapshot of one state is always the same file.
        let (commit, timestamp_ms) = (generation.page_count, next.timestamp_ms);
        let header = self.header(commit, Txid::FIRST, next.txid, timestamp_ms);
        let Some(snapshot) = self.stage_all_pages(index, &generation, header, None)? else {
            self.discard()?;
            return Ok(None);
        };
        if snapshot.post_apply != next.checksum {
            snapshot.remove()?;
            self.discard()?;
            let txid = self.after(next.txid)?;
            self.history = History::Begin { txid, timestamp_ms: next.timestamp_ms };
            return Err(DatabaseError::Diverged { path: self.files.path().to_owned(), txid: next.txid });
        }
        Ok(Some(StagedSnapshot { incremental, snapshot: Some(snapshot) }))
    }

    /// Whether the database is in the state of the head; if so, that becomes the position.
    pub(super) fn adopt(&mut self, head: &Head) -> Result<bool, DatabaseError> {
        if head.page_size != self.page_size {
            return Ok(false);
        }
        for _ in 0..super::ATTEMPTS {
            let index = self.files.wal_index()?;
            let Some(generation) = self.read_generation(&index)? else { continue };
            if generation.page_count != head.page_count {
                return Ok(false);
            }
            let view = self.page_view(&generation);
            let mut table = NewPageChecksums::create(&self.state.new_table_path())?;
            let mut rolling = Checksum::EMPTY;
            let mut page = vec![0; self.page_size.bytes()];
            for pgno in view.pgnos() {
                view.read(pgno, &mut page)?;
                let checksum = Checksum::of_page(pgno, &page);
                table.push(pgno, checksum)?;
                rolling = rolling.toggle(checksum);
            }
            if self.files.wal_index()?.header.salts != index.header.salts {
                continue;
            }
            if head.checksum != Some(rolling) {
                return Ok(false);
            }
            table.finish(generation.page_count)?;
            let position = Position {
                txid: head.txid,
                checksum: rolling,
                page_size: self.page_size,
                page_count: generation.page_count,
                timestamp_ms: head.timestamp_ms,
                wal: wal_position(&index, &generation.frames),
            };
            self.state.save_with_new_table(&position)?;
            self.pin.advance(&self.files, position.wal.salts)?;
            self.history = History::Continue(position);
            return Ok(true);
        }
        Err(DatabaseError::Unstable { path: self.files.wal_path().to_owned() })
    }

    /// Writes all pages of a state into one file.
    fn stage_all_pages(
        &self,
        index: &WalIndex,
        generation: &Generation,
        header: Header,
        mut table: Option<&mut NewPageChecksums>,
    ) -> Result<Option<StagedFile>, DatabaseError> {
        let view = self.page_view(generation);
        let mut writer = StagedWriter::create(&self.state.staging(), header)?;
        let mut rolling = Checksum::EMPTY;
        let mut page = vec![0; self.page_size.bytes()];
        for pgno in view.pgnos() {
            view.read(pgno, &mut page)?;
            let checksum = writer.page(pgno, &page)?;
            rolling = rolling.toggle(checksum);
            if let Some(table) = table.as_deref_mut() {
                table.push(pgno, checksum)?;
            }
        }
        if self.files.wal_index()?.header.salts != index.header.salts {
            writer.discard()?;
            return Ok(None);
        }
        writer.finish(rolling).map(Some)
    }

    /// Reads the WAL from its start to the last commit of `index`.
    fn read_generation(&self, index: &WalIndex) -> Result<Option<Generation>, DatabaseError> {
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
        Ok(Some(Generation { wal, frames, page_count }))
    }

    fn pages_in_file(&self) -> Result<u32, DatabaseError> {
        let pages = self.files.database_size()?.div_ceil(u64::from(self.page_size.get()));
        u32::try_from(pages).map_err(|_| DatabaseError::Unsupported {
            path: self.files.path().to_owned(),
            what: format!("{pages} pages are more than SQLite can have"),
        })
    }

    fn page_view<'a>(&'a self, generation: &'a Generation) -> PageView<'a> {
        PageView {
            files: &self.files,
            wal: generation.wal.as_ref(),
            pages: &generation.frames.pages,
            page_size: self.page_size,
            page_count: generation.page_count,
        }
    }

    fn header(&self, commit: u32, min_txid: Txid, max_txid: Txid, timestamp_ms: i64) -> Header {
        Header {
            tracking: true,
            page_size: self.page_size,
            commit,
            min_txid,
            max_txid,
            timestamp_ms,
            pre_apply: None,
            wal_offset: 0,
            wal_size: 0,
            wal_salt1: 0,
            wal_salt2: 0,
            node_id: 0,
        }
    }

    fn next_position(&self, file: &StagedFile, wal: WalPosition) -> Position {
        Position {
            txid: file.name.max,
            checksum: file.post_apply,
            page_size: self.page_size,
            page_count: file.header.commit,
            timestamp_ms: file.header.timestamp_ms,
            wal,
        }
    }

    fn stage(
        &mut self,
        file: StagedFile,
        next: Position,
        changes: Changes,
        healed: Option<HealReason>,
    ) -> SyncOutcome {
        self.pending = Some(Pending { file: file.clone(), next, changes });
        SyncOutcome::Staged { file, healed }
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

fn wal_position(index: &WalIndex, frames: &Committed) -> WalPosition {
    WalPosition { salts: index.header.salts, frames: frames.frames, checksum: frames.checksum }
}

/// Takes one version of a page out of a rolling checksum and puts another in.
fn replace(rolling: Checksum, old: Option<Checksum>, new: Option<Checksum>) -> Checksum {
    old.into_iter().chain(new).fold(rolling, Checksum::toggle)
}

/// Two ascending lists without common elements as one.
fn merge(a: &[Pgno], b: &[Pgno]) -> Vec<Pgno> {
    let mut all: Vec<Pgno> = a.iter().chain(b).copied().collect();
    all.sort_unstable();
    all
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).expect("a WAL of 2^32 frames of 64 KiB is far below 2^63 bytes")
}
