//! What the databases would cost in a month.

use std::fs;
use std::path::Path;

use walrust_actors::{DatabaseSettings, Settings};
use walrust_engine::{ChangeRate, Cost, Provider, ReplicationSettings, Usage};

use super::Problems;
use super::measurement::Measured;

/// Sizes of which the cost is shown beside that of the databases, in bytes.
const EXAMPLES: [(&str, f64); 2] = [("1 GB", 1e9), ("10 GB", 10e9)];

/// The cost of all databases, as far as it can be known before.
#[derive(Debug)]
pub(super) struct Estimate {
    /// Whose prices; `None` if nobody's are known.
    pub(super) provider: Option<Provider>,
    pub(super) databases: Vec<EstimatedDatabase>,
    /// Databases of round sizes, with the settings that hold for all and the assumed changes.
    pub(super) examples: Vec<(&'static str, Usage)>,
    /// What was assumed of databases that were not measured.
    pub(super) assumed: ChangeRate,
}

/// What one database needs.
#[derive(Debug)]
pub(super) struct EstimatedDatabase {
    pub(super) name: String,
    /// Bytes of the database file; 0 if there is none.
    pub(super) size: u64,
    /// Bytes of a snapshot in storage: as measured, else those of the file.
    pub(super) snapshot_bytes: f64,
    pub(super) rate: ChangeRate,
    pub(super) is_measured: bool,
    /// `None` for one that cannot be replicated at the moment: it needs nothing.
    pub(super) usage: Option<Usage>,
}

impl Estimate {
    pub(super) fn new(
        settings: &Settings,
        problems: &Problems,
        any: &DatabaseSettings,
        measured: &Measured,
        assumed: ChangeRate,
        provider: Option<Provider>,
    ) -> Self {
        let estimate = |database: &DatabaseSettings| {
            let size = file_size(&database.path);
            let found = measured.get(&database.name);
            #[allow(clippy::cast_precision_loss, reason = "an estimate")]
            let snapshot_bytes = found.map_or(size as f64, |it| it.snapshot_bytes);
            let rate = found.map_or(assumed, |it| it.rate);
            let usage = (!problems.contains_key(&database.name))
                .then(|| Usage::estimate(&rate, snapshot_bytes, &replication(database)));
            let (name, is_measured) = (database.name.clone(), found.is_some());
            EstimatedDatabase { name, size, snapshot_bytes, rate, is_measured, usage }
        };
        let databases: Vec<_> = settings.databases.iter().map(estimate).collect();
        let examples = EXAMPLES
            .iter()
            .map(|(name, bytes)| (*name, Usage::estimate(&assumed, *bytes, &replication(any))));
        Self { provider, databases, examples: examples.collect(), assumed }
    }

    /// What all databases that can be replicated need together.
    pub(super) fn total(&self) -> Usage {
        self.databases.iter().filter_map(|database| database.usage).sum()
    }

    /// The providers whose prices are shown: the one, or all if it is not known.
    pub(super) fn providers(&self) -> Vec<Provider> {
        self.provider.map_or_else(|| Provider::ALL.to_vec(), |provider| vec![provider])
    }
}

/// The cost of a month with the prices of a provider.
pub(super) fn cost(usage: &Usage, provider: Provider) -> Cost {
    usage.cost(&provider.prices())
}

fn replication(database: &DatabaseSettings) -> ReplicationSettings {
    ReplicationSettings {
        sync_interval: database.sync_interval,
        snapshot: database.snapshot,
        compact_after_snapshot: database.compaction.after_snapshot,
        compact_interval: database.compaction.interval,
        retention: database.compaction.policy,
    }
}

/// Bytes of a database; what cannot be read counts nothing, and is told elsewhere.
fn file_size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
