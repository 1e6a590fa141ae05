//! What replicating a database needs of a store in a month, and what that costs.
//!
//! A model, not a measurement: commits are spread evenly, a month is a twelfth of 365 days, and what is
//! stored is what there is after a year, when the retention has reached its last tier. Where the truth
//! depends on more than is known, the larger number counts: pages that several commits change are
//! counted for each, up to the whole database. Transfer is not counted.

use std::time::Duration;

use crate::bucket::Tier;
use crate::prices::Prices;
use crate::retention_policy::RetentionPolicy;
use crate::snapshot_schedule::SnapshotSettings;

const HOURS_OF_YEAR: f64 = 365.0 * 24.0;
const MONTHS: f64 = 12.0;
const GB: f64 = 1e9;
/// The daemon writes the manifest of a database at most once a minute.
const MANIFESTS_PER_HOUR: f64 = 60.0;
/// From this size on files are uploaded in parts of that size.
const MULTIPART: f64 = 32.0 * 1024.0 * 1024.0;
const PART: f64 = 16.0 * 1024.0 * 1024.0;

/// How a database changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChangeRate {
    /// Commits in an hour.
    pub commits_per_hour: f64,
    /// Bytes that one commit adds to a stored file, after compression.
    pub bytes_per_commit: f64,
}

/// How a database is replicated, as far as it matters for the cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationSettings {
    /// The least time between two uploads.
    pub sync_interval: Duration,
    /// When a snapshot is due.
    pub snapshot: SnapshotSettings,
    /// Whether the history is compacted after each snapshot.
    pub compact_after_snapshot: bool,
    /// How often it is compacted; zero: never for this reason.
    pub compact_interval: Duration,
    /// What stays.
    pub retention: RetentionPolicy,
}

/// What a database needs of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Uploads in a month, with the parts of large files.
    pub puts: f64,
    /// Listings in a month.
    pub lists: f64,
    /// Downloads in a month.
    pub gets: f64,
    /// Bytes uploaded in a month.
    pub uploaded_bytes: f64,
    /// Snapshots that are stored after a year.
    pub snapshots: f64,
    /// Bytes that are stored after a year.
    pub stored_bytes: f64,
    /// Bytes by which that grows in a month, for ever.
    pub growth_bytes: f64,
}

/// The cost of a month in US dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// What is stored.
    pub storage: f64,
    /// Uploads, listings and downloads.
    pub requests: f64,
}

impl Cost {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.storage + self.requests
    }
}

impl Usage {
    /// Estimates what a database needs that changes at `rate` and of which a snapshot has
    /// `snapshot_bytes`.
    #[must_use]
    pub fn estimate(
        rate: &ChangeRate,
        snapshot_bytes: f64,
        settings: &ReplicationSettings,
    ) -> Self {
        let pace = Pace::new(rate, snapshot_bytes, settings);
        let month = HOURS_OF_YEAR / MONTHS;
        let bytes_per_hour = pace.uploads * pace.bytes_per_upload;
        let (snapshots, stored_bytes) = if pace.compactions > 0.0 {
            pace.kept(snapshot_bytes, &settings.retention)
        } else {
            let snapshots = 1.0 + pace.snapshots * HOURS_OF_YEAR;
            (snapshots, snapshots * snapshot_bytes + bytes_per_hour * HOURS_OF_YEAR)
        };
        let uploaded_per_hour = bytes_per_hour + pace.snapshots * snapshot_bytes;
        // A compaction looks at the history, reads each incremental once, stores what it made of
        // those between two snapshots, and reads that again; the index changes twice.
        let (merges, merged) = match pace.compactions > 0.0 {
            true => (pace.snapshots, pace.uploads),
            false => (0.0, 0.0),
        };
        let manifests = pace.manifests + 2.0 * pace.compactions;
        let puts = pace.uploads * requests_of(pace.bytes_per_upload)
            + pace.snapshots * requests_of(snapshot_bytes)
            + merges
            + manifests;
        Self {
            puts: puts * month,
            lists: pace.compactions * month,
            gets: (manifests + pace.compactions + merged + merges) * month,
            uploaded_bytes: uploaded_per_hour * month,
            snapshots,
            stored_bytes,
            growth_bytes: if pace.compactions > 0.0 { 0.0 } else { uploaded_per_hour * month },
        }
    }

    /// What that costs.
    #[must_use]
    pub fn cost(&self, prices: &Prices) -> Cost {
        let requests = self.puts * prices.put_per_1000
            + self.lists * prices.list_per_1000
            + self.gets * prices.get_per_1000;
        Cost {
            storage: self.stored_bytes / GB * prices.storage_gb_month,
            requests: requests / 1000.0,
        }
    }
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, it| Self {
            puts: sum.puts + it.puts,
            lists: sum.lists + it.lists,
            gets: sum.gets + it.gets,
            uploaded_bytes: sum.uploaded_bytes + it.uploaded_bytes,
            snapshots: sum.snapshots + it.snapshots,
            stored_bytes: sum.stored_bytes + it.stored_bytes,
            growth_bytes: sum.growth_bytes + it.growth_bytes,
        })
    }
}

