//! What others ask of a database, and its answers.
//!
//! Invariant: every request is answered: when storage has what was asked for, or when the database
//! cannot do it. A request that dies with the actor closes its reply, which its caller notices.

use std::time::Duration;

use ractor::RpcReplyPort;
use walrust_ltx::Txid;

use super::state::{DatabaseState, answer};
use super::{Cause, Refusal};
use crate::status::{DatabasePhase, DatabaseStatus};

impl DatabaseState {
    pub(super) fn snapshot_requested(&mut self, reply: RpcReplyPort<Result<Txid, Refusal>>) {
        match self.phase {
            DatabasePhase::Opening | DatabasePhase::Replicating => {
                self.snapshots.requests.push(reply);
                self.proceed();
            }
            _ => answer(reply, Err(self.refusal())),
        }
    }

    /// If everything that the last sync found is in storage: tells who waits for it.
    pub(super) fn caught_up(&mut self) {
        if !self.history.staged.is_empty() || self.history.outstanding.is_some() {
            return;
        }
        self.sync_requests.stored(self.txid);
        // Something that came meanwhile has waited since the look that will not find it.
        self.look.behind_since = self.look.is_wanted.then_some(self.look.last_at);
    }

    pub(super) fn sync_requested(&mut self, reply: RpcReplyPort<Result<Option<Txid>, Refusal>>) {
        match self.phase {
            DatabasePhase::Opening | DatabasePhase::Replicating => {
                self.sync_requests.ask(reply);
                self.look.is_wanted = true;
                self.proceed();
            }
            _ => answer(reply, Err(self.refusal())),
        }
    }

    pub(super) fn refusal(&self) -> Refusal {
        self.last_error.clone().unwrap_or_else(|| Refusal::new(Cause::Other, self.phase))
    }

    pub(super) fn refuse_requests(&mut self, error: &Refusal) {
        self.sync_requests.refuse(error);
        self.refuse_snapshots(error);
    }

    /// A snapshot failed; the history goes on.
    pub(super) fn refuse_snapshots(&mut self, error: &Refusal) {
        let requests = std::mem::take(&mut self.snapshots.requests);
        let waiters = std::mem::take(&mut self.snapshots.waiters);
        for reply in requests.into_iter().chain(waiters) {
            answer(reply, Err(error.clone()));
        }
    }

    pub(super) fn report_status(&self, reply: RpcReplyPort<DatabaseStatus>) {
        let up_to_date = self.phase == DatabasePhase::Replicating
            && self.held.is_some()
            && self.history.outstanding.is_none()
            && self.history.staged.is_empty()
            && !self.look.is_wanted
            && self.txid.is_some();
        answer(
            reply,
            DatabaseStatus {
                txid: self.txid,
                up_to_date,
                lag: self.look.behind_since.map_or(Duration::ZERO, |since| since.elapsed()),
                wal_pages: self.wal.frames,
                staged_files: self.history.staged.len(),
                staged_bytes: self.history.staged.iter().map(|file| file.size).sum(),
                last_error: self.last_error.as_ref().map(|error| error.reason.clone()),
                incarnation: self.arguments.incarnation,
                revision: self.arguments.revision,
                ..DatabaseStatus::new(&self.arguments.settings, self.phase)
            },
        );
    }
}
