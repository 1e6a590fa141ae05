//! Finds out what the bucket's head means for a database.
//!
//! Invariant: a head is continued only if the database is proven to have been in its state, by the
//! frames that lead there, or if a table of the head's page checksums is there, which the next sync
//! compares with the database page by page. Anything else begins a new chain, after everything that
//! is stored.
//!
//! That the rolling checksum of the database is that of the head is no such proof. It is a XOR of
//! checksums that are linear: where the same bytes of two pages change by the same difference (two
//! tables of one row, say), it remains what it was.

use walrust_engine::{HealReason, Position, WalPosition};
use walrust_ltx::{Checksum, Header, PageSize, Txid};
use walrust_wal::{Salts, frame_size};

use super::head_table::HeadTable;
use super::{Capture, History};
use crate::DatabaseError;
use crate::database_reader::wal_position;
use crate::page_checksums::{NewPageChecksums, PageChecksums};
use crate::wal_source::stored_checksum;

/// The newest state in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its TXID.
    pub txid: Txid,
    /// Its rolling checksum; `None` if the file does not track checksums or is damaged.
    pub checksum: Option<Checksum>,
    /// Page size of the database.
    pub page_size: PageSize,
    /// Size of the database in pages.
    pub page_count: u32,
    /// Timestamp of its file, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Salts of the WAL that its file was made of, and where in it that file ends, in frames.
    pub wal: Option<(Salts, u32)>,
}

impl Head {
    /// The state after a file with this header and post-apply checksum.
    #[must_use]
    pub fn of_file(header: &Header, post_apply: Option<Checksum>) -> Self {
        let end = header.wal_offset.checked_add(header.wal_size);
        let frames_bytes = end.and_then(|end| u64::try_from(end).ok()?.checked_sub(32));
        let frames = frames_bytes.map(|bytes| bytes / frame_size(header.page_size.get()));
        let frames = frames.and_then(|frames| u32::try_from(frames).ok());
        let salts = Salts(header.wal_salt1, header.wal_salt2);
        Self {
            txid: header.max_txid,
            checksum: post_apply,
            page_size: header.page_size,
            page_count: header.commit,
            timestamp_ms: header.timestamp_ms,
            wal: frames.filter(|frames| *frames > 0).map(|frames| (salts, frames)),
        }
    }
}

/// What the bucket's head means for the local position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconciliation {
    /// The local position is the head.
    Agrees,
    /// The database was in the state of the head, which becomes the position.
    Adopted,
    /// Not without the pages of the head: give its files to [`Capture::head_table`], or begin a new
    /// chain.
    Differs {
        /// The state whose table is here: the files after it are enough. `None`: all of them.
        after: Option<Txid>,
    },
}

