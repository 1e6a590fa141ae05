//! RetentionActor: looks after the age of histories.
//!
//! # Messages in / out
//! In: what happens to databases, from their actors. Out: nothing but requests to storage.
//!
//! # State
//! When the history of each database is due: after a snapshot, or after an interval. One run at a
//! time, over all databases; of one database that becomes due again meanwhile one more run follows.
//! A run plans and carries out with `walrust_history::Retention`; it says how long there is nothing
//! more to do, and until then a database that does not change is not looked at. It also says which
//! files are odd, and the next run does not read these again.
//!
//! # Crash
//! The due times and a run under way are gone. The root starts a new actor and tells the databases,
//! which report again. Every step of a run leaves a history of which each restore point can be
//! restored, and the next run goes on where it ended.
//!
//! # Back-pressure
//! A database stands in line at most once. A run has no part in the limits of uploads, which do not
//! wait for it: it makes one request at a time, or a few small ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use walrust_engine::manifest::Writer;
use walrust_history::{HistoryError, OddFiles, Retention, RetentionReport};
use walrust_storage::ObjectStore;

use crate::crash_point::crash_point;
use crate::one_by_one::OneByOne;
use crate::settings::CompactionSettings;

/// How long a history that does not change is left alone after an error that needs a person.
const STUCK_MS: i64 = 3_600_000;

/// What a new incarnation gets.
#[derive(Clone, Debug)]
pub(crate) struct RetentionArguments {
    pub(crate) store: Arc<dyn ObjectStore>,
}

