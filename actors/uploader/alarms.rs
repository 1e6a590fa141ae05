//! Reports failed uploads: every attempt in the log, every lasting problem to the receivers of events,
//! once and again now and then.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use walrust_engine::{ErrorClass, EventKind, LastingAlarm};
use walrust_storage::StorageError;

use crate::event::Event;
use crate::services::Services;

/// What was said about databases whose uploads fail.
#[derive(Debug)]
pub(super) struct Alarms {
    services: Services,
    /// What was raised since the last success, by database.
    raised: HashMap<String, Raised>,
}

/// What was raised about the uploads of one database.
#[derive(Debug, Default)]
struct Raised {
    auth_failure: LastingAlarm,
    sync_failed: LastingAlarm,
}

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failure<'a> {
    pub(super) database: &'a str,
    pub(super) error: &'a StorageError,
    /// Its number; the first is 1.
    pub(super) attempt: u32,
    /// When the next one follows.
    pub(super) retry_in: Duration,
    /// Whether somebody should be told.
    pub(super) alarm: bool,
}

impl Alarms {
    pub(super) fn new(services: Services) -> Self {
        Self { services, raised: HashMap::new() }
    }

    /// An attempt failed.
    pub(super) fn failed(&mut self, failure: &Failure<'_>) {
        let Failure { database, error, attempt, retry_in, alarm } = *failure;
        let retry_ms = retry_in.as_millis();
        let (kind, words) = match error.class() {
            ErrorClass::Auth => (EventKind::AuthFailure, "storage refuses the credentials"),
            ErrorClass::NotFound | ErrorClass::Permanent => {
                (EventKind::SyncFailed, "upload failed, and waiting alone will not mend it")
            }
            _ => (EventKind::SyncFailed, "upload fails again and again"),
        };
        if !alarm {
            tracing::warn!(db = database, attempt, retry_ms, %error, "upload failed, will be tried again");
            return;
        }
        tracing::error!(db = database, attempt, retry_ms, %error, "{words}");
        let raised = self.raised.entry(database.to_owned()).or_default();
        let alarm = match kind {
            EventKind::AuthFailure => &mut raised.auth_failure,
            _ => &mut raised.sync_failed,
        };
        if alarm.set(Instant::now()) {
            let event = Event::of(kind, database).error(error.to_string()).attempts(attempt);
            self.services.raise(event);
        }
    }

    /// Storage has refused the credentials to a database that is being opened.
    pub(super) fn refused(&mut self, database: &str, error: &str) {
        if self.raised.entry(database.to_owned()).or_default().auth_failure.set(Instant::now()) {
            tracing::error!(db = database, error, "storage refuses the credentials");
            self.services.raise(Event::of(EventKind::AuthFailure, database).error(error));
        }
    }

    /// An upload succeeded: the next trouble is a new one.
    pub(super) fn succeeded(&mut self, database: &str) {
        if self.raised.remove(database).is_some() {
            tracing::info!(db = database, "uploads succeed again");
        }
    }

    /// Nobody uploads for this database any more.
    pub(super) fn forget(&mut self, database: &str) {
        self.raised.remove(database);
    }
}
