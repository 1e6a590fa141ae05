//! Turns a state of the database into staged files: the frames of some commits, all pages, or the
//! pages that differ from what was shipped.
//!
//! Each function reads one state, that of the wal-index it is given, and yields `None` if the WAL
//! restarted meanwhile: then the caller looks again.

use std::fs::File;

use walrust_engine::{HealReason, Position, WalPosition};
use walrust_ltx::{Checksum, Header, Pgno, Txid};
use walrust_wal::{Committed, WalChecksum, WalIndex, frame_offset};

use super::queue::Lookup;
use super::{Capture, Changes, History, Staged, SyncOutcome};
use crate::DatabaseError;
use crate::database_reader::wal_position;
use crate::page_checksums::{NewPageChecksums, PageChecksums};
use crate::page_view::PageView;
use crate::snapshot_reader::{ReadTransaction, SnapshotReader};
use crate::staging::{StagedFile, StagedWriter};
use crate::wal_source::{WalRead, read_frames};

impl Capture {
    /// Stages the commits after a position. `resume` is the number of frames to skip and the
    /// running checksum after them; `None` reads a new generation from its start.
    pub(super) fn stage_frames(
        &mut self,
        index: &WalIndex,
        position: &Position,
        resume: Resume,
        now_ms: i64,
    ) -> Result<Option<SyncOutcome>, DatabaseError> {
        let salts = index.header.salts;
        let Some(mut delta) = self.read_delta(index, position, resume, index.header.mx_frame)?
        else {
            return Ok(None);
        };
        let Some(page_count) = delta.frames.page_count else {
            return Ok(Some(SyncOutcome::UpToDate));
        };
        let max_txid = self.later(position.txid, delta.frames.commits)?;
        let from = resume.map_or(0, |(from, _)| from);
        let wal_offset = frame_offset(self.reader.page_size.get(), from);
        let wal_end = frame_offset(self.reader.page_size.get(), delta.frames.frames);
        let header = Header {
            wal_offset: signed(wal_offset),
            wal_size: signed(wal_end - wal_offset),
            wal_salt1: salts.0,
            wal_salt2: salts.1,
            pre_apply: Some(position.checksum),
            ..self.header(page_count, self.after(position.txid)?, max_txid, now_ms)
        };
        let mut writer = StagedWriter::create(&self.state.staging(), header)?;
        let sums =
            self.replace_pages(position, &mut delta, |pgno, page| writer.page(pgno, page))?;
        if !self.reader.is_current_index(index)? {
            writer.discard()?;
            return Ok(None);
        }
        let file = writer.finish(sums.rolling)?;
        let wal = wal_position(index, &delta.frames);
        self.stage(file, wal, Changes::Pages(sums.changes), None).map(Some)
    }

    /// Reads what the frames after a position up to frame `to` commit.
    pub(super) fn read_delta(
        &self,
        index: &WalIndex,
        position: &Position,
        resume: Resume,
        to: u32,
    ) -> Result<Option<Delta>, DatabaseError> {
        let Some(wal) = self.reader.files.open_wal()? else { return Ok(None) };
        let salts = index.header.salts;
        let read = read_frames(&self.reader.files, &wal, salts, resume, to)?;
        let WalRead::Complete(mut frames) = read else { return Ok(None) };
        let Some(page_count) = frames.page_count else {
            return Ok(Some(Delta { wal, frames, pgnos: Vec::new() }));
        };
        let written: Vec<Pgno> = frames.pages.keys().copied().collect();

        // Pages that came into being without being written must be in the file all the same, and so
        // must pages that a smaller size in between cut off.
        let kept = position.page_count.min(frames.smallest_page_count.unwrap_or(page_count));
        let lock_page = self.reader.page_size.lock_page();
        let unwritten: Vec<Pgno> = (kept + 1..=page_count)
            .filter(|pgno| *pgno != lock_page && !frames.pages.contains_key(pgno))
            .collect();
        if !unwritten.is_empty() && resume.is_some() {
            // Their newest version may be in a frame that was captured before.
            let read = read_frames(&self.reader.files, &wal, salts, None, to)?;
            let WalRead::Complete(all) = read else { return Ok(None) };
            frames.pages = all.pages;
        }
        Ok(Some(Delta { wal, frames, pgnos: merge(&written, &unwritten) }))
    }

