//! The states of a history and their times.
//!
//! Invariant: the state that is found for a time is the last one of its history that was there by
//! then, or there is an error. A state has the timestamp of the files that end with it. Files that
//! were merged, and files that are gone, hide the states inside them; a time that falls among those
//! has no exact answer. One file of a daemon may hold several commits, but nothing between them was
//! ever a state of the history. A state that was left behind when another branch went on was there for
//! a while as well, and is no answer any more.

use std::collections::BTreeMap;
use std::fmt;

use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use walrust_engine::manifest::FileEntry;
use walrust_engine::{Layout, RestoreTarget, StoredFile, plan_restore, restorable_txids};
use walrust_ltx::{FileName, Txid};
use walrust_storage::ObjectStore;

use crate::file_description::{HEADERS, read_header, rfc3339};
use crate::{History, HistoryError, MERGED_SINCE, patiently};

/// A state that can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Its TXID.
    pub txid: Txid,
    /// When it was committed, milliseconds since the Unix epoch, if that is known.
    pub timestamp_ms: Option<i64>,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TXID {} ({})", self.txid, self.txid.get())?;
        match self.timestamp_ms {
            Some(time) => write!(f, " of {}", rfc3339(time)),
            None => Ok(()),
        }
    }
}

/// The states on either side of a target that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbours {
    /// The nearest before it.
    pub before: Option<State>,
    /// The nearest after it.
    pub after: Option<State>,
}

impl fmt::Display for Neighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.before, self.after) {
            (Some(before), Some(after)) => {
                write!(f, "the nearest that can: {before} before it, {after} after it")
            }
            (Some(before), None) => write!(f, "the newest that can: {before}"),
            (None, Some(after)) => write!(f, "the oldest that can: {after}"),
            (None, None) => f.write_str("nothing can be restored"),
        }
    }
}

/// Looks up the times of states: in the manifest, else in the headers of files. Few are asked for,
/// so a history of any length costs few requests.
pub(crate) struct StateTimes<'a> {
    store: &'a dyn ObjectStore,
    history: &'a History,
    entries: BTreeMap<FileName, &'a FileEntry>,
    /// The files by their last TXID.
    by_end: BTreeMap<Txid, Vec<&'a StoredFile>>,
}

impl<'a> StateTimes<'a> {
    pub(crate) fn new(store: &'a dyn ObjectStore, history: &'a History) -> Self {
        let mut by_end: BTreeMap<Txid, Vec<&StoredFile>> = BTreeMap::new();
        for file in &history.tree.files {
            by_end.entry(file.name.max).or_default().push(file);
        }
        Self { store, history, entries: history.entries(), by_end }
    }

    /// When a state was committed.
    pub(crate) async fn of(&self, txid: Txid) -> Result<i64, HistoryError> {
        let files = self.ending_at(txid);
        let known = files.iter().filter_map(|file| self.entries.get(&file.name));
        let known = known.filter_map(|entry| milliseconds(&entry.created)).min();
        if let Some(time) = known {
            return Ok(time);
        }
        // The state is the same in all of them; the smallest is the one that was captured.
        let file = files.iter().min_by_key(|file| (file.level, file.size));
        let file = file.expect("a state is the end of a file");
        match read_header(self.store, file).await? {
            Some(header) => Ok(header.timestamp_ms),
            None => {
                let object = format!("{}/{}", self.store.url(), file.key);
                Err(HistoryError::NotLtx { object })
            }
        }
    }

