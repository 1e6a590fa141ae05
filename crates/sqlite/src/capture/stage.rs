//! Turns a state of the database into staged files: the frames of some commits, all pages, or the
//! pages that differ from what was shipped.
//!
//! Each function reads one state, that of the wal-index it is given, and yields `None` if the WAL
//! restarted meanwhile: then the caller looks again.

use walrust_engine::{HealReason, Position, WalPosition};
use walrust_ltx::{Checksum, Header, Pgno, Txid};
use walrust_wal::{WalChecksum, WalIndex, frame_offset};

use super::{Capture, Changes, Head, History, Pending, StagedSnapshot, SyncOutcome};
use crate::DatabaseError;
use crate::database_reader::{ATTEMPTS, wal_position};
use crate::page_checksums::NewPageChecksums;
use crate::page_view::PageView;
use crate::staging::{StagedFile, StagedWriter};
use crate::wal_source::{WalRead, read_frames};

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
        let Some(wal) = self.reader.files.open_wal()? else { return Ok(None) };
        let salts = index.header.salts;
        let read = read_frames(&self.reader.files, &wal, salts, resume, index.header.mx_frame)?;
        let WalRead::Complete(mut frames) = read else { return Ok(None) };
        let Some(page_count) = frames.page_count else { return Ok(Some(SyncOutcome::UpToDate)) };
        let written: Vec<Pgno> = frames.pages.keys().copied().collect();

        // Pages that came into being without being written must be in the file all the same, and so
        // must pages that a smaller size in between cut off.
        let kept = position.page_count.min(frames.smallest_page_count.unwrap_or(page_count));
        let lock_page = self.reader.page_size.lock_page();
        let unwritten: Vec<Pgno> = (kept + 1..=page_count)
            .filter(|pgno| *pgno != lock_page && !frames.pages.contains_key(pgno))
            .collect();
        if !unwritten.is_empty() && resume.is_some() {
            // Their newest version may be in a frame that was shipped before.
            let read = read_frames(&self.reader.files, &wal, salts, None, index.header.mx_frame)?;
            let WalRead::Complete(all) = read else { return Ok(None) };
            frames.pages = all.pages;
        }
        let view = PageView {
            files: &self.reader.files,
            wal: Some(&wal),
            pages: &frames.pages,
            page_size: self.reader.page_size,
            page_count,
        };

        let max_txid = self.later(position.txid, frames.commits)?;
        let from = resume.map_or(0, |(from, _)| from);
        let wal_offset = frame_offset(self.reader.page_size.get(), from);
        let wal_end = frame_offset(self.reader.page_size.get(), frames.frames);
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
        let mut page = vec![0; self.reader.page_size.bytes()];
        for pgno in merge(&written, &unwritten) {
            view.read(pgno, &mut page)?;
            let checksum = writer.page(pgno, &page)?;
            rolling = replace(rolling, table.get(pgno)?, Some(checksum));
            changes.push((pgno, checksum));
        }
        for pgno in page_count + 1..=position.page_count {
            rolling = replace(rolling, table.get(pgno)?, None);
        }
        if !self.reader.is_current_index(index)? {
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
        let next = self.next_position(&file, generation.wal_position());
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
        let Some(generation) = self.reader.read_generation(index)? else { return Ok(None) };
        let view = self.reader.view(&generation);
        let txid = self.after(position.txid)?;
        let header = Header {
            pre_apply: Some(position.checksum),
            ..self.header(generation.page_count, txid, txid, now_ms)
        };
        let mut writer = StagedWriter::create(&self.state.staging(), header)?;
        let mut shipped = self.state.page_checksums()?.sweep()?;
        let mut rolling = position.checksum;
        let mut changes = Vec::new();
        let mut page = vec![0; self.reader.page_size.bytes()];
        for pgno in 1..=generation.page_count.max(position.page_count) {
            let old = shipped.next_entry()?.flatten();
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
            self.state.save(&position, &[])?;
            self.reader.pin.advance(&self.reader.files, wal.salts)?;
            self.continue_from(position);
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
        let Some(generation) = self.reader.read_generation(index)? else {
            self.discard()?;
            return Ok(None);
        };
        // The time is that of the state, so a snapshot of one state is always the same file.
        let (commit, timestamp_ms) = (generation.page_count, next.timestamp_ms);
        let header = self.header(commit, Txid::FIRST, next.txid, timestamp_ms);
        let Some(snapshot) =
            self.reader.stage_all_pages(&self.state.staging(), &generation, header, None)?
        else {
            self.discard()?;
            return Ok(None);
        };
        if snapshot.post_apply != next.checksum {
            snapshot.remove()?;
            self.discard()?;
            let txid = self.after(next.txid)?;
            self.history = History::Begin { txid, timestamp_ms: next.timestamp_ms };
            return Err(DatabaseError::Diverged {
                path: self.reader.files.path().to_owned(),
                txid: next.txid,
            });
        }
        Ok(Some(StagedSnapshot { incremental, snapshot: Some(snapshot) }))
    }

    /// Whether the database is in the state of the head; if so, that becomes the position.
    pub(super) fn adopt(&mut self, head: &Head) -> Result<bool, DatabaseError> {
        if head.page_size != self.reader.page_size {
            return Ok(false);
        }
        for _ in 0..ATTEMPTS {
            let index = self.reader.files.wal_index()?;
            let Some(generation) = self.reader.read_generation(&index)? else { continue };
            if generation.page_count != head.page_count {
                return Ok(false);
            }
            let view = self.reader.view(&generation);
            let mut table = NewPageChecksums::create(&self.state.new_table_path())?;
            let mut rolling = Checksum::EMPTY;
            let mut page = vec![0; self.reader.page_size.bytes()];
            for pgno in view.pgnos() {
                view.read(pgno, &mut page)?;
                let checksum = Checksum::of_page(pgno, &page);
                table.push(pgno, checksum)?;
                rolling = rolling.toggle(checksum);
            }
            if !self.reader.is_current(&generation)? {
                continue;
            }
            if head.checksum != Some(rolling) {
                return Ok(false);
            }
            table.finish(generation.page_count)?;
            let position = Position {
                txid: head.txid,
                checksum: rolling,
                page_size: self.reader.page_size,
                page_count: generation.page_count,
                timestamp_ms: head.timestamp_ms,
                wal: generation.wal_position(),
            };
            self.state.save_with_new_table(&position)?;
            self.reader.pin.advance(&self.reader.files, position.wal.salts)?;
            self.continue_from(position);
            return Ok(true);
        }
        Err(self.reader.unstable())
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
        next: Position,
        changes: Changes,
        healed: Option<HealReason>,
    ) -> SyncOutcome {
        self.pending = Some(Pending { file: file.clone(), next, changes });
        SyncOutcome::Staged { file, healed }
    }
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
