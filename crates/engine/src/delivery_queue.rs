//! Which notice a receiver outside the process gets next, and when.
//!
//! One queue per receiver, so that one which hangs holds up nobody else. Notices go one at a time
//! and in order; one that was tried keeps its place until it is delivered or given up, and is sent
//! again unchanged.
//!
//! Equal notices that wait are coalesced: the newer one takes the place of the older, at the end of
//! the queue, so that what a receiver hears last is what happened last. A full queue loses its
//! oldest notice that is not critical, or its oldest if all are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bounds of the deliveries to one receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryPolicy {
    /// Notices that may wait; at least one.
    pub capacity: usize,
    /// Attempts for one notice that is not critical; at least one.
    pub max_attempts: u32,
    /// Attempts for one that is; at least one.
    pub max_critical_attempts: u32,
    /// Upper bound of the first pause after a failure; doubles with each attempt.
    pub base_delay: Duration,
    /// Upper bound of every pause.
    pub max_delay: Duration,
    /// Attempts that may follow one another at once; at least one.
    pub burst: u32,
    /// Time between attempts when the burst is used up.
    pub spacing: Duration,
}

impl Default for DeliveryPolicy {
    fn default() -> Self {
        Self {
            // Some hundred bytes each: enough for one notice of every database of a large host.
            capacity: 1024,
            // With the pauses below a receiver may be away for one to two minutes,
            max_attempts: 8,
            // and for at least half a day.
            max_critical_attempts: 1440,
            base_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
            burst: 20,
            spacing: Duration::from_millis(200),
        }
    }
}

/// Where a notice went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It waits.
    Added,
    /// It waits in place of an equal one.
    Repeated,
    /// The queue is full: this notice or an older one is lost.
    Overflowed {
        /// Notices lost since [`DeliveryQueue::take_lost`] was last asked.
        lost: u64,
    },
}

/// An attempt to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryAttempt<N> {
    /// What to send.
    pub notice: N,
    /// Equal notices that it stands for, besides itself.
    pub repeats: u32,
    /// Number of the attempt; the first is 1.
    pub number: u32,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The receiver has it.
    Delivered,
    /// The receiver does not want it, and would not want it the next time.
    Refused,
    /// Another attempt may succeed.
    Failed {
        /// The receiver asked for this pause.
        retry_after: Option<Duration>,
    },
}

/// What follows from the end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryDecision {
    /// The notice is done, for good or ill.
    Done,
    /// It is sent again after this pause.
    Retry(Duration),
    /// It was tried often enough and is lost.
    GiveUp,
}

/// The queue of one receiver. `K` tells which notices are equal.
#[derive(Debug)]
pub struct DeliveryQueue<K, N> {
    policy: DeliveryPolicy,
    waiting: VecDeque<Waiting<K, N>>,
    current: Option<Current<N>>,
    /// When the next attempt would be due if none came early: the clock of the rate limit.
    due: Option<Instant>,
    /// Neither rate limit nor growing pauses any more: the process ends.
    hurried: bool,
    lost: u64,
}

#[derive(Debug)]
struct Waiting<K, N> {
    key: K,
    critical: bool,
    notice: N,
    repeats: u32,
}

#[derive(Debug)]
struct Current<N> {
    critical: bool,
    notice: N,
    repeats: u32,
    failures: u32,
    state: CurrentState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CurrentState {
    UnderWay,
    WaitingUntil(Instant),
}

impl<K: Eq, N: Clone> DeliveryQueue<K, N> {
    /// An empty queue.
    #[must_use]
    pub fn new(policy: DeliveryPolicy) -> Self {
        let waiting = VecDeque::new();
        Self { policy, waiting, current: None, due: None, hurried: false, lost: 0 }
    }

    /// Adds a notice. A critical one is lost only if there are nothing but critical ones.
    pub fn push(&mut self, key: K, critical: bool, notice: N) -> Queued {
        let equal = self.waiting.iter().position(|waiting| waiting.key == key);
        let repeats = equal
            .and_then(|index| self.waiting.remove(index))
            .map_or(0, |older| older.repeats.saturating_add(1));
        self.waiting.push_back(Waiting { key, critical, notice, repeats });
        if self.waiting.len() > self.policy.capacity.max(1) {
            let least = self.waiting.iter().position(|waiting| !waiting.critical).unwrap_or(0);
            self.waiting.remove(least);
            self.lost += 1;
            return Queued::Overflowed { lost: self.lost };
        }
        if equal.is_some() { Queued::Repeated } else { Queued::Added }
    }

