//! RetentionActor: looks after the age of histories.
//!
//! # Messages in / out
//! In: what happens to databases, from their actors. Out: nothing but requests to storage.
//!
//! # State
//! When the history of each database is due: after a snapshot, or after an interval. One run at a
//! time, over all databases; of one database that becomes due again meanwhile one more run follows.
//! A run counts the files of a history and their bytes; it removes and merges nothing yet.
//!
//! # Crash
//! The due times and a run under way are gone. The root starts a new actor and tells the databases,
//! which report again. A run changes nothing that it could leave half done.
//!
//! # Back-pressure
//! A database stands in line at most once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinSet;
use walrust_storage::{ObjectStore, StorageError};

use crate::crash_point::crash_point;
use crate::settings::CompactionSettings;

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
        /// When its history is due.
        settings: CompactionSettings,
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
        /// What its history has.
        outcome: Result<HistorySize, StorageError>,
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
            Self::SnapshotTaken { .. } => "snapshot_taken",
            Self::Due { .. } => "due",
            Self::Ended { .. } => "ended",
            Self::Forget { .. } => "forget",
        }
    }
}

/// The files of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HistorySize {
    files: usize,
    bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RetentionActor;

/// The databases and the line.
#[derive(Debug)]
pub(crate) struct RetentionState {
    myself: ActorRef<RetentionMsg>,
    store: Arc<dyn ObjectStore>,
    databases: HashMap<String, Entry>,
    line: VecDeque<String>,
    /// The run under way; dropped with the actor, which aborts it.
    run: JoinSet<()>,
    running: Option<String>,
    epochs: u64,
}

#[derive(Debug)]
struct Entry {
    settings: CompactionSettings,
    /// Of the timer that counts.
    epoch: u64,
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
        Ok(RetentionState {
            myself,
            store: arguments.store,
            databases: HashMap::new(),
            line: VecDeque::new(),
            run: JoinSet::new(),
            running: None,
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
            RetentionMsg::Replicated { database, settings } => state.replicated(database, settings),
            RetentionMsg::SnapshotTaken { database } => state.snapshot_taken(database),
            RetentionMsg::Due { database, epoch } => state.due(database, epoch),
            RetentionMsg::Ended { database, outcome } => state.ended(&database, outcome),
            RetentionMsg::Forget { database } => state.forget(&database),
        }
        state.begin_next();
        Ok(())
    }
}

impl RetentionState {
    fn replicated(&mut self, database: String, settings: CompactionSettings) {
        if self.databases.get(&database).is_some_and(|entry| entry.settings == settings) {
            return;
        }
        if settings == CompactionSettings::default() {
            return self.forget(&database);
        }
        self.databases.insert(database.clone(), Entry { settings, epoch: 0 });
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

    fn snapshot_taken(&mut self, database: String) {
        if self.databases.get(&database).is_some_and(|entry| entry.settings.after_snapshot) {
            self.line_up(database);
        }
    }

    fn due(&mut self, database: String, epoch: u64) {
        let Some(entry) = self.databases.get(&database).filter(|entry| entry.epoch == epoch) else {
            return;
        };
        let interval = entry.settings.interval;
        self.arm(&database, interval);
        self.line_up(database);
    }

    fn line_up(&mut self, database: String) {
        if !self.line.contains(&database) {
            self.line.push_back(database);
        }
    }

    fn begin_next(&mut self) {
        if self.running.is_some() {
            return;
        }
        let Some(database) = self.line.pop_front() else { return };
        self.running = Some(database.clone());
        let (store, myself) = (Arc::clone(&self.store), self.myself.clone());
        self.run.spawn(async move {
            let outcome = look(store.as_ref(), &database).await;
            // A dead actor aborts its run; nobody is left to be told.
            let _ = myself.cast(RetentionMsg::Ended { database, outcome });
        });
    }

    fn ended(&mut self, database: &str, outcome: Result<HistorySize, StorageError>) {
        while self.run.try_join_next().is_some() {}
        self.running = None;
        match outcome {
            Ok(HistorySize { files, bytes }) => {
                tracing::debug!(db = database, files, bytes, "compaction due");
            }
            // The next tick looks again.
            Err(error) => tracing::warn!(db = database, %error, "cannot look at a history"),
        }
    }

    fn forget(&mut self, database: &str) {
        self.databases.remove(database);
        self.line.retain(|it| it != database);
    }
}

async fn look(store: &dyn ObjectStore, database: &str) -> Result<HistorySize, StorageError> {
    let began = Instant::now();
    let listing = store.list(&format!("{database}/"), None).await?;
    let bytes = listing.iter().map(|entry| entry.size).sum();
    tracing::trace!(db = database, elapsed_ms = began.elapsed().as_millis(), "listed");
    Ok(HistorySize { files: listing.len(), bytes })
}
