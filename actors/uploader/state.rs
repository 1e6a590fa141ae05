//! The state of the uploader: which attempts are started, and what follows from their outcomes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use ractor::{ActorRef, RpcReplyPort};
use tokio::task::JoinSet;
use walrust_engine::{
    BreakerChange, CircuitBreaker, ErrorClass, EventKind, Evidence, Pass, RetryDecision,
    RetryPolicy, UploadQueue,
};
use walrust_storage::{ObjectStore, StorageError};

use super::admission::Unanswered;
use super::alarms::{Alarms, Failure};
use super::attempt::{AttemptError, Report, attempt, time_limit};
use super::request_limits::{OverLimit, RequestLimits};
use super::upload::{Lane, LaneKey};
use super::{Asked, AttemptEnded, Upload, UploadJob, UploaderArguments, UploaderMsg};
use crate::database::{Cause, DatabaseMsg, Refusal};
use crate::event::Event;
use crate::manifest_update::Stored;
use crate::services::Services;
use crate::settings::UploadLimits;
use crate::status::UploaderStatus;

/// The state of the uploader.
#[derive(Debug)]
pub(crate) struct UploaderState {
    myself: ActorRef<UploaderMsg>,
    store: Arc<dyn ObjectStore>,
    retry: RetryPolicy,
    limits: UploadLimits,
    services: Services,
    queue: UploadQueue<LaneKey, UploadJob>,
    /// Of the one endpoint that there is.
    breaker: CircuitBreaker,
    rates: RequestLimits,
    /// When the process may send requests again.
    paused_until: Option<Instant>,
    alarms: Alarms,
    under_way: HashMap<LaneKey, UnderWay>,
    /// Who waits to ask storage something, first come first served.
    asking: VecDeque<RpcReplyPort<Pass>>,
    /// Dropped with the actor, which aborts the attempts.
    attempts: JoinSet<()>,
    /// When the timer that counts fires.
    timer: Option<Instant>,
    epoch: u64,
}

/// An attempt under way.
#[derive(Debug)]
struct UnderWay {
    job: UploadJob,
    number: u32,
    pass: Pass,
}

impl UploaderState {
    pub(super) fn new(myself: ActorRef<UploaderMsg>, arguments: UploaderArguments) -> Self {
        let UploaderArguments { store, retry, limits, breaker, rate, services } = arguments;
        Self {
            myself,
            store,
            retry,
            limits,
            queue: UploadQueue::new(limits.concurrency, limits.bytes_in_flight),
            breaker: CircuitBreaker::new(breaker),
            rates: RequestLimits::new(rate, &limits),
            paused_until: None,
            alarms: Alarms::new(services.clone()),
            services,
            under_way: HashMap::new(),
            asking: VecDeque::new(),
            attempts: JoinSet::new(),
            timer: None,
            epoch: 0,
        }
    }

    pub(super) fn offer(&mut self, job: UploadJob) {
        let lane = job.lane();
        // A database that offered to a new uploader before it heard that it is new offers again.
        if self.queue.jobs(&lane).any(|queued| queued.is(&job)) {
            return;
        }
        let demand = job.demand();
        if let Err(error) = self.queue.offer(lane, job.clone(), demand, Instant::now()) {
            tracing::error!(db = %job.database, %error, "an upload was not taken");
            let error = Refusal::new(Cause::Other, error);
            job.tell(DatabaseMsg::UploadFailed { error, retryable: false });
        }
        self.start_attempts();
    }

    pub(super) fn forget(&mut self, database: &str) {
        for lane in Lane::ALL {
            self.queue.forget(&(database.to_owned(), lane));
        }
        self.alarms.forget(database);
        self.start_attempts();
    }

    pub(super) fn admit(&mut self, reply: RpcReplyPort<Pass>) {
        self.asking.push_back(reply);
        self.start_attempts();
    }

    pub(super) fn asked(&mut self, asked: &Asked) {
        let change = self.breaker.ended(Instant::now(), asked.pass, asked.evidence());
        match &asked.outcome {
            Some(Err(Unanswered { class: ErrorClass::Auth, error, .. })) => {
                self.alarms.refused(&asked.database, error);
            }
            Some(Err(Unanswered { error, .. })) if change == Some(BreakerChange::Opened) => {
                self.breaker_opened(error);
            }
            _ => {}
        }
        self.breaker_changed(change);
        self.start_attempts();
    }

