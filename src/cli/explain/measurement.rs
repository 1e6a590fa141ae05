//! How databases that are in storage already have changed.

use std::collections::HashMap;

use futures_util::{StreamExt, TryStreamExt};
use walrust_actors::Settings;
use walrust_engine::{ChangeRate, Layout};
use walrust_history::History;
use walrust_storage::ObjectStore;

use crate::Error;

/// Databases that are read at once.
const AT_ONCE: usize = 16;
/// A history that covers less time says nothing of an hour.
const LEAST_HOURS: f64 = 1.0 / 60.0;
const MS_PER_HOUR: f64 = 3_600_000.0;

/// What was measured, by the names of the databases.
pub(super) type Measured = HashMap<String, Measurement>;

/// What the files of a database tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measurement {
    /// Bytes of the newest snapshot in storage.
    pub(super) snapshot_bytes: f64,
    pub(super) rate: ChangeRate,
}

/// Measures the databases of which storage has a history of a minute or more.
pub(super) async fn measure(
    store: &dyn ObjectStore,
    settings: &Settings,
) -> Result<Measured, Error> {
    let reads = settings.databases.iter().map(|database| async move {
        let history = History::read(store, &database.name).await?;
        Ok::<_, Error>(measured(&history).map(|found| (database.name.clone(), found)))
    });
    let found: Vec<_> = futures_util::stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// Rate and sizes from what the manifest knows; its newest files are enough.
#[allow(clippy::cast_precision_loss, reason = "an estimate")]
fn measured(history: &History) -> Option<Measurement> {
    if history.tree.layout != Layout::Walrust {
        return None;
    }
    let snapshots = history.tree.files.iter().filter(|file| file.name.is_snapshot());
    let snapshot_bytes = snapshots.max_by_key(|file| file.name.max)?.size as f64;
    // What was merged or has become superfluous is in storage for a while still, and not counted twice.
    let retired = history.manifest.as_ref()?.retired_names();
    let (mut commits, mut bytes) = (0_u64, 0_u64);
    let mut states = Vec::new();
    for (name, entry) in history.entries() {
        let Ok(created) = entry.created.parse::<jiff::Timestamp>() else { continue };
        states.push((created.as_millisecond(), name.max.get()));
        if !name.is_snapshot() && !retired.contains(&name) {
            commits += name.max.get() - name.min.get() + 1;
            bytes += entry.size;
        }
    }
    let ((first, first_txid), (last, last_txid)) = (*states.iter().min()?, *states.iter().max()?);
    let hours = last.saturating_sub(first) as f64 / MS_PER_HOUR;
    if hours < LEAST_HOURS {
        return None;
    }
    let rate = ChangeRate {
        // Not all files between two states are there any more; their TXIDs tell all the same.
        commits_per_hour: last_txid.saturating_sub(first_txid) as f64 / hours,
        bytes_per_commit: bytes as f64 / commits.max(1) as f64,
    };
    Some(Measurement { snapshot_bytes, rate })
}
