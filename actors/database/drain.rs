//! How a database is let go of: a last sync, the manifest, then the files.
//!
//! Invariant: what was committed before the database was told is in storage when it reports, or the
//! report says why not. What writers commit later is not waited for.

use std::sync::Arc;

use tokio::sync::Notify;

use super::job::Job;
use super::state::DatabaseState;
use crate::root::RootMsg;
use crate::status::DatabasePhase;

/// Whether the database is to be let go of, and how far that is.
#[derive(Debug, Default)]
pub(super) struct Drain {
    /// It is.
    pub(super) is_wanted: bool,
    /// A sync has begun since.
    pub(super) last_sync_begun: bool,
    /// Tells an opening that is under way.
    pub(super) stop: Arc<Notify>,
}

impl DatabaseState {
    pub(super) fn drain(&mut self) {
        self.drain.is_wanted = true;
        self.look.is_wanted = true;
        match self.phase {
            DatabasePhase::Opening => self.drain.stop.notify_one(),
            DatabasePhase::Replicating => {
                // One that nobody waits for need not go on beside the last sync.
                self.snapshot_outstanding();
                self.proceed();
            }
            _ => self.finish_draining(),
        }
    }

    /// Everything is shipped, or cannot be: writes the manifest, lets go of the database, then reports
    /// and stops.
    pub(super) fn finish_draining(&mut self) {
        if self.phase == DatabasePhase::Replicating {
            if self.snapshot_outstanding() || self.manifest_outstanding() {
                return;
            }
            if self.held.is_some() {
                return self.start(Job::Leave);
            }
        }
        self.drained();
    }

    /// Reports to the root that the files are let go of.
    pub(super) fn drained(&mut self) {
        let problem = match self.phase {
            DatabasePhase::Replicating => None,
            _ => Some(self.refusal()),
        };
        // The root may ask before this message has ended.
        self.note_standing();
        let drained = RootMsg::Drained { name: self.name().to_owned(), problem };
        self.held = None;
        if self.arguments.root.cast(drained).is_err() {
            tracing::debug!(db = self.name(), "the root is gone");
        }
        // The root ends this actor with itself. Stopping here would look like a death, of which
        // the root hears before it takes the message above.
    }
}