/// The most snapshots that a policy keeps, of a database that has enough of them: the newest of each
/// bucket, and the newest of all is that of every tier.
#[must_use]
pub fn most_snapshots(policy: &RetentionPolicy) -> u32 {
    let tiers = Tier::ALL.map(|tier| policy.buckets(tier));
    let shared = tiers.iter().filter(|buckets| **buckets > 0).count().saturating_sub(1);
    let shared = u32::try_from(shared).expect("there are four tiers");
    (tiers.into_iter().fold(0, u32::saturating_add) - shared).max(2)
}

/// What happens in an hour.
struct Pace {
    uploads: f64,
    bytes_per_upload: f64,
    snapshots: f64,
    manifests: f64,
    compactions: f64,
}

impl Pace {
    fn new(rate: &ChangeRate, snapshot_bytes: f64, settings: &ReplicationSettings) -> Self {
        let commits = rate.commits_per_hour.max(0.0);
        let uploads = commits.min(times_an_hour(settings.sync_interval).unwrap_or(f64::INFINITY));
        let bytes_per_upload = match uploads > 0.0 {
            // No file is larger than one with all pages.
            true => (commits / uploads * rate.bytes_per_commit).min(snapshot_bytes),
            false => 0.0,
        };
        let snapshots = snapshots_an_hour(commits, &settings.snapshot);
        let by_interval = times_an_hour(settings.compact_interval).unwrap_or(0.0);
        // A history that does not change is not looked at.
        let after_snapshots = if settings.compact_after_snapshot { snapshots } else { 0.0 };
        Self {
            uploads,
            bytes_per_upload,
            snapshots,
            manifests: (uploads + snapshots).min(MANIFESTS_PER_HOUR),
            compactions: by_interval.min(uploads) + after_snapshots,
        }
    }

    /// Snapshots and bytes that are left after a year.
    fn kept(&self, snapshot_bytes: f64, policy: &RetentionPolicy) -> (f64, f64) {
        let taken = 1.0 + self.snapshots * HOURS_OF_YEAR;
        let (mut snapshots, mut incrementals) = (0.0, 0.0);
        for tier in Tier::ALL {
            let hours = hours_of(tier);
            let buckets = f64::from(policy.buckets(tier)).min((HOURS_OF_YEAR / hours).ceil());
            snapshots += buckets.min((buckets * hours * self.snapshots).ceil());
            let bytes = hours * self.uploads * self.bytes_per_upload;
            incrementals += match tier {
                // Every file of the finest window stays.
                Tier::Hourly => buckets * bytes,
                // What leads from one kept snapshot to the next is merged.
                _ => buckets * bytes.min(snapshot_bytes),
            };
        }
        let most = f64::from(most_snapshots(policy)).min(taken);
        let snapshots = snapshots.clamp(2.0_f64.min(most), most);
        (snapshots, snapshots * snapshot_bytes + incrementals)
    }
}

/// Each snapshot begins the count of every trigger anew: the fastest of them decides.
fn snapshots_an_hour(commits: f64, settings: &SnapshotSettings) -> f64 {
    if commits <= 0.0 {
        return 0.0;
    }
    let between_commits = 1.0 / commits;
    let by_interval = times_an_hour(settings.interval).unwrap_or(0.0).min(commits);
    let by_changes = match settings.max_changes {
        0 => 0.0,
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        changes => commits / changes as f64,
    };
    let by_max_interval = match hours(settings.max_interval) {
        0.0 => 0.0,
        // It counts from the first commit after the last snapshot.
        interval => 1.0 / (interval + between_commits),
    };
    let idle = hours(settings.on_idle);
    let by_idle = if idle > 0.0 && idle < between_commits { commits } else { 0.0 };
    by_interval.max(by_changes).max(by_max_interval).max(by_idle)
}

/// Requests that upload a file.
fn requests_of(bytes: f64) -> f64 {
    // One begins and one completes what is uploaded in parts.
    if bytes < MULTIPART { 1.0 } else { (bytes / PART).ceil() + 2.0 }
}

fn hours_of(tier: Tier) -> f64 {
    match tier {
        Tier::Hourly => 1.0,
        Tier::Daily => 24.0,
        Tier::Weekly => 7.0 * 24.0,
        Tier::Monthly => HOURS_OF_YEAR / MONTHS,
    }
}

fn hours(interval: Duration) -> f64 {
    interval.as_secs_f64() / 3600.0
}

/// How often an interval fits into an hour; `None` for none.
fn times_an_hour(interval: Duration) -> Option<f64> {
    (!interval.is_zero()).then(|| 1.0 / hours(interval))
}

#[cfg(test)]
mod tests;