    /// The next attempt to start; `None` while one is under way or nothing is due at `now`.
    pub fn start_next(&mut self, now: Instant) -> Option<DeliveryAttempt<N>> {
        if self.ready_at(now) != Some(now) {
            return None;
        }
        let current = match self.current.take() {
            Some(current) => Current { state: CurrentState::UnderWay, ..current },
            None => {
                let Waiting { critical, notice, repeats, .. } = self.waiting.pop_front()?;
                Current { critical, notice, repeats, failures: 0, state: CurrentState::UnderWay }
            }
        };
        self.due = Some(self.due.map_or(now, |due| due.max(now)) + self.policy.spacing);
        let attempt = DeliveryAttempt {
            notice: current.notice.clone(),
            repeats: current.repeats,
            number: current.failures + 1,
        };
        self.current = Some(current);
        Some(attempt)
    }

    /// Decides after the end of the attempt under way. `random` is uniform in `0.0..1.0`.
    pub fn ended(
        &mut self,
        now: Instant,
        outcome: DeliveryOutcome,
        random: f64,
    ) -> DeliveryDecision {
        let Some(mut current) = self.current.take() else { return DeliveryDecision::Done };
        let DeliveryOutcome::Failed { retry_after } = outcome else {
            return DeliveryDecision::Done;
        };
        current.failures += 1;
        let DeliveryPolicy { max_attempts, max_critical_attempts, .. } = self.policy;
        if current.failures >= if current.critical { max_critical_attempts } else { max_attempts } {
            return DeliveryDecision::GiveUp;
        }
        let pause = self.pause(current.failures, retry_after, random);
        current.state = CurrentState::WaitingUntil(now + pause);
        self.current = Some(current);
        DeliveryDecision::Retry(pause)
    }

    fn pause(&self, failures: u32, retry_after: Option<Duration>, random: f64) -> Duration {
        let DeliveryPolicy { base_delay, max_delay, .. } = self.policy;
        let doublings = if self.hurried { 0 } else { failures.saturating_sub(1).min(20) };
        let bound = base_delay.saturating_mul(1 << doublings).min(max_delay);
        // Half of it always: a receiver that fails at once is not asked again at once.
        let pause = bound / 2 + (bound / 2).mul_f64(random.clamp(0.0, 1.0));
        match retry_after {
            Some(asked) if !self.hurried => pause.max(asked.min(max_delay)),
            _ => pause,
        }
    }

    /// The process ends: what waits is sent as soon as the receiver takes it.
    pub fn hurry(&mut self, now: Instant) {
        self.hurried = true;
        if let Some(Current { state: CurrentState::WaitingUntil(at), .. }) = &mut self.current {
            *at = now;
        }
    }

    /// When [`start_next`](Self::start_next) yields an attempt, at `now` or later; `None` if
    /// something else has to happen first.
    fn ready_at(&self, now: Instant) -> Option<Instant> {
        let retry = match &self.current {
            Some(Current { state: CurrentState::UnderWay, .. }) => return None,
            Some(Current { state: CurrentState::WaitingUntil(at), .. }) => *at,
            None if self.waiting.is_empty() => return None,
            None => now,
        };
        Some(now.max(retry).max(self.allowed_at().unwrap_or(now)))
    }

    /// When the rate limit allows an attempt; `None`: at any time.
    fn allowed_at(&self) -> Option<Instant> {
        let early = self.policy.spacing.saturating_mul(self.policy.burst.max(1) - 1);
        let due = self.due.filter(|_| !self.hurried)?;
        due.checked_sub(early)
    }

    /// When an attempt becomes due although nothing else happens, if it is not due at `now`.
    #[must_use]
    pub fn next_look(&self, now: Instant) -> Option<Instant> {
        self.ready_at(now).filter(|at| now < *at)
    }

    /// Notices that wait or are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.current.is_some())
    }

    /// Whether nothing waits or is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything that was not delivered, the notice under way included, oldest first.
    #[must_use]
    pub fn into_undelivered(self) -> Vec<N> {
        let current = self.current.into_iter().map(|current| current.notice);
        current.chain(self.waiting.into_iter().map(|waiting| waiting.notice)).collect()
    }

    /// How many notices a full queue has lost since this was last asked.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests;
