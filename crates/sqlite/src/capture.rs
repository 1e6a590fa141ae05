//! Captures the commits of one database: from its WAL to staged LTX files, and from the
//! confirmation of storage to the next position.
//!
//! # Consistency
//! A file is staged from a state that a pin keeps readable, and the position moves only with
//! [`Capture::confirm`]. At most one file (or an incremental with its snapshot) is open at a time;
//! commits that arrive meanwhile stay in the WAL behind the pin and go into the next file.
//!
//! # Crash
//! Between an upload and `confirm` the bucket is ahead of the position. The next start sees it in
//! the listing, and [`Capture::reconcile`] takes the head over if the database still is in that
//! state, or begins a new chain with a snapshot behind it. Nothing is ever overwritten.
//!
//! # Order of dropping
//! Connections go before the descriptors of the files, which go before the lock.

use std::path::Path;

use walrust_engine::{HealReason, PinRecord, Position, SyncPlan, WalPosition, WalView, plan_sync};
use walrust_ltx::{Checksum, PageSize, Pgno, Txid};
use walrust_wal::{Salts, WalIndex};

use crate::DatabaseError;
use crate::database_files::check_database;
use crate::database_reader::{ATTEMPTS, DatabaseReader};
use crate::staging::StagedFile;
use crate::state_directory::StateDirectory;
use crate::wal_source::stored_checksum;

mod stage;

/// One database that is being replicated by this process.
#[derive(Debug)]
pub struct Capture {
    reader: DatabaseReader,
    state: StateDirectory,
    history: History,
    /// The position comes from an earlier run and ends in no generation of the WAL. Then an empty
    /// WAL proves nothing: others may have written, checkpointed and removed it meanwhile.
    wal_is_unknown: bool,
    pending: Option<Pending>,
}

/// A database without a WAL, or with an empty one, has these salts.
const NO_GENERATION: Salts = Salts(0, 0);

/// What the next file continues.
#[derive(Clone, Debug, PartialEq, Eq)]
enum History {
    /// The last state that storage has confirmed.
    Continue(Position),
    /// Nothing: the next file is a snapshot with this TXID.
    Begin {
        /// TXID of the snapshot.
        txid: Txid,
        /// Its timestamp is not earlier than this.
        timestamp_ms: i64,
    },
}

/// A staged file and the position that its confirmation leads to.
#[derive(Debug)]
struct Pending {
    file: StagedFile,
    next: Position,
    changes: Changes,
}

/// How the table of page checksums changes with a file.
#[derive(Debug)]
enum Changes {
    Pages(Vec<(Pgno, Checksum)>),
    NewTable,
}

/// The newest state in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its TXID.
    pub txid: Txid,
    /// Its rolling checksum; `None` if the file does not track checksums.
    pub checksum: Option<Checksum>,
    /// Page size of the database.
    pub page_size: PageSize,
    /// Size of the database in pages.
    pub page_count: u32,
    /// Timestamp of its file, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

/// What the bucket's head means for the local position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconciliation {
    /// The local position is the head.
    Agrees,
    /// The database is in the state of the head, which becomes the position.
    Adopted,
    /// Neither: the next file is a snapshot behind the head.
    NewSnapshot {
        /// Its TXID.
        txid: Txid,
    },
}

/// What a sync came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncOutcome {
    /// Storage has everything.
    UpToDate,
    /// A file waits for its upload.
    Staged {
        /// The file.
        file: StagedFile,
        /// Why pages had to be compared, if they had to.
        healed: Option<HealReason>,
    },
}

/// The files of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedSnapshot {
    /// Commits that were not shipped yet; goes first and is confirmed on its own.
    pub incremental: Option<StagedFile>,
    /// The snapshot. `None` if the base snapshot is what is staged as `incremental`.
    pub snapshot: Option<StagedFile>,
}

/// How full the WAL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalStatus {
    /// Committed frames.
    pub frames: u32,
    /// Frames that storage has confirmed.
    pub shipped: u32,
    /// Frames that are in the database file as well.
    pub backfilled: u32,
}

