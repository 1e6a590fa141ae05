//! DatabaseActor: owns the capture of one database and decides what happens to it next.
//!
//! # Messages in / out
//! In: [`DatabaseMsg`]. Out: offers to the uploader, `RootMsg::Drained` to the root, events, and
//! answers to who asked.
//!
//! # Consistency
//! One blocking job at a time has the capture, so a sync never runs beside a checkpoint. One LTX
//! file at a time is offered; a sync begins when all staged files are in storage and confirmed.
//! Commits that arrive meanwhile wait in the WAL, behind the pin, and go together into the next
//! file. Only a checkpoint that cannot wait stages more, after the one that is on its way. The pages
//! of a snapshot are read beside all that (see [`snapshot_reading`]).
//!
//! # Retries
//! A database that fails (locked, unreadable, out of WAL mode) is dropped and opened again after a
//! pause that doubles up to half a minute. It is this database's state, nobody else's.
//!
//! # Crash
//! The capture goes with the actor, or with the job that has it. The next incarnation waits at the
//! gate until that job has ended, then begins with [`DatabaseMsg::Open`]: local state, listing of
//! the bucket, salts of the WAL tell where to continue.
//!
//! # Rest
//! A database that nothing happens to is given to the root, and the actor ends (see [`resting`]).
//!
//! # Back-pressure
//! `WalChanged` is queued at most once; at most one LTX file and one manifest are offered.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use walrust_ltx::{FileName, Txid};
use walrust_storage::ObjectStore;

use crate::blocking::{BlockingPool, Gate};
use crate::crash_point::crash_point;
use crate::lost_state::LostState;
use crate::manifest_update::Stored;
use crate::root::RootMsg;
use crate::services::Services;
use crate::settings::DatabaseSettings;
use crate::status::{DatabasePhase, DatabaseStatus};
use crate::uploader::Conflict;
use crate::watcher::Notified;

mod availability;
mod drain;
mod events;
mod healing;
mod index;
mod job;
mod looks;
mod open;
mod refusal;
mod requests;
mod resting;
mod scheduling;
mod shipping;
mod snapshot_reading;
mod snapshot_work;
mod standing;
mod state;
mod sync_requests;

pub(crate) use availability::Availability;
pub(crate) use job::JobEnded;
pub(crate) use open::{OpenOutcome, Openings};
pub use refusal::Cause;
pub(crate) use refusal::Refusal;
pub(crate) use resting::Resting;
pub(crate) use snapshot_reading::ReadingOutcome;
pub(crate) use standing::{Known, Standing};
use state::DatabaseState;

/// What a database is told.
#[derive(Debug)]
pub(crate) enum DatabaseMsg {
    /// Open the files and find the position; the first message of an incarnation.
    Open,
    /// The attempt to open ended.
    Opened(OpenOutcome),
    /// The WAL may have changed.
    WalChanged,
    /// The time has come to look whether something is due.
    Due {
        /// Only the timer that was armed last counts.
        epoch: u64,
    },
    /// A blocking job gave the capture back.
    JobEnded(Box<JobEnded>),
    /// The pages of a snapshot were read.
    SnapshotRead(Box<ReadingOutcome>),
    /// A blocking job panicked; the capture is gone.
    JobLost,
    /// Storage has a file.
    Uploaded(FileName),
    /// An upload failed and will be tried again.
    UploadFailed {
        /// What storage said.
        error: Refusal,
        /// Whether trying again may help without anybody's help.
        retryable: bool,
    },
    /// Another writer replicates into this name.
    UploadConflict(Conflict),
    /// Entries of the manifest have waited long enough.
    ManifestDue,
    /// Storage has the manifest.
    ManifestWritten(Stored),
    /// An upload of an earlier run or writer arrived late; the object is where.
    Overtaken(String),
    /// The uploader is a new one and knows nothing.
    UploaderRestarted,
    /// The scheduler of snapshots is a new one and knows nothing.
    SchedulerRestarted,
    /// The retention is a new one and knows nothing.
    RetentionRestarted,
    /// The validation is a new one and knows nothing.
    ValidationRestarted,
    /// Storage cannot give the newest state back.
    StateLost(LostState),
    /// A snapshot is due.
    SnapshotDue,
    /// Take a snapshot of the newest state.
    Snapshot(RpcReplyPort<Result<Txid, Refusal>>),
    /// The snapshot that a state has was read.
    SnapshotChecked {
        /// Its TXID.
        txid: Txid,
        /// What is wrong with it, if anything is, or why that is not known.
        checked: Result<Option<LostState>, Refusal>,
    },
    /// Ship everything that was committed until now, and answer when storage has it.
    Sync(RpcReplyPort<Result<Option<Txid>, Refusal>>),
    /// Follow other settings; the path, the pin and the place of the local state are the same.
    Reconfigured { settings: Box<DatabaseSettings>, revision: u64 },
    /// Ship everything, let go of the database, and report to the root.
    Drain,
    /// If another writer owns the name, claim it anew; answers with what the database was doing.
    Resume(RpcReplyPort<DatabasePhase>),
    /// The root has what this actor knew, and sends it nothing more.
    Rest,
    /// How are you?
    Status(RpcReplyPort<DatabaseStatus>),
}

