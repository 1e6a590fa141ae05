//! Captures the commits of one database: from its WAL to staged LTX files, and from the
//! confirmation of storage to the next position.
//!
//! # Consistency
//! Two states are told apart. What is *captured* is in staged files or in storage; the next file
//! continues it. What is *confirmed* is in storage; local state describes it. A file is staged from
//! a state that a pin keeps readable, and the pin lets go of frames only when they are confirmed, or
//! staged and synced (see `checkpoint`).
//!
//! # Crash
//! Staged files that the crash left whole are taken up again and offered as they are, so an upload
//! whose answer was lost is repeated with the same bytes. If the bucket is ahead of local state,
//! [`Capture::reconcile`] finds the head's place in the WAL, or compares the database with the pages
//! of the head. Nothing is ever overwritten.
//!
//! # Order of dropping
//! Connections go before the descriptors of the files, which go before the lock.

use std::path::{Path, PathBuf};

use walrust_engine::{HealReason, Position, SyncPlan, WalFill, WalPosition, WalView, plan_sync};
use walrust_ltx::{FileName, Txid};
use walrust_wal::{Salts, WalIndex, frame_size};

use crate::connection;
use crate::database_files::{check_database, resolve};
use crate::database_reader::{ATTEMPTS, DatabaseReader, unless_truncated};
use crate::pin::{MARK_DISTANCE, WalPin};
use crate::snapshot_reader::{ReadTransaction, SnapshotReader};
use crate::staging::StagedFile;
use crate::state_directory::StateDirectory;
use crate::wal_source::stored_checksum;
use crate::{Clock, DatabaseError};

mod checkpoint;
mod file_watch;
mod head_table;
mod queue;
mod reconcile;
mod stage;

use file_watch::FileWatch;
pub use head_table::HeadTable;
use queue::{Changes, Staged, StagedQueue};
pub use reconcile::{Head, Reconciliation};

/// One database that is being replicated by this process.
#[derive(Debug)]
pub struct Capture {
    /// As it was given, perhaps through symbolic links.
    path: PathBuf,
    reader: DatabaseReader,
    state: StateDirectory,
    /// What is in storage, as far as local state knows.
    confirmed: Option<Position>,
    /// What is captured.
    history: History,
    queue: StagedQueue,
    /// Why the WAL cannot be continued although its salts may fit: the position comes from an
    /// earlier run. Then the pages are compared.
    distrust: Option<HealReason>,
    file: FileWatch,
    wal_pin: WalPin,
    writer_id: String,
    /// Whether a large database may be read as a whole.
    reads_whole: bool,
}

/// A database of this many bytes is large: to read all of it takes more than a moment.
pub(crate) const LARGE: u64 = 32 << 20;

/// How a database is captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureOptions {
    /// How its WAL is pinned.
    pub wal_pin: WalPin,
    /// Where its local state lives; beside it by default.
    pub state_directory: Option<PathBuf>,
}

/// A database without a WAL, or with an empty one, has these salts.
const NO_GENERATION: Salts = WalPosition::UNKNOWN.salts;

/// What the next file continues.
#[derive(Clone, Debug, PartialEq, Eq)]
enum History {
    /// The last state that was captured.
    Continue(Position),
    /// Nothing: the next file is a snapshot with this TXID.
    Begin {
        /// TXID of the snapshot.
        txid: Txid,
        /// Its timestamp is not earlier than this.
        timestamp_ms: i64,
    },
}

/// What a sync came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncOutcome {
    /// Everything is captured.
    UpToDate,
    /// One more file waits for its upload.
    Staged {
        /// The file.
        file: StagedFile,
        /// Why pages had to be compared, if they had to.
        healed: Option<HealReason>,
    },
}

/// A snapshot that was begun.
#[derive(Debug)]
pub struct BegunSnapshot {
    /// Commits that were not captured yet; go first, each to be confirmed on its own.
    pub before: Vec<StagedFile>,
    /// What is left to do, without the capture. `None` if the newest state is a base snapshot among
    /// `before`.
    pub reader: Option<SnapshotReader>,
}

