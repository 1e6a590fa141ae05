//! Sees a database file that was written to in another way than by a checkpoint.
//!
//! In WAL mode only checkpoints write to the database file, and SQLite announces each one in the
//! wal-index before it writes a page. So a file that changed while the wal-index announced nothing
//! was overwritten in place (`cp`, a backup tool), under which no WAL rule holds: the pages are
//! compared.

use walrust_wal::WalIndex;

use crate::DatabaseError;
use crate::database_files::{DatabaseFiles, FileStamp};

/// What the file looked like.
#[derive(Debug)]
pub(super) struct FileWatch {
    stamp: FileStamp,
    /// What the wal-index said about checkpoints then; `None` while one was at work, or if nobody
    /// has looked in this run.
    quiet: Option<Backfill>,
    /// The file is another one than the last run saw.
    replaced: bool,
    /// The stamp is noted in local state.
    noted: bool,
}

/// The checkpoints of one generation of the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Backfill {
    salts: walrust_wal::Salts,
    attempted: u32,
}

impl FileWatch {
    /// A watch that begins with what the file looks like now, and what an earlier run saw.
    pub(super) fn new(stamp: FileStamp, before: Option<FileStamp>) -> Self {
        let replaced = before.is_some_and(|before| !before.is_same_file(&stamp));
        Self { stamp, quiet: None, replaced, noted: before == Some(stamp) }
    }

    pub(super) fn stamp(&self) -> &FileStamp {
        &self.stamp
    }

    /// Whether this is another file than the last run saw.
    pub(super) fn is_replaced(&self) -> bool {
        self.replaced
    }

    /// Whether the file changed since the last look although no checkpoint was announced.
    pub(super) fn changed_unseen(&self, files: &DatabaseFiles) -> Result<bool, DatabaseError> {
        // The file before the wal-index: a checkpoint that begins in between has written nothing.
        let stamp = files.stamp()?;
        if stamp == self.stamp {
            return Ok(false);
        }
        let now = Backfill::of(&files.wal_index()?);
        Ok(self.quiet.is_some() && self.quiet == now)
    }

    /// Looks at the file; whether its stamp is to be noted anew.
    pub(super) fn look(&mut self, files: &DatabaseFiles) -> Result<bool, DatabaseError> {
        let before = Backfill::of(&files.wal_index()?);
        let stamp = files.stamp()?;
        let after = Backfill::of(&files.wal_index()?);
        self.quiet = after.filter(|after| before == Some(*after));
        let new = stamp != self.stamp || !self.noted;
        (self.stamp, self.noted, self.replaced) = (stamp, true, false);
        Ok(new)
    }
}

impl Backfill {
    /// The checkpoints so far; `None` while one is at work or was interrupted.
    fn of(index: &WalIndex) -> Option<Self> {
        (index.backfilled == index.backfill_attempted)
            .then_some(Self { salts: index.header.salts, attempted: index.backfill_attempted })
    }
}