impl Capture {
    /// Compares the local position with the head of the bucket. To be called once after opening,
    /// and before the first sync.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn reconcile(&mut self, head: Option<&Head>) -> Result<Reconciliation, DatabaseError> {
        let Some(head) = head else {
            if self.confirmed.is_some() {
                // The bucket was emptied.
                self.forget_staged()?;
                return Ok(Reconciliation::Differs { after: None });
            }
            return Ok(Reconciliation::Agrees);
        };
        let (Some(checksum), true) = (head.checksum, head.page_size == self.reader.page_size)
        else {
            self.forget_staged()?;
            return Ok(Reconciliation::Differs { after: None });
        };
        if let Some(position) = &self.confirmed
            && (position.txid, position.checksum) == (head.txid, checksum)
        {
            return Ok(Reconciliation::Agrees);
        }
        if let Some(files) = self.queue.reaching(head.txid, checksum) {
            let names: Vec<_> = self.queue.files().take(files).map(|file| file.name).collect();
            for name in names {
                self.confirm(name)?;
            }
            return Ok(Reconciliation::Adopted);
        }
        self.forget_staged()?;
        if self.adopt_by_frames(head, checksum)? {
            return Ok(Reconciliation::Adopted);
        }
        let after = self.confirmed.as_ref().map(|position| position.txid);
        Ok(Reconciliation::Differs { after: after.filter(|txid| *txid < head.txid) })
    }

    /// A table for the page checksums of the head: continues that of the local position, or is
    /// empty and takes all files from a snapshot on.
    ///
    /// # Errors
    /// If the table cannot be written.
    pub fn head_table(&self, head: &Head, after: Option<Txid>) -> Result<HeadTable, DatabaseError> {
        let path = self.state.new_table_path();
        let from = match (&self.confirmed, after) {
            (Some(position), Some(after)) if position.txid == after => {
                self.state.copy_table()?;
                Some((position.txid, position.page_count))
            }
            _ => {
                NewPageChecksums::create(&path)?.finish(0)?;
                None
            }
        };
        Ok(HeadTable::new(PageChecksums::open(&path)?, head.page_size, from))
    }

    /// Makes the head the position, whose pages the next sync compares with the database; `false` if
    /// the table is not that of the head.
    ///
    /// # Errors
    /// If local state cannot be saved.
    pub fn adopt_table(&mut self, table: HeadTable, head: &Head) -> Result<bool, DatabaseError> {
        let rolling = table.table.rolling()?;
        let fits = Some(rolling) == head.checksum && table.page_count == head.page_count;
        if !fits || head.page_size != self.reader.page_size {
            return Ok(false);
        }
        self.save_adopted(head, rolling, WalPosition::UNKNOWN)?;
        self.distrust = Some(HealReason::UnknownPosition);
        Ok(true)
    }

    /// Gives the history up: the next file is a snapshot, with the TXID that is returned, after
    /// everything that was ever stored under this name, as far as anybody knows.
    ///
    /// # Errors
    /// If there is no later TXID.
    pub fn begin_new_chain(&mut self, head: Option<&Head>) -> Result<Txid, DatabaseError> {
        self.forget_staged()?;
        let local = self.confirmed.as_ref().map(|position| (position.txid, position.timestamp_ms));
        let newest = local.into_iter().chain(head.map(|head| (head.txid, head.timestamp_ms)));
        let (txid, timestamp_ms) = match newest.max() {
            Some((txid, timestamp_ms)) => (self.after(txid)?, timestamp_ms),
            None => (Txid::FIRST, i64::MIN),
        };
        self.history = History::Begin { txid, timestamp_ms };
        Ok(txid)
    }

    /// Goes back to what storage has confirmed.
    fn forget_staged(&mut self) -> Result<(), DatabaseError> {
        if self.queue.is_empty() {
            return Ok(());
        }
        self.queue.clear()?;
        self.history = match self.confirmed.clone() {
            Some(position) => History::Continue(position),
            None => History::Begin { txid: Txid::FIRST, timestamp_ms: i64::MIN },
        };
        Ok(())
    }

    /// Finds the head in the WAL: a TXID is a commit, so it ends at a certain frame, and the pages
    /// up to there must add up to its checksum.
    fn adopt_by_frames(&mut self, head: &Head, checksum: Checksum) -> Result<bool, DatabaseError> {
        let (Some(position), Some((salts, to))) = (self.confirmed.clone(), head.wal) else {
            return Ok(false);
        };
        let index = self.reader.files.wal_index()?;
        let commits = head.txid.get().checked_sub(position.txid.get());
        if index.header.salts != salts || index.header.mx_frame < to || self.distrust.is_some() {
            return Ok(false);
        }
        let resume = if position.wal.salts == salts {
            let page_size = self.reader.page_size.get();
            let stored = stored_checksum(&self.reader.files, page_size, position.wal.frames)?;
            if position.wal.frames >= to || stored != Some(position.wal.checksum) {
                return Ok(false);
            }
            (position.wal.frames > 0).then_some((position.wal.frames, position.wal.checksum))
        } else {
            None
        };
        let mut delta = match self.read_delta(&index, &position, resume, to) {
            Ok(Some(delta)) => delta,
            // Not the end of a commit: the head was made of another WAL.
            Ok(None) | Err(DatabaseError::WalDamaged { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        if Some(delta.frames.commits) != commits || delta.frames.page_count != Some(head.page_count)
        {
            return Ok(false);
        }
        let of_page = |pgno, page: &[u8]| Ok(Checksum::of_page(pgno, page));
        let sums = self.replace_pages(&position, &mut delta, of_page)?;
        if sums.rolling != checksum || !self.reader.is_current_index(&index)? {
            return Ok(false);
        }
        let next = head.position(checksum, wal_position(&index, &delta.frames));
        self.state.save(&next, &sums.changes)?;
        self.confirmed = Some(next.clone());
        self.continue_from(next);
        Ok(true)
    }

    fn save_adopted(
        &mut self,
        head: &Head,
        rolling: Checksum,
        wal: WalPosition,
    ) -> Result<(), DatabaseError> {
        let position = head.position(rolling, wal);
        self.state.save_with_new_table(&position)?;
        self.confirmed = Some(position.clone());
        self.history = History::Continue(position);
        Ok(())
    }
}

impl Head {
    fn position(&self, checksum: Checksum, wal: WalPosition) -> Position {
        Position {
            txid: self.txid,
            checksum,
            page_size: self.page_size,
            page_count: self.page_count,
            timestamp_ms: self.timestamp_ms,
            wal,
        }
    }
}