impl DatabaseMsg {
    /// Its name, for crash points.
    fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Opened(_) => "opened",
            Self::WalChanged => "wal_changed",
            Self::Due { .. } => "due",
            Self::JobEnded(_) => "job_ended",
            Self::SnapshotRead(_) => "snapshot_read",
            Self::JobLost => "job_lost",
            Self::Uploaded(_) => "uploaded",
            Self::UploadFailed { .. } => "upload_failed",
            Self::UploadConflict(_) => "upload_conflict",
            Self::ManifestDue => "manifest_due",
            Self::ManifestWritten(_) => "manifest_written",
            Self::Overtaken(_) => "overtaken",
            Self::UploaderRestarted => "uploader_restarted",
            Self::SchedulerRestarted => "scheduler_restarted",
            Self::RetentionRestarted => "retention_restarted",
            Self::ValidationRestarted => "validation_restarted",
            Self::StateLost(_) => "state_lost",
            Self::SnapshotDue => "snapshot_due",
            Self::Snapshot(_) => "snapshot",
            Self::SnapshotChecked { .. } => "snapshot_checked",
            Self::Sync(_) => "sync",
            Self::Reconfigured { .. } => "reconfigured",
            Self::Drain => "drain",
            Self::Resume(_) => "resume",
            Self::Rest => "rest",
            Self::Status(_) => "status",
        }
    }
}

/// What every incarnation of a database's actor gets.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseArguments {
    pub(crate) settings: DatabaseSettings,
    /// Number of this incarnation.
    pub(crate) incarnation: u64,
    /// How often the database was started or given other settings.
    pub(crate) revision: u64,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) services: Services,
    pub(crate) root: ActorRef<RootMsg>,
    pub(crate) pool: BlockingPool,
    /// Shared by all databases.
    pub(crate) openings: Arc<Openings>,
    /// Shared by all incarnations: one of them works at a time.
    pub(crate) gate: Gate,
    pub(crate) notified: Notified,
    /// Shared by all incarnations, so that the end of what one of them raised is raised by another.
    pub(crate) availability: Availability,
    /// Shared by all incarnations, and read by the root.
    pub(crate) standing: Standing,
    /// How long nothing happens before the database rests.
    pub(crate) rest_after: Duration,
    /// The least time between two manifests, snapshots and the end apart.
    pub(crate) manifest_interval: Duration,
    /// Name of this host, for the manifest.
    pub(crate) host: String,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct DatabaseActor;

impl Actor for DatabaseActor {
    type Msg = DatabaseMsg;
    type State = DatabaseState;
    type Arguments = (DatabaseArguments, Option<Box<Resting>>);

    async fn pre_start(
        &self,
        myself: ActorRef<DatabaseMsg>,
        (arguments, resting): (DatabaseArguments, Option<Box<Resting>>),
    ) -> Result<DatabaseState, ActorProcessingErr> {
        // Runs in the root's task: the real work begins with the first message.
        let mut state = DatabaseState::new(myself, arguments);
        match resting {
            Some(resting) => state.wake(*resting),
            None => state.myself.cast(DatabaseMsg::Open)?,
        }
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ActorRef<DatabaseMsg>,
        message: DatabaseMsg,
        state: &mut DatabaseState,
    ) -> Result<(), ActorProcessingErr> {
        crash_point("database", message.name())?;
        if state.rest.is_given_up {
            state.send_back(message);
            return Ok(());
        }
        match message {
            DatabaseMsg::Open => state.open(),
            DatabaseMsg::Opened(outcome) => state.opened(outcome),
            DatabaseMsg::WalChanged => state.wal_changed(),
            DatabaseMsg::Due { epoch } => state.due(epoch),
            DatabaseMsg::JobEnded(ended) => state.job_ended(*ended),
            DatabaseMsg::SnapshotRead(outcome) => state.snapshot_read(*outcome),
            DatabaseMsg::JobLost => return Err("a blocking job panicked".into()),
            DatabaseMsg::Uploaded(name) => state.uploaded(name),
            DatabaseMsg::UploadFailed { error, retryable } => state.upload_failed(error, retryable),
            DatabaseMsg::UploadConflict(conflict) => state.conflicted(&conflict),
            DatabaseMsg::ManifestDue => state.manifest_due(),
            DatabaseMsg::ManifestWritten(stored) => state.manifest_written(stored),
            DatabaseMsg::Overtaken(object) => state.overtaken(&object),
            DatabaseMsg::UploaderRestarted => state.offer_again(),
            DatabaseMsg::SchedulerRestarted => state.report_to_scheduler(),
            DatabaseMsg::RetentionRestarted => state.report_to_retention(),
            DatabaseMsg::ValidationRestarted => state.report_to_validation(),
            DatabaseMsg::StateLost(lost) => state.state_lost(lost),
            DatabaseMsg::SnapshotDue => state.snapshot_due(),
            DatabaseMsg::Snapshot(reply) => state.snapshot_requested(reply),
            DatabaseMsg::SnapshotChecked { txid, checked } => state.snapshot_checked(txid, checked),
            DatabaseMsg::Sync(reply) => state.sync_requested(reply),
            DatabaseMsg::Reconfigured { settings, revision } => {
                state.reconfigured(*settings, revision);
            }
            DatabaseMsg::Drain => state.drain(),
            DatabaseMsg::Resume(reply) => state.resume(reply),
            DatabaseMsg::Rest => state.myself.stop(None),
            DatabaseMsg::Status(reply) => state.report_status(reply),
        }
        state.note_standing();
        Ok(())
    }
}
