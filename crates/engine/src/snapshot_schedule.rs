//! When a database is due for a snapshot.
//!
//! Invariants: a database that did not change since its last snapshot is never due; one whose
//! snapshot failed is due again, later and later. The interval of each database is stretched by its
//! jitter, and what is overdue when the daemon starts is spread, so that hundreds of databases do
//! not snapshot in the same second.

use std::fmt;
use std::time::{Duration, Instant};

/// Thresholds of one database; zero means never for this reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// A database that changed gets a snapshot this long after its last one.
    pub interval: Duration,
    /// After this many TXIDs.
    pub max_changes: u64,
    /// At the latest this long after the first change after the last snapshot.
    pub max_interval: Duration,
    /// When a database that changed has been idle for this long.
    pub on_idle: Duration,
    /// When the daemon starts, if the database changed since its last snapshot.
    pub on_startup: bool,
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(3600),
            max_changes: 0,
            max_interval: Duration::ZERO,
            on_idle: Duration::ZERO,
            on_startup: false,
        }
    }
}

/// Why a snapshot is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotReason {
    /// The last one is old.
    Interval,
    /// There are many changes.
    Changes,
    /// The first change is old.
    MaxInterval,
    /// The database has come to rest.
    Idle,
    /// The daemon has started.
    Startup,
}

impl fmt::Display for SnapshotReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interval => "the last snapshot is old",
            Self::Changes => "there are many changes",
            Self::MaxInterval => "the first change is old",
            Self::Idle => "the database has come to rest",
            Self::Startup => "the daemon has started",
        })
    }
}

/// The newest snapshot of a database, as the bucket has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSnapshot {
    /// Its TXID.
    pub txid: u64,
    /// How old its state is.
    pub age: Duration,
}

/// The pause after a failed snapshot; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_secs(10);
const MAX_PAUSE: Duration = Duration::from_secs(600);
/// Over which time snapshots that are overdue at the start are spread at most.
const START_SPREAD: Duration = Duration::from_secs(600);
/// By which part the interval of a database is stretched at most.
const STRETCH: f64 = 0.1;

/// The schedule of one database.
#[derive(Clone, Debug)]
pub struct SnapshotSchedule {
    settings: SnapshotSettings,
    /// Uniform in `0.0..1.0`, the same for as long as the database is replicated.
    jitter: f64,
    /// When the last snapshot was taken; `None` if long ago.
    taken: Option<Instant>,
    snapshot_txid: u64,
    txid: u64,
    first_change: Option<Instant>,
    last_change: Option<Instant>,
    /// The start counts as a reason.
    starts: bool,
    /// Nothing is due before.
    not_before: Option<Instant>,
    failures: u32,
}

impl SnapshotSchedule {
    /// The schedule of a database that is replicated from `now` on, at `txid`.
    #[must_use]
    pub fn new(
        settings: SnapshotSettings,
        last: Option<LastSnapshot>,
        txid: u64,
        now: Instant,
        jitter: f64,
    ) -> Self {
        let mut schedule = Self {
            settings,
            jitter: jitter.clamp(0.0, 1.0),
            taken: last.and_then(|last| now.checked_sub(last.age)),
            snapshot_txid: last.map_or(0, |last| last.txid),
            txid,
            first_change: None,
            last_change: None,
            starts: settings.on_startup,
            not_before: None,
            failures: 0,
        };
        if schedule.has_changed() {
            // When it did is not known: it is as if it had now.
            (schedule.first_change, schedule.last_change) = (Some(now), Some(now));
            if !schedule.starts && schedule.due(now) == Some(SnapshotReason::Interval) {
                let spread = (settings.interval / 10).min(START_SPREAD).mul_f64(schedule.jitter);
                schedule.not_before = Some(now + spread);
            }
        }
        schedule
    }

    /// Other settings count from now on.
    pub fn set(&mut self, settings: SnapshotSettings) {
        self.settings = settings;
    }

    /// Storage has the database up to `txid`.
    pub fn confirmed(&mut self, txid: u64, now: Instant) {
        if txid > self.txid {
            self.txid = txid;
            self.last_change = Some(now);
            self.first_change.get_or_insert(now);
        }
    }

    /// A snapshot of `txid` is in storage.
    pub fn taken(&mut self, txid: u64, now: Instant) {
        self.snapshot_txid = self.snapshot_txid.max(txid);
        self.taken = Some(now);
        self.first_change = self.has_changed().then_some(now);
        (self.starts, self.failures, self.not_before) = (false, 0, None);
    }

    /// A snapshot that was due failed.
    pub fn failed(&mut self, now: Instant) {
        let pause = MIN_PAUSE.saturating_mul(1 << self.failures.min(10)).min(MAX_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause);
    }

    /// Why a snapshot is due at `now`, if one is.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<SnapshotReason> {
        if !self.has_changed() || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        if self.starts {
            return Some(SnapshotReason::Startup);
        }
        let changes = self.txid - self.snapshot_txid;
        if self.settings.max_changes > 0 && changes >= self.settings.max_changes {
            return Some(SnapshotReason::Changes);
        }
        let reached = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if reached(self.max_interval_at()) {
            Some(SnapshotReason::MaxInterval)
        } else if reached(self.idle_at()) {
            Some(SnapshotReason::Idle)
        } else if reached(self.interval_at(now)) {
            Some(SnapshotReason::Interval)
        } else {
            None
        }
    }

    /// When a snapshot may become due although nothing else happens.
    #[must_use]
    pub fn next_look(&self, now: Instant) -> Option<Instant> {
        if !self.has_changed() {
            return None;
        }
        let times = [self.max_interval_at(), self.idle_at(), self.interval_at(now)];
        // Nothing is due before a pause ends, and anything may be then.
        self.not_before.filter(|at| *at > now).or_else(|| times.into_iter().flatten().min())
    }

    fn has_changed(&self) -> bool {
        self.txid > self.snapshot_txid
    }

    fn interval_at(&self, now: Instant) -> Option<Instant> {
        let interval = self.settings.interval;
        if interval.is_zero() {
            return None;
        }
        let stretched = interval + interval.mul_f64(STRETCH * self.jitter);
        Some(self.taken.map_or(now, |taken| taken + stretched))
    }

    fn max_interval_at(&self) -> Option<Instant> {
        let interval = self.settings.max_interval;
        self.first_change.filter(|_| !interval.is_zero()).map(|first| first + interval)
    }

    fn idle_at(&self) -> Option<Instant> {
        let idle = self.settings.on_idle;
        self.last_change.filter(|_| !idle.is_zero()).map(|last| last + idle)
    }
}

#[cfg(test)]
mod tests;
