//! Which states of a history can be restored, as ranges.

use futures_util::{StreamExt, TryStreamExt};
use walrust_engine::restorable_txids;
use walrust_ltx::Txid;
use walrust_storage::ObjectStore;

use crate::file_description::HEADERS;
use crate::point_in_time::StateTimes;
use crate::{History, HistoryError, State};

/// States without any that is hidden between them: each time from the first to the last has an
/// exact answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestorableRange {
    /// The first state.
    pub first: State,
    /// The last state.
    pub last: State,
    /// Number of states.
    pub states: usize,
}

impl History {
    /// The states that can be restored, in ascending order. Files that were merged, files that are
    /// gone, and states that were left behind separate the ranges.
    ///
    /// # Errors
    /// If storage fails.
    pub async fn restorable_ranges(
        &self,
        store: &dyn ObjectStore,
    ) -> Result<Vec<RestorableRange>, HistoryError> {
        let times = &StateTimes::new(store, self);
        let states: Vec<Txid> = restorable_txids(&self.tree).into_iter().collect();
        let pairs = states.windows(2).map(|pair| {
            let (before, after) = (pair[0], pair[1]);
            async move { times.hides_states(before, after, i64::MAX).await }
        });
        let pairs = futures_util::stream::iter(pairs).buffered(HEADERS);
        let mut separated: Vec<bool> = pairs.try_collect().await?;
        for time in times.abandoned().await?.into_iter().filter_map(|(state, _)| state.timestamp_ms)
        {
            let Some(before) = times.count_by(&states, time).await?.checked_sub(1) else {
                continue;
            };
            if let Some(pair) = separated.get_mut(before)
                && times.of(states[before]).await? < time
            {
                *pair = true;
            }
        }
        let mut ranges = Vec::new();
        let mut start = 0;
        for end in 0..states.len() {
            if separated.get(end).copied().unwrap_or(true) {
                ranges.push(RestorableRange {
                    first: times.state(states[start]).await?,
                    last: times.state(states[end]).await?,
                    states: end - start + 1,
                });
                start = end + 1;
            }
        }
        Ok(ranges)
    }
}
