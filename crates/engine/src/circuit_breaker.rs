//! Holds requests to an endpoint back while it fails.
//!
//! ```text
//!             `threshold` failures in a row            `cooldown` is over
//!   closed ---------------------------------> open ------------------------> half-open
//!     ^                                        ^                               | one probe
//!     |                                        +------- it fails --------------+
//!     +------------------------- the endpoint answers -------------------------+
//! ```
//!
//! Invariants: of a half-open breaker at most one request, the probe, is under way. No state is
//! for ever: an open breaker becomes half-open by time alone, and a half-open one ends with its
//! probe, whatever becomes of it.
//!
//! A request that was under way when the breaker opened says little about now. Its failure is old
//! news: it neither counts nor prolongs the cooldown. If it is answered, the endpoint may be back,
//! and the next probe need not wait.

use std::time::{Duration, Instant};

use crate::ErrorClass;

/// Thresholds of the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Whether requests are ever held back.
    pub enabled: bool,
    /// Failures in a row that open the breaker.
    pub threshold: u32,
    /// How long nothing is sent before one request probes the endpoint.
    pub cooldown: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { enabled: true, threshold: 10, cooldown: Duration::from_secs(15) }
    }
}

/// What is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything.
    Closed,
    /// Nothing, until the cooldown is over.
    Open,
    /// One request, which shows whether the endpoint is back.
    HalfOpen,
}

impl BreakerState {
    /// Its name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

impl std::fmt::Display for BreakerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a request that ended tells of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It answered, be it with a refusal of this one request.
    Answered,
    /// It gave no answer, or said that it cannot work now.
    Failed,
    /// Nothing: the request ended before it was sent.
    Nothing,
}

impl Evidence {
    /// What a failure of this class tells. `answered` says whether there was an answer at all,
    /// which decides where the class does not.
    #[must_use]
    pub fn of_failure(class: ErrorClass, answered: bool) -> Self {
        match class {
            ErrorClass::Transient | ErrorClass::Throttled => Self::Failed,
            ErrorClass::Auth | ErrorClass::NotFound | ErrorClass::Precondition => Self::Answered,
            ErrorClass::Permanent if answered => Self::Answered,
            ErrorClass::Permanent => Self::Nothing,
        }
    }
}

/// The right to send one request; goes back with [`CircuitBreaker::ended`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The phase of the breaker that it was issued in.
    phase: u64,
}

/// A change that somebody may want to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerChange {
    /// Requests are held back from now on.
    Opened,
    /// The endpoint answers again.
    Closed,
}

/// The breaker of one endpoint.
#[derive(Clone, Debug)]
pub struct CircuitBreaker {
    settings: BreakerSettings,
    state: State,
    /// Number of the phase; passes of earlier ones are old news.
    phase: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        /// Failures in a row.
        failures: u32,
    },
    /// Half-open from `until` on.
    Open { until: Instant },
    /// The probe is under way.
    Probing,
}

impl CircuitBreaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, state: State::Closed { failures: 0 }, phase: 0 }
    }

    /// What is let through at `now`.
    #[must_use]
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::Probing => BreakerState::HalfOpen,
        }
    }

    /// Whether a request may begin at `now`.
    #[must_use]
    pub fn admits(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } => until <= now,
            State::Probing => false,
        }
    }

    /// When requests may begin although nothing else happened; `None` if they may now, or if the
    /// probe has to end first.
    #[must_use]
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Open { until } if now < until => Some(until),
            _ => None,
        }
    }

    /// A request begins, if [it may](Self::admits).
    pub fn begin(&mut self, now: Instant) -> Option<Pass> {
        if !self.admits(now) {
            return None;
        }
        if let State::Open { .. } = self.state {
            self.enter(State::Probing);
        }
        Some(Pass { phase: self.phase })
    }

    /// A request ended.
    pub fn ended(&mut self, now: Instant, pass: Pass, evidence: Evidence) -> Option<BreakerChange> {
        let current = pass.phase == self.phase;
        match (self.state, evidence) {
            (State::Closed { .. }, Evidence::Answered) if current => {
                self.state = State::Closed { failures: 0 };
                None
            }
            (State::Closed { failures }, Evidence::Failed) if current => {
                let failures = failures.saturating_add(1);
                self.state = State::Closed { failures };
                if !self.settings.enabled || failures < self.settings.threshold {
                    return None;
                }
                self.enter(State::Open { until: now + self.settings.cooldown });
                Some(BreakerChange::Opened)
            }
            (State::Open { until }, Evidence::Answered) => {
                self.state = State::Open { until: until.min(now) };
                None
            }
            (State::Probing, Evidence::Answered) if current => {
                self.enter(State::Closed { failures: 0 });
                Some(BreakerChange::Closed)
            }
            (State::Probing, Evidence::Failed) if current => {
                self.enter(State::Open { until: now + self.settings.cooldown });
                None
            }
            // The next request is the probe.
            (State::Probing, Evidence::Nothing) if current => {
                self.enter(State::Open { until: now });
                None
            }
            _ => None,
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.phase += 1;
    }
}

#[cfg(test)]
mod tests;