    /// Hands the pages of a delta to `sink`, which returns their checksums, and works out the
    /// rolling checksum after them.
    pub(super) fn replace_pages(
        &self,
        position: &Position,
        delta: &mut Delta,
        mut sink: impl FnMut(Pgno, &[u8]) -> Result<Checksum, DatabaseError>,
    ) -> Result<PageSums, DatabaseError> {
        let page_count = delta.frames.page_count.unwrap_or(position.page_count);
        let view = PageView {
            files: &self.reader.files,
            wal: Some(&delta.wal),
            pages: &delta.frames.pages,
            page_size: self.reader.page_size,
            page_count,
        };
        let base = self.base_table()?;
        let mut rolling = position.checksum;
        let mut changes = Vec::with_capacity(delta.pgnos.len());
        let mut page = vec![0; self.reader.page_size.bytes()];
        for pgno in std::mem::take(&mut delta.pgnos) {
            view.read(pgno, &mut page)?;
            let checksum = sink(pgno, &page)?;
            rolling = replace(rolling, self.captured_checksum(&base, pgno)?, Some(checksum));
            changes.push((pgno, checksum));
        }
        for pgno in page_count + 1..=position.page_count {
            rolling = replace(rolling, self.captured_checksum(&base, pgno)?, None);
        }
        Ok(PageSums { rolling, changes })
    }

    /// The table under the staged files.
    fn base_table(&self) -> Result<PageChecksums, DatabaseError> {
        PageChecksums::open(&self.state.base_table_path(self.queue.has_new_table()))
    }

    /// The checksum of a page in the captured state.
    fn captured_checksum(
        &self,
        base: &PageChecksums,
        pgno: Pgno,
    ) -> Result<Option<Checksum>, DatabaseError> {
        match self.queue.lookup(pgno) {
            Lookup::Known(checksum) => Ok(checksum),
            Lookup::AsBefore => base.get(pgno),
        }
    }

    /// Stages a snapshot that begins a chain.
    pub(super) fn stage_base(
        &mut self,
        index: &WalIndex,
        txid: Txid,
        now_ms: i64,
    ) -> Result<Option<SyncOutcome>, DatabaseError> {
        self.check_whole_read(index)?;
        let Some(generation) = self.reader.read_generation(index)? else { return Ok(None) };
        let header = self.header(generation.page_count, Txid::FIRST, txid, now_ms);
        let mut table = NewPageChecksums::create(&self.state.new_table_path())?;
        let Some(file) = self.reader.stage_all_pages(
            &self.state.staging(),
            &generation,
            header,
            Some(&mut table),
        )?
        else {
            return Ok(None);
        };
        table.finish(generation.page_count)?;
        self.stage(file, generation.wal_position(), Changes::NewTable, None).map(Some)
    }