/// What the actor is told.
#[derive(Debug)]
pub(crate) enum RetentionMsg {
    /// A database is replicated, or has other settings.
    Replicated {
        /// Its name.
        database: String,
        /// When its history is due, and what of it stays.
        settings: CompactionSettings,
        /// Who owns its name. After another writer has taken it over nothing is done.
        writer: Writer,
    },
    /// The manifest of a database has new files.
    Indexed {
        /// Its name.
        database: String,
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
    /// A run ended.
    Ended {
        /// Name of the database.
        database: String,
        /// What was done; nothing is known if the run panicked.
        outcome: Option<Outcome>,
    },
    /// The database is not replicated any more.
    Forget {
        /// Its name.
        database: String,
    },
}

impl RetentionMsg {
    /// Its name, for crash points.
    fn name(&self) -> &'static str {
        match self {
            Self::Replicated { .. } => "replicated",
            Self::Indexed { .. } => "indexed",
            Self::SnapshotTaken { .. } => "snapshot_taken",
            Self::Due { .. } => "due",
            Self::Ended { .. } => "ended",
            Self::Forget { .. } => "forget",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RetentionActor;

type Outcome = Result<RetentionReport, HistoryError>;

/// The databases and the line.
#[derive(Debug)]
pub(crate) struct RetentionState {
    myself: ActorRef<RetentionMsg>,
    store: Arc<dyn ObjectStore>,
    databases: HashMap<String, Entry>,
    runs: OneByOne<RetentionMsg, Outcome>,
    epochs: u64,
}

#[derive(Debug)]
struct Entry {
    settings: CompactionSettings,
    writer: Writer,
    /// Of the timer that counts.
    epoch: u64,
    /// Until then there is nothing to do, in milliseconds since the Unix epoch: the last run says so,
    /// and the manifest has got nothing new since it began.
    quiet_until_ms: Option<i64>,
    /// What the last run has left alone.
    odd: OddFiles,
}

impl Entry {
    fn is_quiet(&self) -> bool {
        self.quiet_until_ms.is_some_and(|until| now().as_millisecond() < until)
    }
}

impl Actor for RetentionActor {
    type Msg = RetentionMsg;
    type State = RetentionState;
    type Arguments = RetentionArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<RetentionMsg>,
        arguments: RetentionArguments,
    ) -> Result<RetentionState, ActorProcessingErr> {
        let ended = |database, outcome| RetentionMsg::Ended { database, outcome };
        Ok(RetentionState {
            runs: OneByOne::new(myself.clone(), ended),
            myself,
            store: arguments.store,
            databases: HashMap::new(),
            epochs: 0,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<RetentionMsg>,
        message: RetentionMsg,
        state: &mut RetentionState,
    ) -> Result<(), ActorProcessingErr> {
        crash_point("retention", message.name())?;
        match message {
            RetentionMsg::Replicated { database, settings, writer } => {
                state.replicated(database, settings, writer);
            }
            RetentionMsg::Indexed { database } => state.indexed(&database),
            RetentionMsg::SnapshotTaken { database } => state.snapshot_taken(database),
            RetentionMsg::Due { database, epoch } => state.due(database, epoch),
            RetentionMsg::Ended { database, outcome } => state.ended(database, outcome),
            RetentionMsg::Forget { database } => state.forget(&database),
        }
        state.begin_next();
        Ok(())
    }
}

impl RetentionState {
    fn replicated(&mut self, database: String, settings: CompactionSettings, writer: Writer) {
        let is_known = |entry: &Entry| entry.settings == settings && entry.writer == writer;
        if self.databases.get(&database).is_some_and(is_known) {
            return;
        }
        if !settings.is_on() {
            return self.forget(&database);
        }
        let odd = OddFiles::default();
        let entry = Entry { settings, writer, epoch: 0, quiet_until_ms: None, odd };
        self.databases.insert(database.clone(), entry);
        // Hundreds that begin together do not come due together.
        self.arm(&database, settings.interval.mul_f64(0.5 + fastrand::f64() / 2.0));
    }

    fn arm(&mut self, database: &str, wait: Duration) {
        let Some(entry) = self.databases.get_mut(database) else { return };
        if wait.is_zero() {
            return;
        }
        self.epochs += 1;
        let epoch = self.epochs;
        entry.epoch = epoch;
        let database = database.to_owned();
        self.myself.send_after(wait, move || RetentionMsg::Due { database, epoch });
    }

    fn indexed(&mut self, database: &str) {
        if let Some(entry) = self.databases.get_mut(database) {
            entry.quiet_until_ms = None;
        }
    }

    fn snapshot_taken(&mut self, database: String) {
        self.indexed(&database);
        if self.databases.get(&database).is_some_and(|entry| entry.settings.after_snapshot) {
            self.runs.line_up(database);
        }
    }

    fn due(&mut self, database: String, epoch: u64) {
        let Some(entry) = self.databases.get(&database).filter(|entry| entry.epoch == epoch) else {
            return;
        };
        let (interval, is_quiet) = (entry.settings.interval, entry.is_quiet());
        self.arm(&database, interval);
        if !is_quiet {
            self.runs.line_up(database);
        }
    }

    fn begin_next(&mut self) {
        // One that came due while its last run was under way may have nothing more to do since.
        let due = |database: &String| self.databases.get(database).is_some_and(|it| !it.is_quiet());
        let next = std::iter::from_fn(|| self.runs.next()).find(due);
        let Some(database) = next else { return };
        let Some(entry) = self.databases.get_mut(&database) else { return };
        // What comes from now on the run may not see.
        entry.quiet_until_ms = Some(i64::MIN);
        let (settings, writer, odd) = (entry.settings, entry.writer.clone(), entry.odd.clone());
        let (store, name) = (Arc::clone(&self.store), database.clone());
        let work = async move { run(store.as_ref(), &name, &settings, &writer, &odd).await };
        self.runs.begin(database, work);
    }

    fn ended(&mut self, database: String, outcome: Option<Outcome>) {
        self.runs.ended();
        match outcome {
            Some(Ok(report)) => {
                log(&database, &report);
                if let Some(entry) = self.databases.get_mut(&database) {
                    entry.quiet_until_ms = entry.quiet_until_ms.and(Some(report.quiet_until_ms));
                    entry.odd = report.odd;
                }
            }
            // Its first snapshot is on its way; when there is a manifest, its actor says so.
            Some(Err(HistoryError::NoManifest { .. } | HistoryError::UnknownName { .. })) => {
                tracing::debug!(db = database, "there is no manifest yet");
                if let Some(entry) = self.databases.get_mut(&database) {
                    entry.quiet_until_ms = entry.quiet_until_ms.and(Some(i64::MAX));
                }
            }
            Some(Err(error @ HistoryError::Outdated { .. })) => {
                tracing::debug!(db = database, %error, "the next run of the retention plans anew");
            }
            // The next run plans anew.
            Some(Err(error)) => {
                tracing::warn!(db = database, %error, "retention could not finish");
                if let Some(entry) = self.databases.get_mut(&database)
                    && !error.may_pass()
                {
                    let later = now().as_millisecond() + STUCK_MS;
                    entry.quiet_until_ms = entry.quiet_until_ms.and(Some(later));
                }
            }
            None => tracing::error!(db = database, "a run of the retention panicked"),
        }
    }

    fn forget(&mut self, database: &str) {
        self.databases.remove(database);
        self.runs.leave(database);
    }
}

fn now() -> Timestamp {
    Timestamp::now()
}

async fn run(
    store: &dyn ObjectStore,
    database: &str,
    settings: &CompactionSettings,
    writer: &Writer,
    odd: &OddFiles,
) -> Outcome {
    let policy = &settings.policy;
    let retention = Retention::plan_without(store, database, policy, now(), odd).await?;
    retention.execute_as(writer, store, settings.grace(), &now).await
}

fn log(database: &str, report: &RetentionReport) {
    for problem in &report.problems {
        tracing::warn!(db = database, %problem, "retention left a file alone");
    }
    let (merged, retired, deleted) =
        (report.merged.len(), report.retired.len(), report.deleted.len());
    if merged + retired + deleted > 0 {
        tracing::info!(db = database, merged, retired, deleted, "history compacted");
    }
}
