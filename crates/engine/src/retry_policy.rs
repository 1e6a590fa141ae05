//! How long to wait before a failed upload is sent again: exponential backoff with full jitter.
//!
//! Nothing is ever given up: the bytes stay in staging and the attempt stays due. What changes
//! with the class is the pace, and from which attempt on the failure is worth an alarm.

use std::time::Duration;

use crate::ErrorClass;

/// Settings of the backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after which a retryable failure is reported as an error, not as a warning.
    pub max_retries: u32,
    /// Upper bound of the first delay; doubles with each attempt.
    pub base_delay: Duration,
    /// Upper bound of every delay.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 5,
            base_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
        }
    }
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Send the same request again after this delay.
    After {
        /// Time to wait from now.
        delay: Duration,
        /// Whether somebody should be told: the failure lasts, or waiting alone will not mend it.
        alarm: bool,
    },
    /// Another writer owns the object: sending again could only do harm.
    Stop,
}

impl RetryPolicy {
    /// Decides after the failure of attempt number `attempt` (the first is 1).
    ///
    /// `random` is uniform in `0.0..1.0`. Transient and throttled failures wait between nothing and
    /// the exponential bound ("full jitter"); failures that need a person wait for `max_delay`.
    #[must_use]
    pub fn after_failure(&self, class: ErrorClass, attempt: u32, random: f64) -> RetryDecision {
        match class {
            ErrorClass::Precondition => RetryDecision::Stop,
            ErrorClass::Transient | ErrorClass::Throttled => {
                let doublings = attempt.saturating_sub(1).min(20);
                let bound = self.base_delay.saturating_mul(1 << doublings).min(self.max_delay);
                // A throttled store needs a pause even when the dice say none.
                let floor = if class == ErrorClass::Throttled { bound / 2 } else { Duration::ZERO };
                let delay = floor + (bound - floor).mul_f64(random.clamp(0.0, 1.0));
                RetryDecision::After { delay, alarm: attempt >= self.max_retries.max(1) }
            }
            ErrorClass::Auth | ErrorClass::NotFound | ErrorClass::Permanent => {
                RetryDecision::After { delay: self.max_delay, alarm: true }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_jitter_fills_the_whole_range() {
        let policy = RetryPolicy::default();
        let delay =
            |attempt, random| match policy.after_failure(ErrorClass::Transient, attempt, random) {
                RetryDecision::After { delay, .. } => delay,
                RetryDecision::Stop => panic!("a transient failure is retried"),
            };
        assert_eq!(delay(1, 0.0), Duration::ZERO);
        assert_eq!(delay(1, 1.0), Duration::from_millis(100));
        assert_eq!(delay(3, 1.0), Duration::from_millis(400));
        assert_eq!(delay(60, 1.0), Duration::from_secs(30));
    }

    #[test]
    fn a_throttled_store_gets_at_least_half_the_bound() {
        let decision = RetryPolicy::default().after_failure(ErrorClass::Throttled, 1, 0.0);
        assert_eq!(
            decision,
            RetryDecision::After { delay: Duration::from_millis(50), alarm: false }
        );
    }

    #[test]
    fn failures_that_need_a_person_are_slow_and_alarm_at_once() {
        for class in [ErrorClass::Auth, ErrorClass::NotFound, ErrorClass::Permanent] {
            let decision = RetryPolicy::default().after_failure(class, 1, 0.5);
            assert_eq!(
                decision,
                RetryDecision::After { delay: Duration::from_secs(30), alarm: true }
            );
        }
    }

    #[test]
    fn another_writer_is_never_overwritten() {
        let decision = RetryPolicy::default().after_failure(ErrorClass::Precondition, 1, 0.5);
        assert_eq!(decision, RetryDecision::Stop);
    }

    #[test]
    fn a_retryable_failure_alarms_from_max_retries_on() {
        let policy = RetryPolicy { max_retries: 3, ..RetryPolicy::default() };
        let alarm = |attempt| match policy.after_failure(ErrorClass::Transient, attempt, 0.5) {
            RetryDecision::After { alarm, .. } => alarm,
            RetryDecision::Stop => panic!("a transient failure is retried"),
        };
        assert_eq!([1, 2, 3, 4].map(alarm), [false, false, true, true]);
    }
}
