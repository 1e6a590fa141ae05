//! How the incrementals of a history lead from one state to the next.
//!
//! Invariant: a file continues a state only if it begins exactly after it, as in a restore of our
//! own layout.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use walrust_ltx::Txid;

use crate::retention_planner::HistoryFile;

/// The incrementals of a history, by the state that they continue.
#[derive(Debug)]
pub(crate) struct Links<'a> {
    by_min: BTreeMap<Txid, Vec<&'a HistoryFile>>,
}

impl<'a> Links<'a> {
    pub(crate) fn new(files: &'a [HistoryFile]) -> Self {
        let mut by_min: BTreeMap<Txid, Vec<&HistoryFile>> = BTreeMap::new();
        for file in files.iter().filter(|file| !file.name.is_snapshot()) {
            by_min.entry(file.name.min).or_default().push(file);
        }
        Self { by_min }
    }

    fn after(&self, txid: Txid) -> impl Iterator<Item = &'a HistoryFile> + '_ {
        self.by_min.get(&txid.next()).into_iter().flatten().copied()
    }

    /// The states that files lead to from some states, with these.
    pub(crate) fn reachable(&self, from: impl IntoIterator<Item = Txid>) -> BTreeSet<Txid> {
        let mut seen: BTreeSet<Txid> = from.into_iter().collect();
        let mut open: Vec<Txid> = seen.iter().copied().collect();
        while let Some(txid) = open.pop() {
            for file in self.after(txid) {
                if seen.insert(file.name.max) {
                    open.push(file.name.max);
                }
            }
        }
        seen
    }

    /// The fewest files from one state to another. If none lead there, those to the last state
    /// before it that any lead to.
    pub(crate) fn path_towards(&self, from: Txid, to: Txid) -> Vec<&'a HistoryFile> {
        let mut arrived_by: HashMap<Txid, (Txid, &HistoryFile)> = HashMap::new();
        let (mut queue, mut last) = (VecDeque::from([from]), from);
        while let Some(txid) = queue.pop_front() {
            last = last.max(txid);
            if last == to {
                break;
            }
            for file in self.after(txid).filter(|file| file.name.max <= to) {
                arrived_by.entry(file.name.max).or_insert_with(|| {
                    queue.push_back(file.name.max);
                    (txid, file)
                });
            }
        }
        let mut path = Vec::new();
        while let Some((before, file)) = arrived_by.get(&last) {
            path.push(*file);
            last = *before;
        }
        path.reverse();
        path
    }
}
