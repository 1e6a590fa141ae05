//! An alarm about something that lasts: said once, and again now and then until it is over.
//!
//! Invariant: whoever missed it, because a receiver or the process between was away, hears of it within
//! [`REMINDER`]; nobody hears of it more often.

use std::time::{Duration, Instant};

/// After this long an alarm that lasts is raised again.
pub const REMINDER: Duration = Duration::from_secs(3600);

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastingAlarm {
    /// When it was last raised; `None` while nothing is wrong.
    raised: Option<Instant>,
}

impl LastingAlarm {
    /// Something is wrong, perhaps still; whether to raise it now.
    pub fn set(&mut self, now: Instant) -> bool {
        let is_due = self.raised.is_none_or(|at| now.saturating_duration_since(at) >= REMINDER);
        if is_due {
            self.raised = Some(now);
        }
        is_due
    }

    /// It is over; whether it was raised before.
    pub fn clear(&mut self) -> bool {
        self.raised.take().is_some()
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
    fn an_alarm_is_raised_once_an_hour_while_it_lasts() {
        let (mut alarm, now) = (LastingAlarm::default(), instant());
        assert!(!alarm.clear());
        assert!(alarm.set(now));
        assert!(!alarm.set(now + REMINDER - Duration::from_secs(1)));
        assert!(alarm.set(now + REMINDER));
        assert!(!alarm.set(now + REMINDER + Duration::from_secs(1)));
        assert!(alarm.clear());
        assert!(alarm.set(now + REMINDER + Duration::from_secs(2)), "the next one is news");
    }
}
