//! ValidationActor: proves now and then that what is in storage can be restored.
//!
//! # Messages in / out
//! In: what happens to databases, from their actors. Out: events for receivers outside the process,
//! `RootMsg::StateLost`, since a database may rest without an actor, and requests to storage that only
//! read.
//!
//! # State
//! When each history is due: an interval after its database was opened or its last validation began, or
//! sooner if that could not be carried out. One runs at a time, over all databases, at a bounded rate.
//! That a history cannot be read for the moment is no alarm; `engine::LastingFailure` says when it is.
//!
//! # Crash
//! The due times and a validation under way are gone. The root starts a new actor and tells the
//! databases, which report again; nothing in storage was changed.
//!
//! # Back-pressure
//! A database stands in line at most once. A validation has no part in the limits of uploads, which do
//! not wait for it: it reads one file at a time.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use walrust_engine::{AfterFailure, EventKind, LastingFailure};
use walrust_history::{Finding, HistoryError, Severity, Verification, Verify, VerifyOptions};
use walrust_storage::ObjectStore;

use crate::crash_point::crash_point;
use crate::event::Event;
use crate::lost_state::LostState;
use crate::one_by_one::OneByOne;
use crate::root::RootMsg;
use crate::services::Services;
use crate::settings::ValidationSettings;

/// What a new incarnation gets.
#[derive(Clone, Debug)]
pub(crate) struct ValidationArguments {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) services: Services,
    /// Who tells databases that their newest state is lost.
    pub(crate) root: ActorRef<RootMsg>,
}

/// What the actor is told.
#[derive(Debug)]
pub(crate) enum ValidationMsg {
    /// A database is replicated, or has other settings.
    Replicated {
        /// Its name.
        database: String,
        /// When its history is due.
        settings: ValidationSettings,
        /// Whether storage has a snapshot of it. Before there is nothing to prove.
        is_stored: bool,
    },
    /// A snapshot of a database is in storage.
    SnapshotTaken {
        /// Its name.
        database: String,
    },
    /// The interval of a database has passed.
    Due {
        /// Its name.
        database: String,
        /// Only the timer that was armed last counts.
        epoch: u64,
    },
    /// A validation ended.
    Ended {
        /// Name of the database.
        database: String,
        /// What was found; nothing is known if it panicked.
        outcome: Option<Validated>,
    },
    /// The database is not replicated any more.
    Forget {
        /// Its name.
        database: String,
    },
}

/// A look at a history.
#[derive(Debug)]
pub(crate) struct Validated {
    /// When it began.
    began: SystemTime,
    /// What was found out, or why not.
    found: Result<Verification, HistoryError>,
}

