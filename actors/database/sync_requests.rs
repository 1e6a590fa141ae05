//! Who waits until storage has everything that was committed before they asked.
//!
//! Invariant: an answer is given only after a sync that began after the question found everything in
//! storage; a database that cannot be replicated refuses, so nobody waits for ever.

use ractor::RpcReplyPort;
use walrust_ltx::Txid;

use super::Refusal;
use super::state::answer;

/// The answer to one request: the TXID that storage has.
type Reply = RpcReplyPort<Result<Option<Txid>, Refusal>>;

/// The requests of one database.
#[derive(Debug, Default)]
pub(super) struct SyncRequests {
    /// No sync has begun since.
    asked: Vec<Reply>,
    /// A sync has begun since, and what it found may be on its way.
    begun: Vec<Reply>,
}

impl SyncRequests {
    /// Whether a sync has to begin for somebody.
    pub(super) fn any_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Whether anybody waits.
    pub(super) fn any(&self) -> bool {
        !self.asked.is_empty() || !self.begun.is_empty()
    }

    pub(super) fn ask(&mut self, reply: Reply) {
        self.asked.push(reply);
    }

    /// A sync begins.
    pub(super) fn begin(&mut self) {
        self.begun.append(&mut self.asked);
    }

    /// Everything that the last sync found is in storage.
    pub(super) fn stored(&mut self, txid: Option<Txid>) {
        for reply in self.begun.drain(..) {
            answer(reply, Ok(txid));
        }
    }

    /// The database cannot be replicated.
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        for reply in self.asked.drain(..).chain(self.begun.drain(..)) {
            answer(reply, Err(refusal.clone()));
        }
    }
}
