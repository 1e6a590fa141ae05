//! WebhookActor: tells receivers outside the process about events.
//!
//! # Messages in / out
//! In: [`WebhookMsg::Raise`] from everybody, the rest from the root. Out: nothing but
//! HTTP requests, made by tasks that report with [`WebhookMsg::Ended`].
//!
//! # State
//! One [`Receiver`] each, with a queue of its own and at most one request under way: one that hangs
//! holds up nobody else. `walrust_engine::DeliveryQueue` decides what goes when.
//!
//! # Retries
//! Network failures, time-outs and the answers 408, 429 and 5xx are tried again with the same `id`
//! and body, a bounded number of times; every other answer but success is final. Delivery is at
//! least once: a receiver whose answer was lost sees the `id` again.
//!
//! # Changes
//! Receivers that a change of the settings does not concern keep their queues. What one that goes had
//! not delivered is offered to those that come: its URL or its secret may have been the mistake.
//!
//! # Crash
//! What was queued is lost; everything that is raised was logged where it happened, and what lasts is
//! raised again. The root starts a new incarnation, which knows nothing of the old one.
//!
//! # Back-pressure
//! None: whoever raises an event never waits. Queues are bounded, equal events that wait become one,
//! and what does not fit is dropped and counted in the log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::task::JoinSet;
use walrust_engine::{DeliveryPolicy, EventKind};

use crate::crash_point::crash_point;
use crate::event::Event;
use crate::settings::WebhookSettings;

mod delivery;
mod notice;
mod receiver;
mod resolver;
mod signature;
mod target;

use delivery::{Courier, DeliveryError};
use notice::Notice;
use receiver::Receiver;

/// What a new incarnation gets.
#[derive(Clone, Debug)]
pub(crate) struct WebhookArguments {
    pub(crate) webhooks: Vec<WebhookSettings>,
    /// Bounds of the deliveries to each of them.
    pub(crate) policy: DeliveryPolicy,
}

/// What the actor is told.
#[derive(Debug)]
pub(crate) enum WebhookMsg {
    /// Deliver an event.
    Raise(Event),
    /// These are the receivers from now on.
    Reconfigure(Vec<WebhookSettings>),
    /// Deliver what is queued, within the time, then answer. For the end of the process: there are
    /// no heartbeats after it.
    Flush {
        /// How long it may take.
        timeout: Duration,
        /// Gets the answer.
        reply: RpcReplyPort<()>,
    },
    /// The attempt under way to a receiver ended.
    Ended {
        /// The receiver, which may be gone.
        receiver: ReceiverId,
        /// How it ended.
        outcome: Result<(), DeliveryError>,
    },
    /// A delivery may have become due.
    DeliveryDue,
    /// A receiver is to get a heartbeat.
    HeartbeatDue {
        /// The receiver, which may be gone.
        receiver: ReceiverId,
    },
    /// Flushing has taken long enough.
    FlushDeadline,
}

impl WebhookMsg {
    /// Its name, for crash points.
    fn name(&self) -> &'static str {
        match self {
            Self::Raise(_) => "raise",
            Self::Reconfigure(_) => "reconfigure",
            Self::Flush { .. } => "flush",
            Self::Ended { .. } => "ended",
            Self::DeliveryDue => "delivery_due",
            Self::HeartbeatDue { .. } => "heartbeat_due",
            Self::FlushDeadline => "flush_deadline",
        }
    }
}

/// Tells the receivers of one incarnation apart; never used twice.
type ReceiverId = u64;

/// See the module.
#[derive(Debug)]
pub(crate) struct WebhookActor;

/// The state of the actor.
#[derive(Debug)]
pub(crate) struct WebhookState {
    myself: ActorRef<WebhookMsg>,
    policy: DeliveryPolicy,
    receivers: BTreeMap<ReceiverId, Receiver>,
    next_id: ReceiverId,
    courier: Courier,
    /// Dropped with the actor, which aborts the attempts.
    attempts: JoinSet<()>,
    /// When the earliest armed timer fires.
    timer: Option<Instant>,
    /// Who waits until everything is delivered.
    flushing: Vec<RpcReplyPort<()>>,
}

impl Actor for WebhookActor {
    type Msg = WebhookMsg;
    type State = WebhookState;
    type Arguments = WebhookArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<WebhookMsg>,
        arguments: WebhookArguments,
    ) -> Result<WebhookState, ActorProcessingErr> {
        Ok(WebhookState::new(myself, arguments))
    }

    async fn handle(
        &self,
        _myself: ActorRef<WebhookMsg>,
        message: WebhookMsg,
        state: &mut WebhookState,
    ) -> Result<(), ActorProcessingErr> {
        crash_point("webhook", message.name())?;
        match message {
            WebhookMsg::Raise(event) => state.raise(event),
            WebhookMsg::Reconfigure(webhooks) => state.reconfigure(webhooks),
            WebhookMsg::Flush { timeout, reply } => state.flush(timeout, reply),
            WebhookMsg::Ended { receiver, outcome } => state.ended(receiver, outcome),
            WebhookMsg::DeliveryDue => state.timer = None,
            WebhookMsg::HeartbeatDue { receiver } => state.heartbeat(receiver),
            WebhookMsg::FlushDeadline => state.flush_deadline(),
        }
        state.start_attempts();
        state.arm_timer();
        state.answer_if_flushed();
        Ok(())
    }
}

