//! What a database does about a history that cannot be continued: a snapshot begins a new chain.
//!
//! # Consistency
//! A chain ends because a snapshot does not fit it, or because storage cannot give its newest state
//! back: objects are gone or damaged. Its files stay as they are, for the states that they still lead
//! to. The new chain has a TXID of its own, so nothing is overwritten, and a database to which nothing
//! happens gets one as well.
//!
//! # Crash
//! An end that was not carried out is forgotten. Opening the database looks at what storage lists, and
//! the next validation at the rest.

use std::sync::Arc;
use std::time::SystemTime;

use walrust_engine::object_key;
use walrust_history::{HistoryError, check_file};
use walrust_ltx::{FileName, Txid};
use walrust_sqlite::StagedFile;

use super::state::DatabaseState;
use super::{Cause, DatabaseMsg, Refusal};
use crate::lost_state::LostState;
use crate::status::DatabasePhase;

/// How a chain comes to its end.
#[derive(Debug, Default)]
pub(super) struct Healing {
    /// Why the chain is to end.
    pub(super) ends: Option<String>,
    /// Why it has ended; its successor is not in storage yet.
    pub(super) ended: Option<String>,
}

impl DatabaseState {
    /// Storage cannot give the newest state back.
    pub(super) fn state_lost(&mut self, lost: LostState) {
        let LostState { why, seen } = lost;
        let is_made_up_for = self.snapshots.last_at.is_some_and(|at| at >= seen);
        if self.phase != DatabasePhase::Replicating
            || is_made_up_for
            || self.healing.ended.is_some()
        {
            return;
        }
        tracing::error!(db = self.name(), error = why, "storage has lost the newest state");
        self.last_error = Some(Refusal::new(Cause::Storage, &why));
        self.healing.ends = Some(why);
        self.proceed();
    }

    /// The snapshot that begins the new chain is in storage.
    pub(super) fn chain_begun(&mut self, file: &StagedFile) {
        if let Some(reason) = self.healing.ended.take() {
            let (txid, pages) = (file.name.max, file.pages);
            tracing::warn!(db = self.name(), reason, %txid, pages, "history gap healed");
            self.raise_healed(&reason, file);
        }
    }

    /// Somebody wants a snapshot of a state that has one: reads it, so that what they are told is so.
    pub(super) fn check_snapshot(&self, txid: Txid) {
        let (store, myself) = (Arc::clone(&self.arguments.store), self.myself.clone());
        let (database, name) = (self.name().to_owned(), FileName { min: Txid::FIRST, max: txid });
        tokio::spawn(async move {
            let seen = SystemTime::now();
            let checked = match check_file(&store, &database, name).await {
                Ok(problem) => Ok(problem.map(|problem| {
                    let why = format!("{}: {problem}", object_key(&database, name));
                    LostState { why, seen }
                })),
                Err(HistoryError::Storage(error)) => Err(Refusal::from(&error)),
                Err(error) => Err(Refusal::new(Cause::Other, error)),
            };
            // If the actor is gone, so are those who waited.
            let _ = myself.cast(DatabaseMsg::SnapshotChecked { txid, checked });
        });
    }

    pub(super) fn snapshot_checked(
        &mut self,
        txid: Txid,
        checked: Result<Option<LostState>, Refusal>,
    ) {
        match checked {
            Ok(None) => self.snapshot_done(txid),
            // Who waits gets the snapshot that begins the new chain.
            Ok(Some(lost)) => self.state_lost(lost),
            Err(error) => self.refuse_snapshots(&error),
        }
        self.proceed();
    }
}