impl Capture {
    /// Opens a database, locks its local state, and pins its WAL.
    ///
    /// # Errors
    /// If the file is not a database in WAL mode, cannot be read, is locked exclusively, or is
    /// replicated by another process of this host.
    pub fn open(given: &Path, options: &CaptureOptions) -> Result<Self, DatabaseError> {
        let path = resolve(given)?;
        // Before the lock, which leaves a directory beside the database.
        check_database(&path)?;
        let mut state = StateDirectory::open(&path, options.state_directory.as_deref())?;
        state.note_owner(given, &path)?;
        let (writer_id, confirmed) = (state.writer_id()?, state.load()?);
        let (queue, wal_known) = StagedQueue::load(&state, confirmed.as_ref())?;
        let captured = queue.captured().or(confirmed.as_ref());
        let history = match captured {
            Some(position) => History::Continue(position.clone()),
            None => History::Begin { txid: Txid::FIRST, timestamp_ms: i64::MIN },
        };
        let wal = captured.map(|position| position.wal).filter(|_| wal_known);
        let wal_pin = options.wal_pin;
        let reader = DatabaseReader::open(&path, wal_pin, wal.as_ref())?;
        if reader.files.claim() {
            state.release_lock();
        }
        let stamp = reader.files.stamp()?;
        let before = state.load_stamp();
        let distrust = match &wal {
            None => Some(HealReason::UnknownPosition),
            Some(wal) if wal.salts == NO_GENERATION => Some(HealReason::UnknownPosition),
            Some(_) if before != Some(stamp) => Some(HealReason::FileChanged),
            Some(_) => None,
        };
        let file = FileWatch::new(stamp, before);
        let path = given.to_owned();
        Ok(Self {
            path,
            reader,
            state,
            confirmed,
            history,
            queue,
            distrust,
            file,
            wal_pin,
            writer_id,
            reads_whole: true,
        })
    }

    /// Whether from now on work may read a large database as a whole, which takes seconds to minutes.
    /// Where it may not, what needs that fails with [`DatabaseError::ReadsWhole`] and changes nothing,
    /// so that it can be done again where it holds nobody up.
    pub fn allow_whole_reads(&mut self, allowed: bool) {
        self.reads_whole = allowed;
    }

    /// The identifier of the local state, 32 hex digits; signs the manifest.
    #[must_use]
    pub fn writer_id(&self) -> &str {
        &self.writer_id
    }

    /// The last state that storage has confirmed, if any.
    #[must_use]
    pub fn position(&self) -> Option<&Position> {
        self.confirmed.as_ref()
    }

    /// The last state that is in storage or in a staged file, if any.
    #[must_use]
    pub fn captured(&self) -> Option<&Position> {
        match &self.history {
            History::Continue(position) => Some(position),
            History::Begin { .. } => None,
        }
    }

    /// The files that wait for their upload, in the order in which they are to be uploaded.
    #[must_use]
    pub fn staged(&self) -> Vec<StagedFile> {
        self.queue.files().cloned().collect()
    }

    /// Stages what was committed since the last file.
    ///
    /// # Errors
    /// If the database or its WAL cannot be read, was replaced, or the file cannot be written. What
    /// is captured stays as it is, so the next sync tries again.
    pub fn sync(&mut self, clock: impl Clock) -> Result<SyncOutcome, DatabaseError> {
        self.prepare()?;
        // Before the WAL is read: the mark is not past what is staged now.
        self.reader.pin.mark(&self.reader.files, MARK_DISTANCE)?;
        let outcome = self.stage_new(&clock)?;
        self.rest()?;
        Ok(outcome)
    }

    /// A snapshot [diverged](DatabaseError::Diverged) from its history: the next sync, once all
    /// staged files are in storage, begins a new chain.
    ///
    /// # Errors
    /// If there are no TXIDs left.
    pub fn end_history(&mut self) -> Result<(), DatabaseError> {
        let Some(Position { txid, timestamp_ms, .. }) = self.captured().cloned() else {
            return Ok(());
        };
        self.history = History::Begin { txid: self.after(txid)?, timestamp_ms };
        Ok(())
    }