impl ValidationMsg {
    /// Its name, for crash points.
    fn name(&self) -> &'static str {
        match self {
            Self::Replicated { .. } => "replicated",
            Self::SnapshotTaken { .. } => "snapshot_taken",
            Self::Due { .. } => "due",
            Self::Ended { .. } => "ended",
            Self::Forget { .. } => "forget",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ValidationActor;

/// The databases and the line.
#[derive(Debug)]
pub(crate) struct ValidationState {
    myself: ActorRef<ValidationMsg>,
    arguments: ValidationArguments,
    databases: HashMap<String, Entry>,
    runs: OneByOne<ValidationMsg, Validated>,
    epochs: u64,
}

#[derive(Debug)]
struct Entry {
    settings: ValidationSettings,
    is_stored: bool,
    /// Of the timer that counts.
    epoch: u64,
    /// Validations that could not be carried out.
    failure: LastingFailure,
}

impl Actor for ValidationActor {
    type Msg = ValidationMsg;
    type State = ValidationState;
    type Arguments = ValidationArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<ValidationMsg>,
        arguments: ValidationArguments,
    ) -> Result<ValidationState, ActorProcessingErr> {
        let ended = |database, outcome| ValidationMsg::Ended { database, outcome };
        Ok(ValidationState {
            runs: OneByOne::new(myself.clone(), ended),
            myself,
            arguments,
            databases: HashMap::new(),
            epochs: 0,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<ValidationMsg>,
        message: ValidationMsg,
        state: &mut ValidationState,
    ) -> Result<(), ActorProcessingErr> {
        crash_point("validation", message.name())?;
        match message {
            ValidationMsg::Replicated { database, settings, is_stored } => {
                state.replicated(database, settings, is_stored);
            }
            ValidationMsg::SnapshotTaken { database } => {
                if let Some(entry) = state.databases.get_mut(&database) {
                    entry.is_stored = true;
                }
            }
            ValidationMsg::Due { database, epoch } => state.due(database, epoch),
            ValidationMsg::Ended { database, outcome } => state.ended(&database, outcome),
            ValidationMsg::Forget { database } => state.forget(&database),
        }
        state.begin_next();
        Ok(())
    }
}

impl ValidationState {
    fn replicated(&mut self, database: String, settings: ValidationSettings, is_stored: bool) {
        if let Some(entry) = self.databases.get_mut(&database)
            && entry.settings == settings
        {
            entry.is_stored |= is_stored;
            return;
        }
        if settings.interval.is_zero() {
            return self.forget(&database);
        }
        let failure = LastingFailure::default();
        self.databases.insert(database.clone(), Entry { settings, is_stored, epoch: 0, failure });
        // Hundreds that begin together do not come due together.
        self.arm(&database, settings.interval.mul_f64(0.5 + fastrand::f64() / 2.0));
    }

    fn arm(&mut self, database: &str, wait: Duration) {
        let Some(entry) = self.databases.get_mut(database) else { return };
        self.epochs += 1;
        let epoch = self.epochs;
        entry.epoch = epoch;
        let database = database.to_owned();
        self.myself.send_after(wait, move || ValidationMsg::Due { database, epoch });
    }

    fn due(&mut self, database: String, epoch: u64) {
        let Some(entry) = self.databases.get(&database).filter(|entry| entry.epoch == epoch) else {
            return;
        };
        let (interval, is_stored) = (entry.settings.interval, entry.is_stored);
        self.arm(&database, interval);
        if is_stored {
            self.runs.line_up(database);
        }
    }

    fn begin_next(&mut self) {
        let Some(database) = self.runs.next() else { return };
        let Some(entry) = self.databases.get(&database) else { return };
        let options = VerifyOptions {
            parallelism: NonZeroUsize::MIN,
            bytes_per_second: Some(entry.settings.bytes_per_second).filter(|rate| *rate > 0),
            ..VerifyOptions::default()
        };
        let (store, name) = (Arc::clone(&self.arguments.store), database.clone());
        let work = async move {
            let began = SystemTime::now();
            let found = async {
                let verify = Verify::begin(store.as_ref(), &name).await?;
                verify.run(&store, &options, |_| {}).await
            };
            Validated { began, found: found.await }
        };
        self.runs.begin(database, work);
    }

    fn ended(&mut self, database: &str, outcome: Option<Validated>) {
        self.runs.ended();
        // What was let go of meanwhile may be another host's by now.
        let Some(entry) = self.databases.get_mut(database) else { return };
        let Some(Validated { began, found }) = outcome else {
            tracing::error!(db = database, "a validation panicked");
            return;
        };
        match found {
            Ok(found) => {
                entry.failure.succeeded();
                self.report(database, began, &found);
            }
            Err(error) => {
                tracing::warn!(db = database, %error, "the history could not be validated");
                let interval = entry.settings.interval;
                let AfterFailure { alarm, retry_after } =
                    entry.failure.failed(Instant::now(), error.may_pass());
                if let Some(wait) = retry_after.filter(|wait| *wait < interval) {
                    self.arm(database, wait);
                }
                if alarm {
                    let event = Event::of(EventKind::ValidationFailed, database);
                    self.arguments.services.raise(event.error(error.to_string()));
                }
            }
        }
    }

    fn report(&self, database: &str, began: SystemTime, found: &Verification) {
        let (files, bytes) = (found.files.len(), found.size());
        let (critical, warnings): (Vec<&Finding>, Vec<&Finding>) =
            found.findings.iter().partition(|it| it.problem.severity() == Severity::Critical);
        for Finding { key, problem } in &warnings {
            tracing::warn!(db = database, key, %problem, "validation");
        }
        for Finding { key, problem } in &critical {
            if problem.is_consequence() {
                // One lost file may have thousands behind it.
                tracing::debug!(db = database, key, %problem, "validation");
            } else {
                tracing::error!(db = database, key, %problem, "validation");
            }
        }
        let Some(Finding { key, problem }) = critical.first() else {
            tracing::info!(db = database, files, bytes, warnings = warnings.len(), "validated");
            return;
        };
        let raise = |kind, first: &str| {
            let event = Event::of(kind, database).error(first);
            let event = event.with("critical", critical.len()).with("warnings", warnings.len());
            self.arguments.services.raise(event);
        };
        raise(EventKind::ValidationFailed, &format!("{key}: {problem}"));
        if let Some(Finding { key, problem }) =
            critical.iter().find(|finding| finding.problem.is_corruption())
        {
            raise(EventKind::CorruptionDetected, &format!("{key}: {problem}"));
        }
        if let Some(Finding { key, problem }) = found.loss_of_newest() {
            let lost = LostState { why: format!("{key}: {problem}"), seen: began };
            // Without a root there is nobody whom it concerns.
            let _ =
                self.arguments.root.cast(RootMsg::StateLost { name: database.to_owned(), lost });
        }
    }

    fn forget(&mut self, database: &str) {
        self.databases.remove(database);
        self.runs.leave(database);
    }
}