    /// Stages the pages that differ from what was shipped, as one incremental.
    pub(super) fn stage_heal(
        &mut self,
        index: &WalIndex,
        position: Position,
        reason: HealReason,
        now_ms: i64,
    ) -> Result<Option<SyncOutcome>, DatabaseError> {
        self.check_whole_read(index)?;
        let Some(generation) = self.reader.read_generation(index)? else { return Ok(None) };
        let view = self.reader.view(&generation);
        let txid = self.after(position.txid)?;
        let header = Header {
            pre_apply: Some(position.checksum),
            ..self.header(generation.page_count, txid, txid, now_ms)
        };
        let mut writer = StagedWriter::create(&self.state.staging(), header)?;
        let mut base = self.base_table()?.sweep()?;
        let mut rolling = position.checksum;
        let mut changes = Vec::new();
        let mut page = vec![0; self.reader.page_size.bytes()];
        for pgno in 1..=generation.page_count.max(position.page_count) {
            let old = match (base.next_entry()?, self.queue.lookup(pgno)) {
                (_, Lookup::Known(checksum)) => checksum,
                (entry, Lookup::AsBefore) => entry.flatten(),
            };
            if pgno > generation.page_count {
                rolling = replace(rolling, old, None);
            } else if pgno != self.reader.page_size.lock_page() {
                view.read(pgno, &mut page)?;
                if old != Some(Checksum::of_page(pgno, &page)) {
                    let checksum = writer.page(pgno, &page)?;
                    rolling = replace(rolling, old, Some(checksum));
                    changes.push((pgno, checksum));
                }
            }
        }
        if !self.reader.is_current(&generation)? {
            writer.discard()?;
            return Ok(None);
        }
        let wal = generation.wal_position();
        if changes.is_empty() && generation.page_count == position.page_count {
            writer.discard()?;
            let position = Position { wal, ..position };
            if self.queue.is_empty() {
                self.state.save(&position, &[])?;
                self.confirmed = Some(position.clone());
            }
            self.continue_from(position);
            return Ok(Some(SyncOutcome::UpToDate));
        }
        if self.file.is_replaced() && changes.len() as u64 * 2 > u64::from(generation.page_count) {
            // Another database under the same path: its history begins with it.
            writer.discard()?;
            self.history = History::Begin { txid, timestamp_ms: now_ms };
            return self.stage_next(index, now_ms);
        }
        let file = writer.finish(rolling)?;
        self.stage(file, wal, Changes::Pages(changes), Some(reason)).map(Some)
    }

    /// Reads the captured state, which is that of `index`; `transaction` began before that was read.
    pub(super) fn snapshot_reader(
        &self,
        index: &WalIndex,
        transaction: ReadTransaction,
    ) -> Result<Option<SnapshotReader>, DatabaseError> {
        let History::Continue(position) = &self.history else { return Ok(None) };
        let Some(generation) = self.reader.read_generation(index)? else { return Ok(None) };
        // The time is that of the state, so a snapshot of one state is always the same file.
        let (commit, timestamp_ms) = (generation.page_count, position.timestamp_ms);
        Ok(Some(SnapshotReader {
            transaction,
            generation: generation.without_wal_if_copied(),
            page_size: self.reader.page_size,
            header: self.header(commit, Txid::FIRST, position.txid, timestamp_ms),
            expected: position.checksum,
            staging: self.state.staging(),
        }))
    }

    fn header(&self, commit: u32, min_txid: Txid, max_txid: Txid, timestamp_ms: i64) -> Header {
        Header {
            tracking: true,
            page_size: self.reader.page_size,
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
            page_size: self.reader.page_size,
            page_count: file.header.commit,
            timestamp_ms: file.header.timestamp_ms,
            wal,
        }
    }

    fn stage(
        &mut self,
        file: StagedFile,
        wal: WalPosition,
        changes: Changes,
        healed: Option<HealReason>,
    ) -> Result<SyncOutcome, DatabaseError> {
        file.note(&wal)?;
        let next = self.next_position(&file, wal);
        self.queue.push(Staged { file: file.clone(), next: next.clone(), changes, durable: false });
        self.continue_from(next);
        Ok(SyncOutcome::Staged { file, healed })
    }
}

/// Frames to skip and the running checksum after them; `None`: from the start of the generation.
pub(super) type Resume = Option<(u32, WalChecksum)>;

/// What some frames commit.
pub(super) struct Delta {
    wal: File,
    pub(super) frames: Committed,
    /// The pages that differ from the state before, ascending.
    pgnos: Vec<Pgno>,
}

/// The checksums of a delta.
pub(super) struct PageSums {
    pub(super) rolling: Checksum,
    pub(super) changes: Vec<(Pgno, Checksum)>,
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
