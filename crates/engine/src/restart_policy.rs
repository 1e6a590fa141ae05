//! What the supervisor does when a child dies: restart, later and later, then quarantine.
//!
//! Each child has its own budget, so a child that keeps crashing never uses up another's.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Limits of one child's restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartSettings {
    /// Crashes allowed inside `window` before the child is quarantined.
    pub intensity: usize,
    /// The window in which crashes are counted.
    pub window: Duration,
    /// Delay before the first restart; doubles with each crash inside the window.
    pub base_delay: Duration,
    /// Upper bound of the delay.
    pub max_delay: Duration,
    /// How long a child that crashed too often is left alone.
    pub quarantine: Duration,
}

impl Default for RestartSettings {
    fn default() -> Self {
        Self {
            intensity: 5,
            window: Duration::from_secs(60),
            base_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(300),
            quarantine: Duration::from_secs(900),
        }
    }
}

/// What to do with a child that died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartDecision {
    /// Start it again after this delay.
    Restart(Duration),
    /// It crashes too often: start it again only after this time, and tell somebody.
    Quarantine(Duration),
}

/// The crashes of one child.
#[derive(Clone, Debug)]
pub struct RestartPolicy {
    settings: RestartSettings,
    /// Times of the crashes inside the window; at most `intensity + 1` of them.
    crashes: VecDeque<Instant>,
}

impl RestartPolicy {
    /// A child without a crash so far.
    #[must_use]
    pub fn new(settings: RestartSettings) -> Self {
        Self { settings, crashes: VecDeque::new() }
    }

    /// Decides after a crash at `now`; `random` is uniform in `0.0..1.0` and spreads restarts.
    pub fn crashed(&mut self, now: Instant, random: f64) -> RestartDecision {
        let window = self.settings.window;
        while self.crashes.front().is_some_and(|at| now.saturating_duration_since(*at) > window) {
            self.crashes.pop_front();
        }
        self.crashes.push_back(now);
        if self.crashes.len() > self.settings.intensity {
            self.crashes.clear();
            return RestartDecision::Quarantine(self.settings.quarantine);
        }
        let doublings = u32::try_from(self.crashes.len() - 1).unwrap_or(u32::MAX).min(20);
        let bound =
            self.settings.base_delay.saturating_mul(1 << doublings).min(self.settings.max_delay);
        RestartDecision::Restart(bound / 2 + (bound / 2).mul_f64(random.clamp(0.0, 1.0)))
    }
}

/// Spaces the restarts of a whole tree, so that a fault which many children share does not become
/// a storm of openings and requests. It delays; it gives nothing up.
#[derive(Clone, Debug)]
pub struct RestartRate {
    /// Time from one restart to the next once the burst is used up.
    spacing: Duration,
    /// Restarts that may follow each other at once.
    burst: u32,
    /// When the next restart would be due if none had been admitted early.
    next: Option<Instant>,
}

impl RestartRate {
    /// Allows `per_second` restarts a second, and as many at once after a quiet spell.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        let burst = per_second.max(1);
        Self { spacing: Duration::from_secs(1) / burst, burst, next: None }
    }

    /// Admits a restart that is due at `now`; returns how long it has to wait for its turn.
    pub fn admit(&mut self, now: Instant) -> Duration {
        // The virtual schedule of a leaky bucket (generic cell rate algorithm).
        let slot = self.next.map_or(now, |next| next.max(now));
        self.next = Some(slot + self.spacing);
        let early = self.spacing * (self.burst - 1);
        slot.saturating_duration_since(now).saturating_sub(early)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_restarts_passes_and_the_rest_is_spread() {
        let now = instant();
        let mut rate = RestartRate::new(10);
        let delays: Vec<_> = (0..30).map(|_| rate.admit(now)).collect();
        assert!(delays[..10].iter().all(Duration::is_zero), "{delays:?}");
        assert_eq!(delays[10], Duration::from_millis(100));
        assert_eq!(delays[29], Duration::from_millis(2000));
        // After a quiet spell a burst passes again.
        assert_eq!(rate.admit(now + Duration::from_secs(10)), Duration::ZERO);
    }

    #[allow(clippy::disallowed_methods, reason = "an Instant cannot be made in another way")]
    fn instant() -> Instant {
        Instant::now()
    }

    #[test]
    fn restarts_come_later_and_later_then_the_child_is_quarantined() {
        let now = instant();
        let mut policy = RestartPolicy::new(RestartSettings::default());
        let delays: Vec<_> = (0..5).map(|_| policy.crashed(now, 1.0)).collect();
        let expected = [100, 200, 400, 800, 1600]
            .map(|ms| RestartDecision::Restart(Duration::from_millis(ms)));
        assert_eq!(delays, expected);
        assert_eq!(policy.crashed(now, 1.0), RestartDecision::Quarantine(Duration::from_secs(900)));
        // After a quarantine the child starts with a clean record.
        let first = RestartDecision::Restart(Duration::from_millis(100));
        assert_eq!(policy.crashed(now, 1.0), first);
    }

    #[test]
    fn crashes_outside_the_window_are_forgotten() {
        let now = instant();
        let mut policy = RestartPolicy::new(RestartSettings::default());
        for minute in 0..100 {
            let at = now + Duration::from_secs(61 * minute);
            let expected = RestartDecision::Restart(Duration::from_millis(50));
            assert_eq!(policy.crashed(at, 0.0), expected);
        }
    }
}