    /// Begins a snapshot of the newest state, and stages what was not captured before it. Only that
    /// takes the capture; the pages are read by [`SnapshotReader::stage`], beside what comes next.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn begin_snapshot(&mut self, clock: impl Clock) -> Result<BegunSnapshot, DatabaseError> {
        self.prepare()?;
        let mut before = Vec::new();
        for _ in 0..ATTEMPTS {
            // Before the wal-index is read: see `snapshot_reader`.
            let transaction = ReadTransaction::begin(&self.reader.files)?;
            let index = self.reader.files.wal_index()?;
            match unless_truncated(self.stage_next(&index, clock.now_ms()))? {
                None => continue,
                Some(SyncOutcome::Staged { file, .. }) => before.push(file),
                Some(SyncOutcome::UpToDate) => {}
            }
            let base = before.last().is_some_and(|file| file.name.is_snapshot());
            let reader = match base {
                true => None,
                false => match unless_truncated(self.snapshot_reader(&index, transaction))? {
                    None => continue,
                    reader => reader,
                },
            };
            self.rest()?;
            return Ok(BegunSnapshot { before, reader });
        }
        Err(self.reader.unstable())
    }

    /// Merges the staged files after the first `kept`, which may be in storage already, into one, so
    /// that an outage costs one upload afterwards.
    ///
    /// # Errors
    /// If a staged file cannot be read, or the merged one cannot be written.
    pub fn merge_staged(&mut self, kept: usize) -> Result<(), DatabaseError> {
        self.queue.merge_after(kept, &self.state.staging())
    }

    /// Storage has the first staged file, which has this name: moves the position and the pin. Does
    /// nothing for another name.
    ///
    /// # Errors
    /// If local state cannot be saved, or the locks fail. The file is in storage all the same,
    /// which the next start finds out.
    pub fn confirm(&mut self, name: FileName) -> Result<(), DatabaseError> {
        if self.queue.front().is_none_or(|staged| staged.file.name != name) {
            return Ok(());
        }
        // If the files were replaced, another process may replicate the new ones, with this state.
        self.reader.files.check_identity(&self.path)?;
        let Some(staged) = self.queue.pop_front() else { return Ok(()) };
        match &staged.changes {
            Changes::Pages(changes) => self.state.save(&staged.next, changes)?,
            Changes::NewTable => self.state.save_with_new_table(&staged.next)?,
        }
        staged.file.remove()?;
        self.reader.pin.advance(&self.reader.files, &staged.next.wal)?;
        self.confirmed = Some(staged.next);
        self.rest()
    }

    /// Leaves the database as if it had never been open here; to be called once everything is in
    /// storage, before the capture is dropped.
    ///
    /// While a database is pinned, the last connection of an application that closes cannot remove
    /// the WAL. If nobody has the database open any more, that is made up for: a WAL that is left
    /// behind would be replayed into whatever file takes the place of the database.
    ///
    /// # Errors
    /// If the locks fail. Nothing is lost then; the WAL stays.
    pub fn leave(&mut self) -> Result<(), DatabaseError> {
        let index = self.reader.files.wal_index()?;
        let end = (index.header.salts, index.header.mx_frame);
        let shipped = self.captured_wal().is_some_and(|wal| (wal.salts, wal.frames) == end);
        if !shipped || !self.queue.is_empty() {
            return Ok(());
        }
        self.reader.files.check_identity(&self.path)?;
        let path = self.reader.files.path().to_owned();
        let last = connection::open_as_application(&path)
            .map_err(DatabaseError::sqlite("open the database", &path))?;
        self.reader.pin.leave(&self.reader.files)?;
        // If another connection is open, or a lock is in the way, SQLite leaves the WAL alone.
        last.close().map_err(|(_, error)| DatabaseError::sqlite("close the database", &path)(error))
    }

    /// Chooses the lock that fits the WAL as it is now, without staging anything. To be called when
    /// the WAL may have restarted and a sync has to wait.
    ///
    /// # Errors
    /// If the wal-index cannot be read or the locks fail.
    pub fn settle(&mut self) -> Result<(), DatabaseError> {
        match self.captured_wal() {
            Some(captured) => self.reader.pin.settle(&self.reader.files, &captured),
            None => Ok(()),
        }
    }

    /// Whether a sync would find anything: commits that are not captured, or a file that has to be
    /// compared.
    ///
    /// # Errors
    /// If the database or its wal-index cannot be read, or the database was replaced.
    pub fn has_news(&self) -> Result<bool, DatabaseError> {
        self.reader.files.check_identity(&self.path)?;
        let Some(captured) = self.captured_wal() else { return Ok(true) };
        let header = self.reader.files.wal_index()?.header;
        let is_captured = (captured.salts, captured.frames) == (header.salts, header.mx_frame);
        Ok(!is_captured || self.file.changed_unseen(&self.reader.files)?)
    }

    /// How full the WAL is.
    ///
    /// # Errors
    /// If the wal-index cannot be read.
    pub fn wal_fill(&self) -> Result<WalFill, DatabaseError> {
        let index = self.reader.files.wal_index()?;
        let shipped = match &self.confirmed {
            Some(position) if position.wal.salts == index.header.salts => position.wal.frames,
            _ => 0,
        };
        let frame = frame_size(self.reader.page_size.get());
        let file_frames = u32::try_from(self.reader.files.wal_size()? / frame).unwrap_or(u32::MAX);
        Ok(WalFill {
            frames: index.header.mx_frame,
            shipped,
            backfilled: index.backfilled,
            file_frames,
        })
    }

    /// Makes sure that what is read is what is at the path, and that it is pinned.
    fn prepare(&mut self) -> Result<(), DatabaseError> {
        self.reader.files.check_identity(&self.path)?;
        let captured = self.captured_wal();
        self.reader.pin.hold(&self.reader.files, captured.as_ref())?;
        if self.file.changed_unseen(&self.reader.files)? {
            self.distrust = Some(HealReason::FileChanged);
        }
        Ok(())
    }

    /// Ends a piece of work: the pin goes where it belongs, and the file is known as it is.
    fn rest(&mut self) -> Result<(), DatabaseError> {
        if self.wal_pin == WalPin::None {
            self.reader.pin.release(&self.reader.files)?;
        } else {
            self.settle()?;
        }
        self.note_file()
    }

    /// Notes what the database file looks like, unless something about it is not explained yet.
    fn note_file(&mut self) -> Result<(), DatabaseError> {
        if self.distrust.is_none() && self.file.look(&self.reader.files)? {
            self.state.save_stamp(self.file.stamp())?;
        }
        Ok(())
    }

    fn stage_new(&mut self, clock: &dyn Clock) -> Result<SyncOutcome, DatabaseError> {
        for _ in 0..ATTEMPTS {
            let index = self.reader.files.wal_index()?;
            let next = self.stage_next(&index, clock.now_ms());
            if let Some(outcome) = unless_truncated(next)? {
                return Ok(outcome);
            }
        }
        Err(self.reader.unstable())
    }

    fn stage_next(
        &mut self,
        index: &WalIndex,
        now_ms: i64,
    ) -> Result<Option<SyncOutcome>, DatabaseError> {
        debug_assert!(self.reader.pin.record().is_some(), "what is read must be pinned");
        let position = match &self.history {
            History::Continue(position) => position.clone(),
            // One table at a time can be on its way to storage.
            History::Begin { .. } if !self.queue.is_empty() => {
                return Ok(Some(SyncOutcome::UpToDate));
            }
            History::Begin { txid, timestamp_ms } => {
                let (txid, now_ms) = (*txid, now_ms.max(*timestamp_ms));
                return self.stage_base(index, txid, now_ms);
            }
        };
        let now_ms = now_ms.max(position.timestamp_ms);
        let known = self.distrust != Some(HealReason::UnknownPosition);
        let view = self.wal_view(index, &position.wal)?;
        let pin = self.reader.pin.record();
        match plan_sync(known.then_some(&position.wal), &view, pin.as_ref()) {
            SyncPlan::Heal(reason) => self.stage_heal(index, position, reason, now_ms),
            _ if let Some(reason) = self.distrust => {
                self.stage_heal(index, position, reason, now_ms)
            }
            SyncPlan::Nothing => Ok(Some(SyncOutcome::UpToDate)),
            SyncPlan::Append { from, checksum } => {
                self.stage_frames(index, &position, Some((from, checksum)), now_ms)
            }
            SyncPlan::Restarted => self.stage_frames(index, &position, None, now_ms),
        }
    }

    /// Fails if all of a large database would be read, and that is not allowed.
    fn check_whole_read(&self, index: &WalIndex) -> Result<(), DatabaseError> {
        let pages = u64::from(index.header.page_count) * u64::from(self.reader.page_size.get());
        if self.reads_whole || pages.max(self.reader.files.database_size()?) < LARGE {
            return Ok(());
        }
        Err(DatabaseError::ReadsWhole { path: self.reader.files.path().to_owned() })
    }

    /// Makes a state the captured one that was read under the pin of this run.
    fn continue_from(&mut self, position: Position) {
        self.history = History::Continue(position);
        self.distrust = None;
    }

    fn captured_wal(&self) -> Option<WalPosition> {
        self.captured().map(|position| position.wal).filter(|_| self.distrust.is_none())
    }

    fn wal_view(&self, index: &WalIndex, position: &WalPosition) -> Result<WalView, DatabaseError> {
        let anchor = if index.header.salts == position.salts {
            stored_checksum(&self.reader.files, self.reader.page_size.get(), position.frames)?
        } else {
            None
        };
        Ok(WalView { salts: index.header.salts, frames: index.header.mx_frame, anchor })
    }

    fn after(&self, txid: Txid) -> Result<Txid, DatabaseError> {
        self.later(txid, 1)
    }

    fn later(&self, txid: Txid, commits: u64) -> Result<Txid, DatabaseError> {
        let exhausted =
            || DatabaseError::TxidsExhausted { path: self.reader.files.path().to_owned(), txid };
        txid.get().checked_add(commits).and_then(Txid::new).ok_or_else(exhausted)
    }
}

#[cfg(test)]
mod tests;
