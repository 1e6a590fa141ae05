//! What was last known of a database: where it stands, whoever is there to be asked.
//!
//! The end of a database has to be told of when its actor has died, is busy, or is about to be ended:
//! what its operator needs then does not go with the actor.

use std::sync::{Arc, Mutex, PoisonError};

use walrust_ltx::Txid;

use super::state::DatabaseState;
use super::{Cause, Refusal};
use crate::status::DatabasePhase;

/// What was last known of one database; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing(Arc<Mutex<Known>>);

/// What is known of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// TXID of the last state that storage has confirmed.
    pub(crate) txid: Option<Txid>,
    /// Committed frames in the WAL.
    pub(crate) wal_pages: u32,
    /// Files that are staged and not confirmed by storage.
    pub(crate) staged_files: usize,
    /// Bytes of those files.
    pub(crate) staged_bytes: u64,
    /// The last failure, until something succeeds again.
    pub(crate) last_error: Option<Refusal>,
}

impl Known {
    /// What storage said last, if it failed.
    pub(crate) fn storage_error(&self) -> Option<&str> {
        let error = self.last_error.as_ref().filter(|error| error.cause == Cause::Storage);
        error.map(|error| error.reason.as_str())
    }

    /// What is not in storage, and where it is instead.
    pub(crate) fn kept(&self) -> String {
        match (self.staged_files, self.staged_bytes) {
            (0, _) => "what is missing is kept in its WAL".to_owned(),
            (1, bytes) => format!("1 staged file ({bytes} bytes) and its WAL are kept"),
            (files, bytes) => format!("{files} staged files ({bytes} bytes) and its WAL are kept"),
        }
    }
}

impl Standing {
    /// What is known now.
    pub(crate) fn known(&self) -> Known {
        self.change(|known| known.clone())
    }

    /// What storage said last, if it failed.
    pub(crate) fn storage_error(&self) -> Option<String> {
        self.change(|known| known.storage_error().map(str::to_owned))
    }

    /// Files that an earlier run has staged.
    pub(super) fn found_staged(&self, files: usize, bytes: u64) {
        self.change(|known| (known.staged_files, known.staged_bytes) = (files, bytes));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        // Every field is right by itself.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl DatabaseState {
    /// Keeps what is known now.
    pub(super) fn note_standing(&self) {
        self.arguments.standing.change(|known| {
            known.txid = self.txid;
            if known.last_error != self.last_error {
                known.last_error.clone_from(&self.last_error);
            }
            // One that is not open has let go of the list, not of the files.
            if self.phase == DatabasePhase::Replicating {
                known.wal_pages = self.wal.frames;
                known.staged_files = self.history.staged.len();
                known.staged_bytes = self.history.staged.iter().map(|file| file.size).sum();
            }
        });
    }
}
