//! Flags that are keys of the configuration as well: those of `watch`, which other commands take too.

use std::path::PathBuf;

use clap::Args;

use super::StorageArgs;
use super::control::SocketArgs;
use crate::config::{Interval, RetentionSection, SyncSection, parse_interval};
use crate::settings::Typed;
use crate::storage_source::StorageSource;

/// Flags that are keys of the configuration as well.
#[derive(Clone, Debug, Args)]
pub(super) struct KeyArgs {
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    sync: SyncArgs,
    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
    /// Log a failing upload as an error after this many attempts; it is retried all the same
    /// [default: 5]
    #[arg(long, value_name = "N", env = "WALRUST_MAX_RETRIES")]
    max_retries: Option<u32>,
}

impl KeyArgs {
    /// The place of the files, and what was typed of everything else.
    pub(super) fn split(self, databases: Vec<PathBuf>) -> (StorageSource, Typed) {
        let (sync, retention) = (self.sync.section(), self.retention.section());
        let max_retries = self.max_retries;
        (self.storage.into(), Typed { databases, sync, retention, max_retries })
    }
}

/// Flags that are keys of `[sync]` as well.
#[derive(Clone, Debug, Default, Args)]
struct SyncArgs {
    /// Minimum time between two uploads of one database [default: 1s]
    #[arg(long, value_name = "DURATION", env = "WALRUST_WAL_SYNC_INTERVAL", value_parser = parse_interval)]
    wal_sync_interval: Option<Interval>,
    /// Checkpoint a WAL this long after its previous checkpoint; 0 disables [default: 60s]
    #[arg(long, value_name = "DURATION", env = "WALRUST_CHECKPOINT_INTERVAL", value_parser = parse_interval)]
    checkpoint_interval: Option<Interval>,
    /// Checkpoint a WAL that has this many pages; 0 disables [default: 1000]
    #[arg(long, value_name = "PAGES", env = "WALRUST_MIN_CHECKPOINT_PAGES")]
    min_checkpoint_pages: Option<u32>,
    /// Checkpoint a WAL that has this many pages even under writes that never pause, by making the
    /// writers wait for some milliseconds; 0 disables [default: 121359]
    #[arg(long, value_name = "PAGES", env = "WALRUST_WAL_TRUNCATE_THRESHOLD")]
    wal_truncate_threshold: Option<u32>,
    /// Take a snapshot this long after the previous one, if the database changed; 0 disables
    /// [default: 1h]
    #[arg(long, value_name = "DURATION", env = "WALRUST_SNAPSHOT_INTERVAL", value_parser = parse_interval)]
    snapshot_interval: Option<Interval>,
    /// Take a snapshot after this many commits; 0 disables [default: 0]
    #[arg(long, value_name = "COMMITS", env = "WALRUST_MAX_CHANGES")]
    max_changes: Option<u64>,
    /// Take a snapshot at most this long after the first commit since the last snapshot; 0 disables
    /// [default: 0]
    #[arg(long, value_name = "DURATION", env = "WALRUST_MAX_INTERVAL", value_parser = parse_interval)]
    max_interval: Option<Interval>,
    /// Take a snapshot when a database that changed has been idle for this long; 0 disables
    /// [default: 0]
    #[arg(long, value_name = "DURATION", env = "WALRUST_ON_IDLE", value_parser = parse_interval)]
    on_idle: Option<Interval>,
    /// Take a snapshot at startup of each database that changed since its last one [default: false]
    #[arg(long, value_name = "BOOL", env = "WALRUST_ON_STARTUP")]
    on_startup: Option<bool>,
    /// Apply the retention after each snapshot: merge and delete old files [default: false]
    #[arg(long, value_name = "BOOL", env = "WALRUST_COMPACT_AFTER_SNAPSHOT", num_args = 0..=1, default_missing_value = "true")]
    compact_after_snapshot: Option<bool>,
    /// Apply the retention this often: merge and delete old files; 0 disables [default: 0]
    #[arg(long, value_name = "DURATION", env = "WALRUST_COMPACT_INTERVAL", value_parser = parse_interval)]
    compact_interval: Option<Interval>,
    /// Verify this often that what is in storage can be restored; 0 disables [default: 0]
    #[arg(long, value_name = "DURATION", env = "WALRUST_VALIDATION_INTERVAL", value_parser = parse_interval)]
    validation_interval: Option<Interval>,
}

/// Flags that are keys of `[retention]` as well.
#[derive(Clone, Debug, Default, Args)]
struct RetentionArgs {
    /// Keep the newest snapshot of each of the last N hours, and every state in them [default: 24]
    #[arg(long, value_name = "HOURS", env = "WALRUST_RETAIN_HOURLY")]
    retain_hourly: Option<u32>,
    /// Keep the newest snapshot of each of the last N days [default: 7]
    #[arg(long, value_name = "DAYS", env = "WALRUST_RETAIN_DAILY")]
    retain_daily: Option<u32>,
    /// Keep the newest snapshot of each of the last N ISO weeks [default: 12]
    #[arg(long, value_name = "WEEKS", env = "WALRUST_RETAIN_WEEKLY")]
    retain_weekly: Option<u32>,
    /// Keep the newest snapshot of each of the last N months [default: 12]
    #[arg(long, value_name = "MONTHS", env = "WALRUST_RETAIN_MONTHLY")]
    retain_monthly: Option<u32>,
}

impl RetentionArgs {
    fn section(&self) -> RetentionSection {
        RetentionSection {
            hourly: self.retain_hourly,
            daily: self.retain_daily,
            weekly: self.retain_weekly,
            monthly: self.retain_monthly,
        }
    }
}

impl SyncArgs {
    fn section(&self) -> SyncSection {
        SyncSection {
            wal_sync_interval: self.wal_sync_interval,
            checkpoint_interval: self.checkpoint_interval,
            min_checkpoint_page_count: self.min_checkpoint_pages,
            wal_truncate_threshold_pages: self.wal_truncate_threshold,
            snapshot_interval: self.snapshot_interval,
            max_changes: self.max_changes,
            max_interval: self.max_interval,
            on_idle: self.on_idle,
            on_startup: self.on_startup,
            compact_after_snapshot: self.compact_after_snapshot,
            compact_interval: self.compact_interval,
            validation_interval: self.validation_interval,
            ..SyncSection::default()
        }
    }
}
