//! The time of a state.

use std::time::{SystemTime, UNIX_EPOCH};

/// Tells what time a state is of, in milliseconds since the Unix epoch. It is asked when it is known
/// how far the state reaches: what is committed later belongs to a later time.
pub trait Clock {
    /// The time now.
    fn now_ms(&self) -> i64;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
    }
}

/// A clock that stands still.
impl Clock for i64 {
    fn now_ms(&self) -> i64 {
        *self
    }
}
