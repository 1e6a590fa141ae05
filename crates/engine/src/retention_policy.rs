//! What of a history stays, as its owner wants it.

use crate::bucket::{Bucket, Tier};

/// Milliseconds of an hour.
pub(crate) const HOUR_MS: i64 = 3_600_000;

/// How many buckets of each tier have a snapshot that stays, the current one included. 0: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Hours; also the length of the finest window, counted from the time of the plan.
    pub hourly: u32,
    /// Days.
    pub daily: u32,
    /// ISO weeks.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
}

impl Default for RetentionPolicy {
    fn default() -> Self {
        Self { hourly: 24, daily: 7, weekly: 12, monthly: 12 }
    }
}

impl RetentionPolicy {
    /// Buckets that a tier covers.
    #[must_use]
    pub fn buckets(&self, tier: Tier) -> u32 {
        match tier {
            Tier::Hourly => self.hourly,
            Tier::Daily => self.daily,
            Tier::Weekly => self.weekly,
            Tier::Monthly => self.monthly,
        }
    }

    /// When the finest window begins.
    pub(crate) fn window_start(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(i64::from(self.hourly) * HOUR_MS)
    }

    /// When a state leaves the finest window.
    pub(crate) fn window_end(&self, timestamp_ms: i64) -> i64 {
        timestamp_ms.saturating_add(i64::from(self.hourly) * HOUR_MS)
    }

    /// When a snapshot leaves the buckets of each tier.
    pub(crate) fn tier_ends(&self, timestamp_ms: i64) -> impl Iterator<Item = i64> {
        Tier::ALL.into_iter().map(move |tier| {
            let Bucket { number, .. } = Bucket::of(tier, timestamp_ms);
            Bucket { tier, number: number + i64::from(self.buckets(tier)) }.start_ms()
        })
    }
}
