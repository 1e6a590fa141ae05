//! UploaderActor: brings staged files of all databases to storage.
//!
//! # Messages in / out
//! In: [`UploaderMsg::Offer`] and [`UploaderMsg::Forget`] from databases. Out:
//! `DatabaseMsg::Uploaded` and `DatabaseMsg::UploadConflict`.
//!
//! # State
//! `walrust_engine::UploadQueue` decides what goes next, `walrust_engine::RetryPolicy` when a
//! failure is tried again. The actor starts the attempts and takes their outcomes.
//!
//! # Retries
//! Nothing is given up. Every failure that time can mend is tried again; every one that needs a
//! person is tried slowly and logged as an error. An object that exists already with the same
//! SHA-256 is our own earlier attempt, whose answer was lost.
//!
//! # Crash
//! The queue and all attempts under way are gone. The root starts a new uploader and tells the
//! databases, which offer again what was not confirmed; conditional writes make that harmless.
//!
//! # Back-pressure
//! A job is a handle to a staged file, never its bytes. Each database has at most one LTX file and
//! one manifest offered at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinSet;
use walrust_engine::{BreakerSettings, ErrorClass, RetryDecision, RetryPolicy, UploadQueue};
use walrust_sqlite::StagedFile;
use walrust_storage::{ObjectStore, StorageError};

use crate::database::DatabaseMsg;
use crate::manifest_update::{ManifestUpdate, Stored};
use crate::services::Services;
use crate::settings::UploadLimits;

mod attempt;

use attempt::attempt;
pub(crate) use attempt::{AttemptError, Conflict};

/// What to bring to storage.
#[derive(Clone, Debug)]
pub(crate) enum Upload {
    /// An LTX file, stored only if its key is free, and the identifier of its writer.
    File(Arc<StagedFile>, String),
    /// New entries of `manifest.json`.
    Manifest(Arc<ManifestUpdate>),
}

/// One upload of one database.
#[derive(Clone, Debug)]
pub(crate) struct UploadJob {
    /// Name of the database.
    pub(crate) database: String,
    /// What to upload.
    pub(crate) upload: Upload,
    /// Who is told the outcome.
    pub(crate) reply: ActorRef<DatabaseMsg>,
}

/// What the uploader is asked to do.
#[derive(Debug)]
pub(crate) enum UploaderMsg {
    /// Upload this, behind earlier offers of the same database.
    Offer(UploadJob),
    /// Forget what a database offered and was not started: its actor is gone.
    Forget {
        /// Name of the database.
        database: String,
    },
    /// An attempt ended.
    Ended {
        /// Name of the database.
        database: String,
        /// Number of the attempt.
        attempt: u32,
        /// How it ended.
        outcome: Result<Stored, AttemptError>,
    },
    /// A job may have become due for a retry.
    RetryDue,
}

/// What a new uploader gets.
#[derive(Clone, Debug)]
pub(crate) struct UploaderArguments {
    /// Where everything goes.
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Pace of retries.
    pub(crate) retry: RetryPolicy,
    /// Bounds of what is under way.
    pub(crate) limits: UploadLimits,
    /// When requests are held back.
    pub(crate) breaker: BreakerSettings,
    /// For events.
    pub(crate) services: Services,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct UploaderActor;

/// The state of the uploader.
#[derive(Debug)]
pub(crate) struct UploaderState {
    store: Arc<dyn ObjectStore>,
    retry: RetryPolicy,
    queue: UploadQueue<String, UploadJob>,
    /// The jobs under way, by database.
    under_way: HashMap<String, UploadJob>,
    /// Dropped with the actor, which aborts the attempts.
    attempts: JoinSet<()>,
    /// When the earliest armed timer fires.
    timer: Option<Instant>,
}

impl Actor for UploaderActor {
    type Msg = UploaderMsg;
    type State = UploaderState;
    type Arguments = UploaderArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<UploaderMsg>,
        arguments: UploaderArguments,
    ) -> Result<UploaderState, ActorProcessingErr> {
        Ok(UploaderState {
            store: arguments.store,
            retry: arguments.retry,
            queue: UploadQueue::new(arguments.limits.concurrency),
            under_way: HashMap::new(),
            attempts: JoinSet::new(),
            timer: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<UploaderMsg>,
        message: UploaderMsg,
        state: &mut UploaderState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            UploaderMsg::Offer(job) => state.queue.offer(job.database.clone(), job),
            UploaderMsg::Forget { database } => state.queue.forget(&database),
            UploaderMsg::Ended { database, attempt, outcome } => {
                state.ended(&database, attempt, outcome);
            }
            UploaderMsg::RetryDue => state.timer = None,
        }
        state.start_attempts(&myself);
        state.arm_timer(&myself);
        Ok(())
    }
}

impl UploaderState {
    fn start_attempts(&mut self, myself: &ActorRef<UploaderMsg>) {
        while let Some((database, job, number)) = self.queue.start_next(Instant::now()) {
            let store = Arc::clone(&self.store);
            let uploader = myself.clone();
            let upload = job.upload.clone();
            self.under_way.insert(database.clone(), job);
            self.attempts.spawn(async move {
                let outcome = attempt(store.as_ref(), &database, &upload).await;
                let ended = UploaderMsg::Ended { database, attempt: number, outcome };
                // A dead uploader aborts its attempts; nobody is left to be told.
                let _ = uploader.cast(ended);
            });
        }
    }