    /// A state with its time; without, if the file that would tell is damaged.
    pub(crate) async fn state(&self, txid: Txid) -> Result<State, HistoryError> {
        let timestamp_ms = match self.of(txid).await {
            Ok(time) => Some(time),
            Err(HistoryError::NotLtx { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(State { txid, timestamp_ms })
    }

    async fn optional_state(&self, txid: Option<Txid>) -> Result<Option<State>, HistoryError> {
        match txid {
            Some(txid) => Ok(Some(self.state(txid).await?)),
            None => Ok(None),
        }
    }

    /// The error of a target between two states.
    pub(crate) async fn unavailable(
        &self,
        target: String,
        why: String,
        before: Option<Txid>,
        after: Option<Txid>,
    ) -> Result<HistoryError, HistoryError> {
        let (before, after) =
            (self.optional_state(before).await?, self.optional_state(after).await?);
        let neighbours = Box::new(Neighbours { before, after });
        let (name, url) = (self.history.name.clone(), self.store.url());
        Ok(HistoryError::Unavailable { name, url, target, why, neighbours })
    }

    /// The last state that was there at a time.
    ///
    /// The times of a history ascend, so the state is found by halving; where the clock of its host
    /// was set back, the result is one of the states that the time fits.
    pub(crate) async fn find(&self, time: Timestamp, now: Timestamp) -> Result<Txid, HistoryError> {
        let tree = &self.history.tree;
        let states: Vec<Txid> = restorable_txids(tree).into_iter().collect();
        let wanted = time.as_millisecond();
        let low = self.count_by(&states, wanted).await?;
        let before = low.checked_sub(1).map(|index| states[index]);
        let after = states.get(low).copied();
        if let Some(before) = before
            && self.of(before).await? == wanted
        {
            // The time of a state means that state, whatever is gone after it.
            return Ok(before);
        }
        let target = format!("{time:.3}");
        if let Some(since) = before
            && let Some(left) = self.abandoned_within(self.of(since).await?, wanted).await?
        {
            return Err(self.unavailable(target, left, before, after).await?);
        }
        let why = match (before, after) {
            (Some(before), Some(after)) if self.hides_states(before, after, wanted).await? => {
                ": the states between were merged or removed"
            }
            (Some(before), Some(_)) => return Ok(before),
            (Some(before), None) if time <= now => {
                self.refuse_lost_end(before, wanted)?;
                return Ok(before);
            }
            (Some(_), None) => ": it is in the future",
            (None, Some(_)) => ": the history begins later",
            (None, None) => "",
        };
        Err(self.unavailable(target, why.to_owned(), before, after).await?)
    }

    /// How many of some states, which ascend, were there at a time.
    pub(crate) async fn count_by(&self, states: &[Txid], time: i64) -> Result<usize, HistoryError> {
        let (mut low, mut high) = (0, states.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.of(states[middle]).await? <= time {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The states that the history has left behind, with their files. A file whose time cannot be
    /// read has none.
    pub(crate) async fn abandoned(&self) -> Result<Vec<(State, &'a StoredFile)>, HistoryError> {
        let states = self.history.abandoned.iter().map(|file| async move {
            let header = read_header(self.store, file).await?;
            let timestamp_ms = header.map(|header| header.timestamp_ms);
            Ok::<_, HistoryError>((State { txid: file.name.max, timestamp_ms }, file))
        });
        let states: Vec<_> = states.collect();
        futures_util::stream::iter(states).buffered(HEADERS).try_collect().await
    }

    /// Why a time has no answer, if a state that was left behind came between another one and it.
    async fn abandoned_within(
        &self,
        since: i64,
        time: i64,
    ) -> Result<Option<String>, HistoryError> {
        let within = |state: &State| state.timestamp_ms.is_none_or(|at| since < at && at <= time);
        let left = self.abandoned().await?;
        let left = left.into_iter().find(|(state, _)| within(state));
        Ok(left.map(|(state, file)| {
            format!(": {state} was there, of a branch that was left behind ({})", file.key)
        }))
    }

    /// Whether there may have been states between two neighbours by a time that is between theirs.
    pub(crate) async fn hides_states(
        &self,
        before: Txid,
        after: Txid,
        time: i64,
    ) -> Result<bool, HistoryError> {
        if before.next() == after {
            return Ok(false);
        }
        let files = self.ending_at(after).iter().filter(|file| !file.name.is_snapshot());
        for file in files.filter(|file| file.name.min <= before.next()) {
            if self.merged_since(file).await?.is_none_or(|since| time < since) {
                return Ok(false);
            }
        }
        // Only a snapshot ends there, or a file that was merged.
        Ok(true)
    }

    /// The time of the first state that was merged into a file; `None` if it was captured as it is.
    async fn merged_since(&self, file: &StoredFile) -> Result<Option<i64>, HistoryError> {
        if file.name.min == file.name.max {
            return Ok(None);
        }
        if self.history.tree.layout != Layout::Walrust {
            // Litestream merges into every level but the lowest, and does not tell since when.
            return Ok((file.level > 0).then_some(i64::MIN));
        }
        let since = match self.entries.get(&file.name) {
            Some(entry) => entry.merged_since.clone(),
            None => {
                let mut meta = patiently(|| self.store.head(&file.key)).await?;
                // A merged file is in the manifest before its sources go. Without a manifest it is
                // the metadata that tell, and every file has some unless storage keeps none.
                if self.history.manifest.is_none() && meta.metadata.is_empty() {
                    return Ok(Some(i64::MIN));
                }
                meta.metadata.remove(MERGED_SINCE)
            }
        };
        Ok(since.map(|since| milliseconds(&since).unwrap_or(i64::MIN)))
    }

    /// Behind the last state nothing must be missing that was there at the time.
    fn refuse_lost_end(&self, last: Txid, time: i64) -> Result<(), HistoryError> {
        let History { name, tree, manifest, .. } = self.history;
        if tree.files.iter().any(|file| file.name.max > last) {
            let gap = plan_restore(tree, RestoreTarget::Latest);
            let (name, url) = (name.clone(), self.store.url());
            gap.map_err(|source| HistoryError::Plan { name, url, source })?;
        }
        let Some(manifest) = manifest else { return Ok(()) };
        let later = |entry: &&FileEntry| milliseconds(&entry.created).is_some_and(|it| it > time);
        let later: Vec<FileName> =
            manifest.files.iter().filter(later).filter_map(FileEntry::file_name).collect();
        let mut missing = self.history.missing();
        missing.retain(|file| !later.contains(file));
        self.history.refuse_lost_tail(self.store, &missing, last)
    }

    fn ending_at(&self, txid: Txid) -> &[&'a StoredFile] {
        self.by_end.get(&txid).map_or(&[], Vec::as_slice)
    }
}

fn milliseconds(time: &str) -> Option<i64> {
    time.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}
