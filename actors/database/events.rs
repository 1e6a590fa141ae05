//! What a database raises for receivers outside the process.

use std::fmt::Display;

use walrust_engine::EventKind;
use walrust_sqlite::StagedFile;

use super::state::DatabaseState;
use crate::event::Event;

impl DatabaseState {
    /// It cannot be replicated: raised once, until it is replicated again.
    pub(super) fn raise_unavailable(&self, error: &str) {
        if self.arguments.availability.set_unavailable() {
            self.raise(self.event(EventKind::DatabaseUnavailable).error(error));
        }
    }

    /// The database or its WAL is damaged: raised once, until it is replicated again.
    pub(super) fn raise_corruption(&self, error: &str) {
        if self.arguments.availability.set_corrupt() {
            self.raise(self.event(EventKind::CorruptionDetected).error(error));
        }
    }

    /// Something worked: the end of what was raised above.
    pub(super) fn raise_recovered(&self) {
        if self.arguments.availability.set_available() {
            self.raise(self.event(EventKind::DatabaseRecovered));
        }
    }

    pub(super) fn raise_healed(&self, reason: &dyn Display, file: &StagedFile) {
        let event = self
            .event(EventKind::HistoryGapHealed)
            .with("reason", reason.to_string())
            .with("pages", file.pages)
            .with("txid", file.name.max.get());
        self.raise(event);
    }

    /// Storage has a snapshot.
    pub(super) fn raise_snapshot(&self, file: &StagedFile) {
        let event = self
            .event(EventKind::SnapshotCompleted)
            .with("txid", file.name.max.get())
            .with("bytes", file.size);
        self.raise(event);
    }

    fn event(&self, kind: EventKind) -> Event {
        Event::of(kind, self.name())
    }

    fn raise(&self, event: Event) {
        self.arguments.services.raise(event);
    }
}