    pub(super) fn due(&mut self, epoch: u64) {
        if epoch == self.epoch {
            self.timer = None;
            self.start_attempts();
        }
    }

    pub(super) fn report_status(&self, reply: RpcReplyPort<UploaderStatus>) {
        let (queued, bytes_queued) = self.queue.queued();
        let (under_way, bytes_under_way) = self.queue.under_way();
        let breaker = self.breaker.state(Instant::now());
        let asking = self.asking.len();
        let status =
            UploaderStatus { breaker, queued, bytes_queued, under_way, bytes_under_way, asking };
        if reply.send(status).is_err() {
            tracing::debug!("nobody waits for an answer any more");
        }
    }

    /// Starts what may start now. Every handler that changed something ends here.
    fn start_attempts(&mut self) {
        let now = Instant::now();
        self.paused_until = None;
        while self.breaker.admits(now) {
            let Some((lane, job)) = self.queue.peek(now) else { break };
            match self.rates.admit(&job.database, job.upload.requests()) {
                Ok(()) => self.start(lane, job, now),
                Err(OverLimit::Database(wait)) => self.queue.defer(&lane, now + wait),
                Err(OverLimit::Process(wait)) => {
                    self.paused_until = Some(now + wait);
                    break;
                }
            }
        }
        self.let_others_ask(now);
        self.arm_timer(now);
    }

    /// Behind the uploads: whoever asks has a commit to upload at best.
    fn let_others_ask(&mut self, now: Instant) {
        // Who does not wait any more must not become the probe.
        self.asking.retain(|reply| !reply.is_closed());
        while self.breaker.admits(now)
            && let Some(reply) = self.asking.pop_front()
            && let Some(pass) = self.breaker.begin(now)
        {
            if reply.send(pass).is_err() {
                // It has gone in this moment; its change cannot be news.
                self.breaker.ended(now, pass, Evidence::Nothing);
            }
        }
    }

    fn start(&mut self, lane: LaneKey, job: UploadJob, now: Instant) {
        let Some(pass) = self.breaker.begin(now) else { return };
        let Some(number) = self.queue.start(&lane) else { return };
        let store = Arc::clone(&self.store);
        let limit = time_limit(self.limits.attempt_timeout, job.upload.bytes());
        let (database, upload) = (job.database.clone(), job.upload.clone());
        let report = Report::new(self.myself.clone(), lane.clone());
        self.under_way.insert(lane, UnderWay { job, number, pass });
        self.attempts.spawn(async move {
            report.send(attempt(store.as_ref(), &database, &upload, number, limit).await);
        });
    }

    pub(super) fn ended(&mut self, ended: AttemptEnded) {
        // Frees what finished tasks hold.
        while self.attempts.try_join_next().is_some() {}
        let AttemptEnded { lane, outcome } = ended;
        let Some(under_way) = self.under_way.remove(&lane) else { return };
        let change = self.breaker.ended(Instant::now(), under_way.pass, evidence(&outcome));
        match outcome {
            Ok(stored) => self.succeeded(&lane, &under_way.job, stored),
            Err(AttemptError::Conflict(conflict)) => {
                let database = &under_way.job.database;
                let words = conflict.with_advice(database);
                tracing::error!(db = database, conflict = words, "another writer owns this name");
                let event = Event::of(EventKind::WriterConflict, database);
                self.services.raise(event.error(words).attempts(under_way.number));
                self.drop_lane(&lane);
                under_way.job.tell(DatabaseMsg::UploadConflict(conflict));
            }
            Err(AttemptError::Overtaken { object }) => {
                tracing::warn!(db = under_way.job.database, object, "an earlier upload came late");
                self.drop_lane(&lane);
                under_way.job.tell(DatabaseMsg::Overtaken(object));
            }
            Err(AttemptError::Panicked) => {
                let key = under_way.job.upload.key(&under_way.job.database);
                let reason = "a fault of walrust: the attempt panicked";
                let error = StorageError::permanent("put", self.store.url(), &key, reason);
                self.failed(&lane, &under_way, &error);
            }
            Err(AttemptError::Storage(error)) => {
                if change == Some(BreakerChange::Opened) {
                    self.breaker_opened(&error.to_string());
                }
                self.failed(&lane, &under_way, &error);
            }
        }
        self.breaker_changed(change);
        self.start_attempts();
    }

