//! One receiver of events: which it wants, what waits for it, and what became of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use walrust_engine::{
    DeliveryDecision, DeliveryOutcome, DeliveryPolicy, DeliveryQueue, EventKind, Queued,
};

use super::delivery::{DeliveryError, Parcel};
use super::notice::Notice;
use super::target::Target;
use crate::settings::WebhookSettings;
use crate::webhook_url::WebhookUrlError;

/// See the module.
#[derive(Debug)]
pub(super) struct Receiver {
    settings: WebhookSettings,
    target: Arc<Target>,
    /// Events of one kind and database are equal.
    queue: DeliveryQueue<(EventKind, Option<String>), Notice>,
    /// Of the notice under way, for the log.
    attempt: Option<(EventKind, u32)>,
}

impl Receiver {
    pub(super) fn new(
        settings: WebhookSettings,
        policy: DeliveryPolicy,
    ) -> Result<Self, WebhookUrlError> {
        let target = Arc::new(Target::new(&settings)?);
        Ok(Self { settings, target, queue: DeliveryQueue::new(policy), attempt: None })
    }

    pub(super) fn settings(&self) -> &WebhookSettings {
        &self.settings
    }

    /// What it was not known to have when it was taken out of the settings.
    pub(super) fn into_undelivered(self) -> Vec<Notice> {
        let undelivered = self.queue.into_undelivered();
        if !undelivered.is_empty() {
            let (receiver, events) = (&self.target.origin, undelivered.len());
            tracing::warn!(
                receiver,
                events,
                "a webhook is gone before all its events were delivered"
            );
        }
        undelivered
    }

    pub(super) fn uses_tls(&self) -> bool {
        self.target.url.scheme() == "https"
    }

    /// How often it wants a heartbeat, if at all.
    pub(super) fn heartbeat_interval(&self) -> Option<Duration> {
        let interval = self.settings.heartbeat_interval;
        (self.wants(EventKind::Heartbeat) && !interval.is_zero()).then_some(interval)
    }

    fn wants(&self, kind: EventKind) -> bool {
        match &self.settings.events[..] {
            [] => kind != EventKind::Heartbeat,
            events => events.contains(&kind),
        }
    }

    /// Queues a notice, if the receiver wants it.
    pub(super) fn offer(&mut self, notice: &Notice) {
        let event = notice.event();
        if !self.wants(event.kind) {
            return;
        }
        let key = (event.kind, event.database.clone());
        let queued = self.queue.push(key, event.kind.is_critical(), notice.clone());
        if let Queued::Overflowed { lost: 1 } = queued {
            let receiver = &self.target.origin;
            tracing::error!(receiver, "the queue of a webhook is full, events are dropped");
        }
    }

    /// What to send now, if anything.
    pub(super) fn start_next(&mut self, now: Instant) -> Option<Parcel> {
        let attempt = self.queue.start_next(now)?;
        let kind = attempt.notice.event().kind;
        self.attempt = Some((kind, attempt.number));
        Some(Parcel {
            target: Arc::clone(&self.target),
            kind,
            body: attempt.notice.body(attempt.repeats),
        })
    }

    /// The attempt under way ended.
    pub(super) fn ended(&mut self, now: Instant, outcome: Result<(), DeliveryError>, random: f64) {
        let Some((event, attempt)) = self.attempt.take() else { return };
        let (event, receiver) = (event.as_str(), &self.target.origin);
        let meaning =
            outcome.as_ref().map_or_else(DeliveryError::outcome, |()| DeliveryOutcome::Delivered);
        let decision = self.queue.ended(now, meaning, random);
        match (outcome, decision) {
            (Ok(()), _) => tracing::debug!(receiver, event, attempt, "event delivered"),
            (Err(error), DeliveryDecision::Retry(_)) if attempt > 1 => {
                tracing::debug!(receiver, event, attempt, %error, "event not delivered yet");
            }
            (Err(error), DeliveryDecision::Retry(_)) => {
                tracing::warn!(receiver, event, %error, "event not delivered, will be tried again");
            }
            (Err(error), DeliveryDecision::Done | DeliveryDecision::GiveUp) => {
                tracing::error!(receiver, event, attempt, %error, "event not delivered");
            }
        }
        if self.queue.is_empty() {
            self.report_lost();
        }
    }

    fn report_lost(&mut self) {
        let events = self.queue.take_lost();
        if events > 0 {
            let receiver = &self.target.origin;
            tracing::error!(receiver, events, "events were dropped while the webhook was slow");
        }
    }

    pub(super) fn hurry(&mut self, now: Instant) {
        self.queue.hurry(now);
    }

    pub(super) fn next_look(&self, now: Instant) -> Option<Instant> {
        self.queue.next_look(now)
    }

    /// Whether nothing waits or is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// The process ends with events that were not delivered.
    pub(super) fn left_behind(&self) {
        let (receiver, events) = (&self.target.origin, self.queue.len());
        tracing::error!(receiver, events, "undelivered events dropped at shutdown");
    }
}