impl Capture {
    /// Opens a database, locks its local state, and pins its WAL.
    ///
    /// # Errors
    /// If the file is not a database in WAL mode, cannot be read, or is replicated by another
    /// process of this host.
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        // Before the lock, which leaves a directory beside the database.
        check_database(path)?;
        let state = StateDirectory::open(path)?;
        let reader = DatabaseReader::open(path)?;
        let history = match state.load()? {
            Some(position) => History::Continue(position),
            None => History::Begin { txid: Txid::FIRST, timestamp_ms: i64::MIN },
        };
        let wal_is_unknown = matches!(
            &history,
            History::Continue(position) if position.wal.salts == NO_GENERATION
        );
        Ok(Self { reader, state, history, wal_is_unknown, pending: None })
    }

    /// The last state that storage has confirmed, if any.
    #[must_use]
    pub fn position(&self) -> Option<&Position> {
        match &self.history {
            History::Continue(position) => Some(position),
            History::Begin { .. } => None,
        }
    }

    /// Compares the local position with the head of the bucket and decides what the next file is.
    /// To be called once after opening, and before the first sync.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn reconcile(&mut self, head: Option<&Head>) -> Result<Reconciliation, DatabaseError> {
        let local = self.position().map(|position| (position.txid, position.timestamp_ms));
        if let (History::Continue(position), Some(head)) = (&self.history, head)
            && position.txid == head.txid
            && head.checksum == Some(position.checksum)
            && position.page_size == self.reader.page_size
        {
            return Ok(Reconciliation::Agrees);
        }
        if let Some(head) = head
            && self.adopt(head)?
        {
            return Ok(Reconciliation::Adopted);
        }
        // Behind everything that was ever stored under this name, as far as anybody knows.
        let newest = local.into_iter().chain(head.map(|head| (head.txid, head.timestamp_ms)));
        let (txid, timestamp_ms) = match newest.max() {
            Some((txid, timestamp_ms)) => (self.after(txid)?, timestamp_ms),
            None => (Txid::FIRST, i64::MIN),
        };
        self.history = History::Begin { txid, timestamp_ms };
        Ok(Reconciliation::NewSnapshot { txid })
    }

    /// Stages what was committed since the position.
    ///
    /// # Errors
    /// If the database or its WAL cannot be read, or the file cannot be written. The position
    /// stays as it is, so the next sync tries again.
    pub fn sync(&mut self, now_ms: i64) -> Result<SyncOutcome, DatabaseError> {
        self.discard()?;
        for _ in 0..ATTEMPTS {
            let index = self.reader.files.wal_index()?;
            if let Some(outcome) = self.stage_next(&index, now_ms)? {
                return Ok(outcome);
            }
        }
        Err(self.reader.unstable())
    }

    /// Stages a snapshot of the newest state, and before it what was not shipped yet.
    ///
    /// # Errors
    /// As [`sync`](Self::sync). If the database is not what its history says, the history ends
    /// and the next sync begins a new chain.
    pub fn snapshot(&mut self, now_ms: i64) -> Result<StagedSnapshot, DatabaseError> {
        self.discard()?;
        for _ in 0..ATTEMPTS {
            let index = self.reader.files.wal_index()?;
            if let Some(staged) = self.stage_snapshot(&index, now_ms)? {
                return Ok(staged);
            }
        }
        Err(self.reader.unstable())
    }

    /// Storage has the staged file: moves the position and the pin.
    ///
    /// # Errors
    /// If local state cannot be saved, or SQLite refuses the new pin. The file is in storage all
    /// the same, which the next start finds out.
    pub fn confirm(&mut self) -> Result<(), DatabaseError> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        match &pending.changes {
            Changes::Pages(changes) => self.state.save(&pending.next, changes)?,
            Changes::NewTable => self.state.save_with_new_table(&pending.next)?,
        }
        let salts = pending.next.wal.salts;
        self.continue_from(pending.next);
        pending.file.remove()?;
        self.reader.pin.advance(&self.reader.files, salts)
    }

    /// Gives up a staged file that was not confirmed; its frames are staged again by the next sync.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn discard(&mut self) -> Result<(), DatabaseError> {
        match self.pending.take() {
            Some(pending) => pending.file.remove(),
            None => Ok(()),
        }
    }

    /// How full the WAL is.
    ///
    /// # Errors
    /// If the wal-index cannot be read.
    pub fn wal_status(&self) -> Result<WalStatus, DatabaseError> {
        let index = self.reader.files.wal_index()?;
        let shipped = match &self.history {
            History::Continue(position) if position.wal.salts == index.header.salts => {
                position.wal.frames
            }
            _ => 0,
        };
        Ok(WalStatus { frames: index.header.mx_frame, shipped, backfilled: index.backfilled })
    }

    /// Copies shipped frames into the database file, so that the WAL can restart.
    ///
    /// Waits for nobody. Returns whether the whole WAL was copied.
    ///
    /// # Errors
    /// If SQLite fails for another reason than a lock.
    pub fn checkpoint(&mut self) -> Result<bool, DatabaseError> {
        let History::Continue(position) = &self.history else { return Ok(false) };
        let complete = self.reader.pin.checkpoint_passive(self.reader.files.path())?;
        // Behind a complete checkpoint the new read transaction takes read lock 0, under which the
        // next writer restarts the WAL.
        self.reader.pin.advance(&self.reader.files, position.wal.salts)?;
        Ok(complete)
    }

    fn stage_next(
        &mut self,
        index: &WalIndex,
        now_ms: i64,
    ) -> Result<Option<SyncOutcome>, DatabaseError> {
        let position = match &self.history {
            History::Continue(position) => position.clone(),
            History::Begin { txid, timestamp_ms } => {
                let (txid, now_ms) = (*txid, now_ms.max(*timestamp_ms));
                return self.stage_base(index, txid, now_ms);
            }
        };
        let now_ms = now_ms.max(position.timestamp_ms);
        let view = self.wal_view(index, &position.wal)?;
        let pin: PinRecord = self.reader.pin.record(&self.reader.files)?;
        let known = (!self.wal_is_unknown).then_some(&position.wal);
        match plan_sync(known, &view, &pin) {
            SyncPlan::Nothing => Ok(Some(SyncOutcome::UpToDate)),
            SyncPlan::Append { from, checksum } => {
                self.stage_frames(index, &position, Some((from, checksum)), now_ms)
            }
            SyncPlan::Restarted => self.stage_frames(index, &position, None, now_ms),
            SyncPlan::Heal(reason) => self.stage_heal(index, position, reason, now_ms),
        }
    }

    /// Makes a state the position that was read, or shipped, under the pin of this run.
    fn continue_from(&mut self, position: Position) {
        self.history = History::Continue(position);
        self.wal_is_unknown = false;
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