    fn breaker_changed(&self, change: Option<BreakerChange>) {
        if change == Some(BreakerChange::Closed) {
            tracing::info!(url = self.store.url(), "storage answers again");
            let event = Event::new(EventKind::CircuitBreakerClosed);
            self.services.raise(event.with("storage", self.store.url()));
        }
    }

    fn succeeded(&mut self, lane: &LaneKey, job: &UploadJob, stored: Stored) {
        self.queue.finish(lane, Instant::now());
        self.alarms.succeeded(&job.database);
        match &job.upload {
            Upload::File(file, _) => job.tell(DatabaseMsg::Uploaded(file.name)),
            Upload::Manifest(_) => {
                if let Some(damage) = &stored.damage {
                    let database = &job.database;
                    tracing::error!(
                        db = database,
                        damage,
                        "the manifest was made anew from the files"
                    );
                    let event = Event::of(EventKind::CorruptionDetected, database).error(damage);
                    self.services.raise(event.with("repaired", true));
                }
                job.tell(DatabaseMsg::ManifestWritten(stored));
            }
        }
    }

    /// Ends an upload and forgets those after it.
    fn drop_lane(&mut self, lane: &LaneKey) {
        self.queue.finish(lane, Instant::now());
        self.queue.forget(lane);
    }

    fn failed(&mut self, lane: &LaneKey, under_way: &UnderWay, error: &StorageError) {
        let UnderWay { job, number: attempt, .. } = under_way;
        let database = &job.database;
        let class = match error.class() {
            // A lost race for the manifest: the next attempt reads it anew, soon.
            ErrorClass::Precondition => ErrorClass::Transient,
            class => class,
        };
        let decision = self.retry.after_failure(class, *attempt, fastrand::f64());
        let (retry_in, alarm) = match decision {
            RetryDecision::After { delay, alarm } => (delay, alarm),
            RetryDecision::Stop => (self.retry.max_delay, true),
        };
        let failure = Failure { database, error, attempt: *attempt, retry_in, alarm };
        self.alarms.failed(&failure);
        let retryable = class.is_retryable();
        job.tell(DatabaseMsg::UploadFailed { error: Refusal::from(error), retryable });
        self.queue.retry(lane, Instant::now(), retry_in);
    }

    fn breaker_opened(&self, error: &str) {
        let (url, queued) = (self.store.url(), self.queue.queued().0);
        tracing::error!(url, queued, error, "storage fails; requests are held back for a while");
        let event = Event::new(EventKind::CircuitBreakerOpen).error(error);
        self.services.raise(event.with("storage", url).with("queued", queued));
    }

    /// When something may start although nothing else happens. While a probe is under way and
    /// while all slots are taken, the end of an attempt comes first.
    fn wake_at(&self, now: Instant) -> Option<Instant> {
        if !self.breaker.admits(now) {
            return self.breaker.wake_at(now);
        }
        self.paused_until.or_else(|| self.queue.wake_at())
    }

    fn arm_timer(&mut self, now: Instant) {
        let Some(wake_at) = self.wake_at(now) else { return };
        // One that fires early looks, and arms another.
        if self.timer.is_some_and(|armed| armed <= wake_at) {
            return;
        }
        self.timer = Some(wake_at);
        self.epoch += 1;
        let epoch = self.epoch;
        let delay = wake_at.saturating_duration_since(now);
        self.myself.send_after(delay, move || UploaderMsg::Due { epoch });
    }
}

/// What an attempt tells of the endpoint.
fn evidence(outcome: &Result<Stored, AttemptError>) -> Evidence {
    match outcome {
        Ok(_) | Err(AttemptError::Conflict(_) | AttemptError::Overtaken { .. }) => {
            Evidence::Answered
        }
        Err(AttemptError::Storage(error)) => {
            Evidence::of_failure(error.class(), error.status().is_some())
        }
        Err(AttemptError::Panicked) => Evidence::Nothing,
    }
}
