//! When walrust checkpoints a database, so that its WAL restarts while a pin is held.
//!
//! Invariant: a checkpoint is proposed only for frames that storage has confirmed, so that giving
//! up the old pin for the new one can lose nothing.

use std::time::{Duration, Instant};

/// Thresholds of one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// Checkpoint when the WAL has at least this many frames; zero: never for this reason.
    pub min_pages: u32,
    /// Checkpoint a WAL with frames when the last checkpoint is this long ago; zero: never for
    /// this reason.
    pub interval: Duration,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self { min_pages: 1000, interval: Duration::from_secs(60) }
    }
}

/// The checkpoint state of one database.
#[derive(Clone, Debug)]
pub struct CheckpointPolicy {
    settings: CheckpointSettings,
    /// When a checkpoint was last tried, or when the database was opened.
    last: Instant,
    /// Tries in a row that could not backfill the whole WAL.
    incomplete: u32,
}

/// The pause after the first incomplete checkpoint; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(500);
/// A reader of the application may hold the WAL for minutes; trying more often helps nobody.
const MAX_PAUSE: Duration = Duration::from_secs(30);

impl CheckpointPolicy {
    /// A policy for a database that was opened at `now`.
    #[must_use]
    pub fn new(settings: CheckpointSettings, now: Instant) -> Self {
        Self { settings, last: now, incomplete: 0 }
    }

    /// Whether to checkpoint now, with `shipped` of the WAL's `frames` confirmed by storage and
    /// `backfilled` already in the database file.
    #[must_use]
    pub fn is_due(&self, shipped: u32, frames: u32, backfilled: u32, now: Instant) -> bool {
        if shipped < frames || frames == 0 || backfilled >= frames {
            return false;
        }
        let age = now.saturating_duration_since(self.last);
        if self.incomplete > 0 && age < pause_after(self.incomplete) {
            return false;
        }
        let large = self.settings.min_pages > 0 && frames >= self.settings.min_pages;
        let old = !self.settings.interval.is_zero() && age >= self.settings.interval;
        large || old
    }

    /// Records a checkpoint tried at `now`; `complete` if the whole WAL was backfilled.
    pub fn tried(&mut self, complete: bool, now: Instant) {
        self.last = now;
        self.incomplete = if complete { 0 } else { self.incomplete.saturating_add(1) };
    }

    /// How long after `now` a checkpoint of a WAL that does not change may become due; `None` if
    /// time alone makes none due.
    #[must_use]
    pub fn next_look(&self, now: Instant) -> Option<Duration> {
        let pause = (self.incomplete > 0).then(|| pause_after(self.incomplete));
        let interval = (!self.settings.interval.is_zero()).then_some(self.settings.interval);
        let wait = match (pause, interval) {
            (Some(pause), _) => pause,
            (None, Some(interval)) => interval,
            (None, None) => return None,
        };
        Some((self.last + wait).saturating_duration_since(now))
    }
}

fn pause_after(incomplete: u32) -> Duration {
    MIN_PAUSE.saturating_mul(1 << (incomplete - 1).min(10)).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "an Instant cannot be made in another way")]
    fn instant() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_large_wal_is_due_only_when_all_of_it_is_shipped() {
        let now = instant();
        let policy = CheckpointPolicy::new(CheckpointSettings::default(), now);
        assert!(!policy.is_due(999, 999, 0, now));
        assert!(!policy.is_due(999, 1000, 0, now), "a frame is not shipped yet");
        assert!(policy.is_due(1000, 1000, 0, now));
        assert!(!policy.is_due(1000, 1000, 1000, now), "nothing is left to backfill");
    }

    #[test]
    fn a_small_wal_is_due_after_the_interval() {
        let now = instant();
        let policy = CheckpointPolicy::new(CheckpointSettings::default(), now);
        assert!(!policy.is_due(5, 5, 0, now + Duration::from_secs(59)));
        assert!(policy.is_due(5, 5, 0, now + Duration::from_secs(60)));
        assert_eq!(policy.next_look(now), Some(Duration::from_secs(60)));
    }

    #[test]
    fn zero_switches_each_reason_off() {
        let now = instant();
        let settings = CheckpointSettings { min_pages: 0, interval: Duration::ZERO };
        let policy = CheckpointPolicy::new(settings, now);
        assert!(!policy.is_due(1_000_000, 1_000_000, 0, now + Duration::from_secs(3600)));
        assert_eq!(policy.next_look(now), None);
    }

    #[test]
    fn an_incomplete_checkpoint_is_tried_again_with_growing_pauses() {
        let now = instant();
        let mut policy = CheckpointPolicy::new(CheckpointSettings::default(), now);
        policy.tried(false, now);
        assert!(!policy.is_due(2000, 2000, 0, now + Duration::from_millis(499)));
        assert!(policy.is_due(2000, 2000, 0, now + Duration::from_millis(500)));
        for _ in 0..20 {
            policy.tried(false, now);
        }
        assert!(!policy.is_due(2000, 2000, 0, now + Duration::from_secs(29)));
        assert!(policy.is_due(2000, 2000, 0, now + Duration::from_secs(30)));
        policy.tried(true, now);
        assert!(policy.is_due(2000, 2000, 0, now));
    }
}
