//! When the next sync of a database may begin: leading edge, then at most one per interval.
//!
//! A commit after a quiet spell is shipped at once; under steady writes uploads of one database
//! are at least `interval` apart, and the last commit of a burst is never forgotten.

use std::time::{Duration, Instant};

/// The spacing of one database's syncs.
#[derive(Clone, Debug)]
pub struct Pacing {
    interval: Duration,
    /// When the last sync that found something to ship began.
    last: Option<Instant>,
}

impl Pacing {
    /// Spaces syncs by `interval`; zero means as fast as storage confirms.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, last: None }
    }

    /// How long a sync wanted at `now` has to wait; zero to begin at once.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        match self.last {
            None => Duration::ZERO,
            Some(last) => (last + self.interval).saturating_duration_since(now),
        }
    }

    /// Records that a sync which ships something began at `now`.
    pub fn began(&mut self, now: Instant) {
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "an Instant cannot be made in another way")]
    fn instant() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_first_commit_and_one_after_a_quiet_spell_go_at_once() {
        let start = instant();
        let mut pacing = Pacing::new(Duration::from_secs(1));
        assert_eq!(pacing.wait(start), Duration::ZERO);
        pacing.began(start);
        assert_eq!(pacing.wait(start + Duration::from_secs(5)), Duration::ZERO);
    }

    #[test]
    fn steady_writes_wait_for_the_rest_of_the_interval() {
        let start = instant();
        let mut pacing = Pacing::new(Duration::from_secs(1));
        pacing.began(start);
        let wait = pacing.wait(start + Duration::from_millis(300));
        assert_eq!(wait, Duration::from_millis(700));
    }
}