    fn ended(&mut self, database: &str, attempt: u32, outcome: Result<Stored, AttemptError>) {
        // Frees what finished tasks hold.
        while self.attempts.try_join_next().is_some() {}
        let Some(job) = self.under_way.remove(database) else { return };
        match outcome {
            Ok(stored) => self.succeeded(database, &job, stored),
            Err(AttemptError::Conflict(conflict)) => {
                tracing::error!(db = database, %conflict, "another writer owns this name");
                self.queue.finish(&database.to_owned());
                self.queue.forget(&database.to_owned());
                tell(&job, DatabaseMsg::UploadConflict(conflict));
            }
            Err(AttemptError::Overtaken { object }) => {
                tracing::warn!(db = database, object, "an earlier upload arrived late");
                self.queue.finish(&database.to_owned());
                self.queue.forget(&database.to_owned());
                tell(&job, DatabaseMsg::Overtaken(object));
            }
            Err(AttemptError::Storage(error)) => self.failed(database, attempt, &job, error),
        }
    }

    fn succeeded(&mut self, database: &str, job: &UploadJob, stored: Stored) {
        self.queue.finish(&database.to_owned());
        match &job.upload {
            Upload::File(file, _) => tell(job, DatabaseMsg::Uploaded(file.name)),
            Upload::Manifest(_) => tell(job, DatabaseMsg::ManifestWritten(stored)),
        }
    }

    fn failed(&mut self, database: &str, attempt: u32, job: &UploadJob, error: StorageError) {
        let delay = match self.retry.after_failure(error.class(), attempt, fastrand::f64()) {
            RetryDecision::After { delay, alarm: false } => {
                tracing::warn!(db = database, attempt, %error, "upload failed, will be tried again");
                delay
            }
            RetryDecision::After { delay, alarm: true } => {
                tracing::error!(db = database, attempt, %error, "upload fails again and again");
                delay
            }
            // A lost race for the manifest: the next attempt reads it anew.
            RetryDecision::Stop => Duration::from_millis(fastrand::u64(10..100)),
        };
        let retryable = error.class().is_retryable() || error.class() == ErrorClass::Precondition;
        tell(job, DatabaseMsg::UploadFailed { error: error.to_string(), retryable });
        self.queue.retry(&database.to_owned(), Instant::now() + delay);
    }

    fn arm_timer(&mut self, myself: &ActorRef<UploaderMsg>) {
        let Some(wake_at) = self.queue.wake_at() else { return };
        if self.timer.is_some_and(|armed| armed <= wake_at) {
            return;
        }
        self.timer = Some(wake_at);
        let delay = wake_at.saturating_duration_since(Instant::now());
        myself.send_after(delay, || UploaderMsg::RetryDue);
    }
}

fn tell(job: &UploadJob, message: DatabaseMsg) {
    if job.reply.cast(message).is_err() {
        // Its successor finds the object in the bucket.
        tracing::debug!(db = %job.database, "the actor of an upload is gone");
    }
}