impl WebhookState {
    fn new(myself: ActorRef<WebhookMsg>, arguments: WebhookArguments) -> Self {
        let WebhookArguments { webhooks, policy } = arguments;
        let mut state = Self {
            myself,
            policy,
            receivers: BTreeMap::new(),
            next_id: 0,
            courier: Courier::new(false),
            attempts: JoinSet::new(),
            timer: None,
            flushing: Vec::new(),
        };
        state.reconfigure(webhooks);
        state
    }

    fn reconfigure(&mut self, webhooks: Vec<WebhookSettings>) {
        let (stay, go): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.receivers)
            .into_iter()
            .partition(|(_, receiver)| webhooks.contains(receiver.settings()));
        let known = |settings: &WebhookSettings| stay.values().any(|it| it.settings() == settings);
        let come: Vec<_> = webhooks.into_iter().filter(|settings| !known(settings)).collect();
        self.receivers = stay;
        let first_new = self.next_id;
        for settings in come {
            match Receiver::new(settings, self.policy) {
                Ok(receiver) => self.add(receiver),
                Err(error) => tracing::error!(%error, "a webhook gets no events"),
            }
        }
        self.courier = Courier::new(self.receivers.values().any(Receiver::uses_tls));
        for receiver in go.into_values() {
            let undelivered = receiver.into_undelivered();
            for new in self.receivers.range_mut(first_new..).map(|(_, receiver)| receiver) {
                undelivered.iter().for_each(|notice| new.offer(notice));
            }
        }
    }

    fn add(&mut self, receiver: Receiver) {
        let id = self.next_id;
        self.next_id += 1;
        self.receivers.insert(id, receiver);
        if self.myself.cast(WebhookMsg::HeartbeatDue { receiver: id }).is_err() {
            tracing::debug!("the actor ends: no heartbeat");
        }
    }

    fn raise(&mut self, event: Event) {
        tracing::debug!(event = %event.kind, db = event.database, "event");
        let notice = Notice::of(event);
        for receiver in self.receivers.values_mut() {
            receiver.offer(&notice);
        }
    }

    fn heartbeat(&mut self, id: ReceiverId) {
        let Some(receiver) = self.receivers.get_mut(&id) else { return };
        let Some(interval) = receiver.heartbeat_interval() else { return };
        if !self.flushing.is_empty() {
            return;
        }
        receiver.offer(&Notice::of(Event::new(EventKind::Heartbeat)));
        self.myself.send_after(interval, move || WebhookMsg::HeartbeatDue { receiver: id });
    }

    fn start_attempts(&mut self) {
        for (id, receiver) in &mut self.receivers {
            let Some(parcel) = receiver.start_next(Instant::now()) else { continue };
            let (courier, myself, receiver) = (self.courier.clone(), self.myself.clone(), *id);
            self.attempts.spawn(async move {
                let outcome = courier.deliver(&parcel).await;
                // A dead actor aborts its attempts; nobody is left to be told.
                let _ = myself.cast(WebhookMsg::Ended { receiver, outcome });
            });
        }
    }

    fn ended(&mut self, id: ReceiverId, outcome: Result<(), DeliveryError>) {
        // Frees what finished tasks hold.
        while self.attempts.try_join_next().is_some() {}
        if let Some(receiver) = self.receivers.get_mut(&id) {
            receiver.ended(Instant::now(), outcome, fastrand::f64());
        }
    }

    fn arm_timer(&mut self) {
        let now = Instant::now();
        let looks = self.receivers.values().filter_map(|receiver| receiver.next_look(now));
        let Some(next) = looks.min() else { return };
        if self.timer.is_some_and(|armed| armed <= next) {
            return;
        }
        self.timer = Some(next);
        self.myself.send_after(next.saturating_duration_since(now), || WebhookMsg::DeliveryDue);
    }

    fn flush(&mut self, timeout: Duration, reply: RpcReplyPort<()>) {
        self.flushing.push(reply);
        for receiver in self.receivers.values_mut() {
            receiver.hurry(Instant::now());
        }
        self.myself.send_after(timeout, || WebhookMsg::FlushDeadline);
    }

    fn answer_if_flushed(&mut self) {
        if self.receivers.values().all(Receiver::is_idle) {
            self.answer_flush();
        }
    }

    fn flush_deadline(&mut self) {
        for receiver in self.receivers.values().filter(|receiver| !receiver.is_idle()) {
            receiver.left_behind();
        }
        self.answer_flush();
    }

    fn answer_flush(&mut self) {
        for reply in self.flushing.drain(..) {
            if reply.send(()).is_err() {
                tracing::debug!("nobody waits for the webhooks any more");
            }
        }
    }
}

#[cfg(test)]
mod tests;
