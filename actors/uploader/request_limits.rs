//! Rates of requests: of all uploads, and of those of one database.
//!
//! Nothing here waits. Who is refused is told for how long, waits without a slot, and comes again.
//! An allowance that was taken and could not be used yet is kept, so that a database whose own
//! limit is reached does not use up what belongs to all.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::request_rate::RequestRate;
use crate::settings::UploadLimits;

/// Databases that are remembered before it is looked for some to forget.
const SWEEP_AT: usize = 1024;

/// The limits of all requests.
#[derive(Debug)]
pub(super) struct RequestLimits {
    process: ProcessLimit,
    database: Option<DatabaseLimits>,
    clock: DefaultClock,
}

#[derive(Debug)]
struct ProcessLimit {
    rate: RequestRate,
    /// Requests that were allowed and not made.
    saved: u32,
}

#[derive(Debug)]
struct DatabaseLimits {
    limiter: DefaultKeyedRateLimiter<String>,
    most: NonZeroU32,
    /// With so many databases remembered, those are forgotten that were quiet lately.
    sweep_at: usize,
}

/// Whose limit is reached, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OverLimit {
    /// That of the process.
    Process(Duration),
    /// That of this database.
    Database(Duration),
}

impl RequestLimits {
    /// `rate` is that of the process, uploads and everything else together.
    pub(super) fn new(rate: RequestRate, limits: &UploadLimits) -> Self {
        let process = ProcessLimit { rate, saved: 0 };
        let database = NonZeroU32::new(limits.requests_per_second_per_database).map(|most| {
            let limiter = RateLimiter::keyed(Quota::per_second(most));
            DatabaseLimits { limiter, most, sweep_at: SWEEP_AT }
        });
        Self { process, database, clock: DefaultClock::default() }
    }

    /// Takes so many requests of a database off the limits, or none.
    pub(super) fn admit(&mut self, database: &str, requests: NonZeroU32) -> Result<(), OverLimit> {
        let Self { process, database: databases, clock } = self;
        process.save_up(requests).map_err(OverLimit::Process)?;
        if let Some(databases) = databases {
            databases.admit(database, requests, clock).map_err(OverLimit::Database)?;
        }
        process.saved = process.saved.saturating_sub(requests.get());
        Ok(())
    }
}

impl ProcessLimit {
    fn save_up(&mut self, requests: NonZeroU32) -> Result<(), Duration> {
        let Some(most) = self.rate.most() else { return Ok(()) };
        while self.saved < requests.min(most).get() {
            self.rate.check()?;
            self.saved += 1;
        }
        Ok(())
    }
}

impl DatabaseLimits {
    fn admit(
        &mut self,
        database: &str,
        requests: NonZeroU32,
        clock: &DefaultClock,
    ) -> Result<(), Duration> {
        if self.limiter.len() >= self.sweep_at {
            self.limiter.retain_recent();
            self.sweep_at = SWEEP_AT.max(self.limiter.len() * 2);
        }
        // More than the limit would never be allowed at once.
        let requests = requests.min(self.most);
        match self.limiter.check_key_n(&database.to_owned(), requests) {
            Ok(Err(not_until)) => Err(not_until.wait_time_from(clock.now())),
            // Not more than the limit was asked for, so that is no error.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NonZeroU32 = NonZeroU32::MIN;

    fn limits(process: u32, database: u32) -> RequestLimits {
        RequestLimits::new(
            RequestRate::new(process),
            &UploadLimits { requests_per_second_per_database: database, ..UploadLimits::default() },
        )
    }

    #[test]
    fn zero_is_no_limit() {
        let mut limits = limits(0, 0);
        for _ in 0..10_000 {
            assert_eq!(limits.admit("a", ONE), Ok(()));
        }
    }

    #[test]
    fn a_database_at_its_limit_leaves_the_others_theirs() {
        let mut limits = limits(4, 2);
        for _ in 0..2 {
            assert_eq!(limits.admit("a", ONE), Ok(()));
        }
        for _ in 0..10 {
            assert!(matches!(limits.admit("a", ONE), Err(OverLimit::Database(_))));
        }
        for _ in 0..2 {
            assert_eq!(limits.admit("b", ONE), Ok(()));
        }
        assert!(matches!(limits.admit("c", ONE), Err(OverLimit::Process(_))));
    }

    #[test]
    fn more_requests_than_a_limit_allows_at_once_go_all_the_same() {
        let many = NonZeroU32::new(5).unwrap();
        let mut limits = limits(1, 1);
        assert_eq!(limits.admit("a", many), Ok(()));
        assert!(limits.admit("b", many).is_err());
    }

    #[test]
    fn databases_that_went_quiet_are_forgotten() {
        // At this rate a second is over after a nanosecond, as far as the limiter is concerned.
        let mut limits = limits(0, 1_000_000_000);
        for number in 0..10 * SWEEP_AT {
            assert_eq!(limits.admit(&number.to_string(), ONE), Ok(()));
        }
        let remembered = limits.database.unwrap().limiter.len();
        assert!(remembered <= SWEEP_AT, "{remembered} databases");
    }
}
