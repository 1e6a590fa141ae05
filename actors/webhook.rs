//! WebhookActor: tells receivers outside the process about events.
//!
//! # Messages in / out
//! In: [`WebhookMsg::Raise`] from everybody, [`WebhookMsg::Flush`] from the root. Out: nothing but
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
//! # Crash
//! What was queued is lost; everything that is raised was logged where it happened. The root starts
//! a new incarnation, which knows nothing of the old one.
//!
//! # Back-pressure
//! None: whoever raises an event never waits. Queues are bounded, equal events that wait become one,
//! and what does not fit is dropped and counted in the log.

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
        /// Index of the receiver.
        receiver: usize,
        /// How it ended.
        outcome: Result<(), DeliveryError>,
    },
    /// A delivery may have become due.
    DeliveryDue,
    /// A receiver is to get a heartbeat.
    HeartbeatDue {
        /// Index of the receiver.
        receiver: usize,
    },
    /// Flushing has taken long enough.
    FlushDeadline,
}

impl WebhookMsg {
    /// Its name, for crash points.
    fn name(&self) -> &'static str {
        match self {
            Self::Raise(_) => "raise",
            Self::Flush { .. } => "flush",
            Self::Ended { .. } => "ended",
            Self::DeliveryDue => "delivery_due",
            Self::HeartbeatDue { .. } => "heartbeat_due",
            Self::FlushDeadline => "flush_deadline",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct WebhookActor;

/// The state of the actor.
#[derive(Debug)]
pub(crate) struct WebhookState {
    receivers: Vec<Receiver>,
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
        let state = WebhookState::new(arguments);
        for receiver in 0..state.receivers.len() {
            myself.cast(WebhookMsg::HeartbeatDue { receiver })?;
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<WebhookMsg>,
        message: WebhookMsg,
        state: &mut WebhookState,
    ) -> Result<(), ActorProcessingErr> {
        crash_point("webhook", message.name())?;
        match message {
            WebhookMsg::Raise(event) => state.raise(event),
            WebhookMsg::Flush { timeout, reply } => state.flush(timeout, reply, &myself),
            WebhookMsg::Ended { receiver, outcome } => state.ended(receiver, outcome),
            WebhookMsg::DeliveryDue => state.timer = None,
            WebhookMsg::HeartbeatDue { receiver } => state.heartbeat(receiver, &myself),
            WebhookMsg::FlushDeadline => state.flush_deadline(),
        }
        state.start_attempts(&myself);
        state.arm_timer(&myself);
        state.answer_if_flushed();
        Ok(())
    }
}

impl WebhookState {
    fn new(arguments: WebhookArguments) -> Self {
        let WebhookArguments { webhooks, policy } = arguments;
        let receivers = webhooks.into_iter().filter_map(|settings| {
            Receiver::new(settings, policy)
                .inspect_err(|error| tracing::error!(%error, "a webhook gets no events"))
                .ok()
        });
        let receivers: Vec<_> = receivers.collect();
        Self {
            courier: Courier::new(receivers.iter().any(Receiver::uses_tls)),
            receivers,
            attempts: JoinSet::new(),
            timer: None,
            flushing: Vec::new(),
        }
    }

    fn raise(&mut self, event: Event) {
        tracing::debug!(event = %event.kind, db = event.database, "event");
        let notice = Notice::of(event);
        for receiver in &mut self.receivers {
            receiver.offer(&notice);
        }
    }

    fn heartbeat(&mut self, index: usize, myself: &ActorRef<WebhookMsg>) {
        let Some(receiver) = self.receivers.get_mut(index) else { return };
        let Some(interval) = receiver.heartbeat_interval() else { return };
        if !self.flushing.is_empty() {
            return;
        }
        receiver.offer(&Notice::of(Event::new(EventKind::Heartbeat)));
        myself.send_after(interval, move || WebhookMsg::HeartbeatDue { receiver: index });
    }

    fn start_attempts(&mut self, myself: &ActorRef<WebhookMsg>) {
        for (index, receiver) in self.receivers.iter_mut().enumerate() {
            let Some(parcel) = receiver.start_next(Instant::now()) else { continue };
            let (courier, myself) = (self.courier.clone(), myself.clone());
            self.attempts.spawn(async move {
                let outcome = courier.deliver(&parcel).await;
                // A dead actor aborts its attempts; nobody is left to be told.
                let _ = myself.cast(WebhookMsg::Ended { receiver: index, outcome });
            });
        }
    }

    fn ended(&mut self, index: usize, outcome: Result<(), DeliveryError>) {
        // Frees what finished tasks hold.
        while self.attempts.try_join_next().is_some() {}
        if let Some(receiver) = self.receivers.get_mut(index) {
            receiver.ended(Instant::now(), outcome, fastrand::f64());
        }
    }

    fn arm_timer(&mut self, myself: &ActorRef<WebhookMsg>) {
        let now = Instant::now();
        let looks = self.receivers.iter().filter_map(|receiver| receiver.next_look(now));
        let Some(next) = looks.min() else { return };
        if self.timer.is_some_and(|armed| armed <= next) {
            return;
        }
        self.timer = Some(next);
        myself.send_after(next.saturating_duration_since(now), || WebhookMsg::DeliveryDue);
    }

    fn flush(&mut self, timeout: Duration, reply: RpcReplyPort<()>, myself: &ActorRef<WebhookMsg>) {
        self.flushing.push(reply);
        for receiver in &mut self.receivers {
            receiver.hurry(Instant::now());
        }
        myself.send_after(timeout, || WebhookMsg::FlushDeadline);
    }

    fn answer_if_flushed(&mut self) {
        if self.receivers.iter().all(Receiver::is_idle) {
            self.answer_flush();
        }
    }

    fn flush_deadline(&mut self) {
        for receiver in self.receivers.iter().filter(|receiver| !receiver.is_idle()) {
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
