//! UploaderActor: brings staged files of all databases to storage.
//!
//! # Messages in / out
//! In: [`UploaderMsg::Offer`] and [`UploaderMsg::Forget`] from databases, [`UploaderMsg::Admit`] and
//! [`UploaderMsg::Asked`] from those that are being opened, [`UploaderMsg::Status`] from outside. Out: `DatabaseMsg::Uploaded`, `ManifestWritten`, `UploadFailed`, `UploadConflict`
//! and `Overtaken`; events about failures, conflicts and the breaker.
//!
//! # State
//! Four machines say no, each for its own reason, before an attempt starts:
//! `walrust_engine::CircuitBreaker` (the endpoint fails), `walrust_engine::UploadQueue` (whose turn
//! it is, slots and bytes), the rate limits, and `walrust_engine::RetryPolicy` (not yet again). The
//! actor starts the attempts and takes their outcomes. It awaits nothing and has one timer.
//!
//! # Retries
//! Nothing is given up. Every failure that time can mend is tried again; every one that needs a
//! person is tried slowly, logged as an error and raised as an event, once until something succeeds.
//! An object that exists already with the same SHA-256 is our own earlier attempt, whose answer was
//! lost. An attempt takes bounded time, which grows with its size: what hangs is a failure.
//!
//! # Crash
//! The queue, the breaker and all attempts under way are gone. The root starts a new uploader and
//! tells the databases, which offer again what was not confirmed; conditional writes make that
//! harmless.
//!
//! # Back-pressure
//! A job is a handle to a staged file, never its bytes. Each database has at most one job offered at a
//! time in each of its lanes: a file of the history, a snapshot, a manifest.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use walrust_engine::{BreakerSettings, Pass, RetryPolicy};
use walrust_storage::ObjectStore;

use crate::crash_point::crash_point;
use crate::manifest_update::Stored;
use crate::request_rate::RequestRate;
use crate::services::Services;
use crate::settings::UploadLimits;
use crate::status::UploaderStatus;

mod admission;
mod alarms;
mod attempt;
mod request_limits;
mod state;
mod upload;

pub(crate) use admission::{Admission, Asked};
use attempt::AttemptError;
pub(crate) use attempt::Conflict;
use state::UploaderState;
use upload::LaneKey;
pub(crate) use upload::{Lane, Upload, UploadJob};

/// What the uploader is asked to do.
#[derive(Debug)]
pub(crate) enum UploaderMsg {
    /// Upload this, after earlier offers of the same database.
    Offer(UploadJob),
    /// Forget what a database offered and was not started: its actor is gone.
    Forget {
        /// Name of the database.
        database: String,
    },
    /// An attempt ended.
    Ended(AttemptEnded),
    /// The time has come to look whether something may start.
    Due {
        /// Only the timer that was armed last counts.
        epoch: u64,
    },
    /// Somebody wants to ask storage something, and waits until the breaker lets it through.
    Admit(RpcReplyPort<Pass>),
    /// Somebody who was let through is done.
    Asked(Asked),
    /// How are you?
    Status(RpcReplyPort<UploaderStatus>),
}

impl UploaderMsg {
    /// Its name, for crash points.
    fn name(&self) -> &'static str {
        match self {
            Self::Offer(_) => "offer",
            Self::Forget { .. } => "forget",
            Self::Ended(_) => "ended",
            Self::Due { .. } => "due",
            Self::Admit(_) => "admit",
            Self::Asked(_) => "asked",
            Self::Status(_) => "status",
        }
    }
}

/// An attempt that ended.
#[derive(Debug)]
pub(crate) struct AttemptEnded {
    lane: LaneKey,
    outcome: Result<Stored, AttemptError>,
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
    /// How many requests the process may make.
    pub(crate) rate: RequestRate,
    /// For events.
    pub(crate) services: Services,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct UploaderActor;

impl Actor for UploaderActor {
    type Msg = UploaderMsg;
    type State = UploaderState;
    type Arguments = UploaderArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<UploaderMsg>,
        arguments: UploaderArguments,
    ) -> Result<UploaderState, ActorProcessingErr> {
        Ok(UploaderState::new(myself, arguments))
    }

    async fn handle(
        &self,
        _myself: ActorRef<UploaderMsg>,
        message: UploaderMsg,
        state: &mut UploaderState,
    ) -> Result<(), ActorProcessingErr> {
        crash_point("uploader", message.name())?;
        match message {
            UploaderMsg::Offer(job) => state.offer(job),
            UploaderMsg::Forget { database } => state.forget(&database),
            UploaderMsg::Ended(ended) => state.ended(ended),
            UploaderMsg::Due { epoch } => state.due(epoch),
            UploaderMsg::Admit(reply) => state.admit(reply),
            UploaderMsg::Asked(asked) => state.asked(&asked),
            UploaderMsg::Status(reply) => state.report_status(reply),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
