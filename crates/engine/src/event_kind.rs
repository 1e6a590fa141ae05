//! What an operator may want to be told about.

use std::fmt;
use std::str::FromStr;

/// The kind of an event, as webhooks name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// Uploads of a database fail again and again.
    SyncFailed,
    /// Storage refuses the credentials.
    AuthFailure,
    /// A file or a database is damaged.
    CorruptionDetected,
    /// Requests to a failing endpoint are held back.
    CircuitBreakerOpen,
    /// The endpoint answers again.
    CircuitBreakerClosed,
    /// A database cannot be replicated.
    DatabaseUnavailable,
    /// A database is replicated again.
    DatabaseRecovered,
    /// Another process replicates into the same name.
    WriterConflict,
    /// Frames were missed, and the pages that differ were shipped instead.
    HistoryGapHealed,
    /// A snapshot is in storage.
    SnapshotCompleted,
    /// A check of the stored files failed.
    ValidationFailed,
    /// A changed configuration file is not valid, and nothing of it was applied.
    ConfigRejected,
    /// An actor crashed too often and is left alone for a while.
    ActorQuarantined,
    /// Sent now and then, so that its absence can be noticed.
    Heartbeat,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::SyncFailed,
        Self::AuthFailure,
        Self::CorruptionDetected,
        Self::CircuitBreakerOpen,
        Self::CircuitBreakerClosed,
        Self::DatabaseUnavailable,
        Self::DatabaseRecovered,
        Self::WriterConflict,
        Self::HistoryGapHealed,
        Self::SnapshotCompleted,
        Self::ValidationFailed,
        Self::ConfigRejected,
        Self::ActorQuarantined,
        Self::Heartbeat,
    ];

    /// Its name in webhooks and in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SyncFailed => "sync_failed",
            Self::AuthFailure => "auth_failure",
            Self::CorruptionDetected => "corruption_detected",
            Self::CircuitBreakerOpen => "circuit_breaker_open",
            Self::CircuitBreakerClosed => "circuit_breaker_closed",
            Self::DatabaseUnavailable => "database_unavailable",
            Self::DatabaseRecovered => "database_recovered",
            Self::WriterConflict => "writer_conflict",
            Self::HistoryGapHealed => "history_gap_healed",
            Self::SnapshotCompleted => "snapshot_completed",
            Self::ValidationFailed => "validation_failed",
            Self::ConfigRejected => "config_rejected",
            Self::ActorQuarantined => "actor_quarantined",
            Self::Heartbeat => "heartbeat",
        }
    }

    /// Whether it tells of a danger to data: where not everything can be kept, this is.
    #[must_use]
    pub fn is_critical(self) -> bool {
        match self {
            Self::SyncFailed
            | Self::AuthFailure
            | Self::CorruptionDetected
            | Self::CircuitBreakerOpen
            | Self::DatabaseUnavailable
            | Self::WriterConflict
            | Self::ValidationFailed
            | Self::ActorQuarantined => true,
            Self::CircuitBreakerClosed
            | Self::DatabaseRecovered
            | Self::HistoryGapHealed
            | Self::SnapshotCompleted
            | Self::ConfigRejected
            | Self::Heartbeat => false,
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No event has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no event {0:?}")]
pub struct UnknownEvent(pub String);

impl FromStr for EventKind {
    type Err = UnknownEvent;

    fn from_str(name: &str) -> Result<Self, UnknownEvent> {
        let kind = Self::ALL.into_iter().find(|kind| kind.as_str() == name);
        kind.ok_or_else(|| UnknownEvent(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_a_name_of_its_own_that_leads_back_to_it() {
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert!("sync_faild".parse::<EventKind>().is_err());
    }
}
