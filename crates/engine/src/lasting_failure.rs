//! Work that is done now and then and fails: when it is tried again, and when somebody has to know.
//!
//! Invariant: what may pass by itself is tried again soon, and is an alarm only when it has lasted for an
//! hour and several attempts; what will not pass is one at once. Nobody is alarmed more often than
//! [`LastingAlarm`] says.

use std::time::{Duration, Instant};

use crate::lasting_alarm::LastingAlarm;

/// After this long a failure that may pass is an alarm.
const LASTS: Duration = Duration::from_secs(3600);
/// Attempts that fail before it is one.
const ATTEMPTS: u32 = 3;
/// The wait for the second attempt; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_secs(60);
/// The longest wait for an attempt.
const LONGEST_WAIT: Duration = Duration::from_secs(900);

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastingFailure {
    /// When the first of the attempts ended that failed one after another.
    since: Option<Instant>,
    attempts: u32,
    alarm: LastingAlarm,
}

/// What follows from an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfterFailure {
    /// Whether to raise an alarm.
    pub alarm: bool,
    /// When to try again out of turn, if at all.
    pub retry_after: Option<Duration>,
}

impl LastingFailure {
    /// An attempt failed, for a reason that may pass by itself or will not.
    pub fn failed(&mut self, now: Instant, may_pass: bool) -> AfterFailure {
        let since = *self.since.get_or_insert(now);
        let wait = FIRST_WAIT.saturating_mul(1 << self.attempts.min(10)).min(LONGEST_WAIT);
        self.attempts = self.attempts.saturating_add(1);
        let lasts = self.attempts >= ATTEMPTS && now.saturating_duration_since(since) >= LASTS;
        let alarm = (lasts || !may_pass) && self.alarm.set(now);
        AfterFailure { alarm, retry_after: may_pass.then_some(wait) }
    }

    /// An attempt succeeded.
    pub fn succeeded(&mut self) {
        *self = Self::default();
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
    fn what_may_pass_is_tried_again_soon_and_is_an_alarm_after_an_hour() {
        let (mut failure, mut now) = (LastingFailure::default(), instant());
        let (begin, mut waits) = (now, Vec::new());
        while now - begin < LASTS {
            let AfterFailure { alarm, retry_after } = failure.failed(now, true);
            assert!(!alarm, "after {:?}", now - begin);
            let wait = retry_after.expect("it may pass");
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits[..6], [60, 120, 240, 480, 900, 900]);
        assert!(failure.failed(now, true).alarm);
        assert!(!failure.failed(now + LONGEST_WAIT, true).alarm, "once an hour");
        failure.succeeded();
        assert_eq!(failure.failed(now, true).retry_after, Some(FIRST_WAIT));
    }

    #[test]
    fn after_a_long_pause_one_failure_is_no_alarm() {
        let (mut failure, now) = (LastingFailure::default(), instant());
        assert!(!failure.failed(now, true).alarm);
        assert!(!failure.failed(now + 24 * LASTS, true).alarm, "a single attempt since");
        assert!(failure.failed(now + 25 * LASTS, true).alarm);
    }

    #[test]
    fn what_will_not_pass_is_an_alarm_at_once() {
        let (mut failure, now) = (LastingFailure::default(), instant());
        assert_eq!(failure.failed(now, false), AfterFailure { alarm: true, retry_after: None });
        assert!(!failure.failed(now + FIRST_WAIT, false).alarm);
    }
}
