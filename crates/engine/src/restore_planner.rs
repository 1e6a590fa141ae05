//! Which files bring a database back: the newest snapshot at or before the target, then the
//! fewest files that continue it.
//!
//! Invariant: a plan covers every TXID from 1 to its head without a hole, or there is no plan. A
//! target that cannot be reached exactly is an error that names what can be reached on either side.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;

use walrust_ltx::Txid;

use crate::tree::{Layout, StoredFile, Tree};

/// The state that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreTarget {
    /// The newest state.
    Latest,
    /// The state after this transaction.
    Txid(Txid),
}

/// Why a file is part of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRole {
    /// The newest snapshot at or before the target.
    Base,
    /// It continues the files before it.
    Continues,
}

impl fmt::Display for FileRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "newest snapshot at or before the target",
            Self::Continues => "continues the file before it",
        })
    }
}

/// The files of a restore, in the order in which they are applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestorePlan {
    /// The files, each with the reason why it is here. The first is a snapshot.
    pub files: Vec<(StoredFile, FileRole)>,
    /// The TXID of the restored state.
    pub head: Txid,
}

impl RestorePlan {
    /// Bytes to fetch.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.iter().map(|(file, _)| file.size).sum()
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestorePlanError {
    /// There is no LTX file at all.
    #[error("there are no LTX files")]
    Empty,
    /// There are files, but none to start from.
    #[error("there is no snapshot: no file begins at TXID 1")]
    NoSnapshot,
    /// Files in the middle are missing.
    #[error("the history has a gap: nothing continues TXID {after}, yet {next} exists")]
    Gap {
        /// The last TXID before the gap.
        after: Txid,
        /// Key of the first file after it.
        next: String,
    },
    /// The target is not the end of any file, or out of range.
    #[error(
        "TXID {target} ({}) cannot be restored exactly; {}",
        target.get(),
        describe_neighbours(*.before, *.after)
    )]
    TargetUnavailable {
        /// The TXID that was asked for.
        target: Txid,
        /// The nearest restorable TXID before it.
        before: Option<Txid>,
        /// The nearest restorable TXID after it.
        after: Option<Txid>,
    },
}

fn describe_neighbours(before: Option<Txid>, after: Option<Txid>) -> String {
    let text = |txid: Txid| format!("{txid} ({})", txid.get());
    match (before, after) {
        (Some(before), Some(after)) => {
            format!("the nearest that can: {} before it, {} after it", text(before), text(after))
        }
        (Some(before), None) => format!("the newest that can: {}", text(before)),
        (None, Some(after)) => format!("the oldest that can: {}", text(after)),
        (None, None) => "nothing can be restored".to_owned(),
    }
}

/// Plans a restore of `tree` to `target`.
///
/// # Errors
/// If there is nothing to start from, a file in the middle is missing, or the target is not a
/// state that can be reached exactly.
pub fn plan_restore(tree: &Tree, target: RestoreTarget) -> Result<RestorePlan, RestorePlanError> {
    let newest = tree.files.iter().map(|file| file.name.max).max();
    let newest = newest.ok_or(RestorePlanError::Empty)?;
    let head = match target {
        RestoreTarget::Latest => newest,
        RestoreTarget::Txid(txid) => txid,
    };
    let graph = Graph::new(tree, head);
    let mut snapshots: Vec<&StoredFile> =
        graph.files.iter().copied().filter(|file| file.name.is_snapshot()).collect();
    // Newest first; of equal ones the smaller, so that the plan fetches less.
    snapshots.sort_by_key(|file| (std::cmp::Reverse(file.name.max), file.size));
    for base in &snapshots {
        if let Some(rest) = graph.path(base.name.max, head) {
            let base = ((*base).clone(), FileRole::Base);
            let rest = rest.into_iter().map(|file| (file.clone(), FileRole::Continues));
            return Ok(RestorePlan { files: std::iter::once(base).chain(rest).collect(), head });
        }
    }
    Err(explain_failure(tree, target, &graph))
}

/// All TXIDs that can be restored exactly.
#[must_use]
pub fn restorable_txids(tree: &Tree) -> BTreeSet<Txid> {
    let Some(newest) = tree.files.iter().map(|file| file.name.max).max() else {
        return BTreeSet::new();
    };
    Graph::new(tree, newest).reachable()
}

fn explain_failure(tree: &Tree, target: RestoreTarget, graph: &Graph<'_>) -> RestorePlanError {
    let restorable = restorable_txids(tree);
    if restorable.is_empty() {
        return RestorePlanError::NoSnapshot;
    }
    if let RestoreTarget::Txid(target) = target {
        // A hole before the target is a fault of the history, not of the question.
        let inside = tree.files.iter().any(|file| file.name.max == target);
        if !inside {
            let before = restorable.range(..target).next_back().copied();
            let after = restorable.range(target..).next().copied();
            return RestorePlanError::TargetUnavailable { target, before, after };
        }
    }
    let reachable = graph.reachable();
    let after = reachable.last().copied().unwrap_or(Txid::FIRST);
    let later = graph.files.iter().filter(|file| file.name.max > after);
    match later.min_by_key(|file| file.name.min) {
        Some(next) => RestorePlanError::Gap { after, next: next.key.clone() },
        None => RestorePlanError::NoSnapshot,
    }
}

/// The files up to a head as edges from one TXID to another.
struct Graph<'a> {
    files: Vec<&'a StoredFile>,
    /// Files by the first TXID they cover.
    by_min: BTreeMap<Txid, Vec<&'a StoredFile>>,
    /// Litestream's merged files may overlap what was applied already; ours prove each link by
    /// checksums, so a file must begin exactly where the last one ended.
    may_overlap: bool,
}

impl<'a> Graph<'a> {
    fn new(tree: &'a Tree, head: Txid) -> Self {
        let files: Vec<_> = tree.files.iter().filter(|file| file.name.max <= head).collect();
        let mut by_min: BTreeMap<Txid, Vec<&StoredFile>> = BTreeMap::new();
        for file in &files {
            by_min.entry(file.name.min).or_default().push(file);
        }
        Self { files, by_min, may_overlap: tree.layout != Layout::Walrust }
    }

    fn continuing(&self, txid: Txid) -> impl Iterator<Item = &'a StoredFile> + '_ {
        let next = txid.next();
        let from = if self.may_overlap { Txid::FIRST } else { next };
        let range = self.by_min.range(from..=next);
        range.flat_map(|(_, files)| files.iter().copied()).filter(move |file| {
            // A snapshot never continues anything: it starts over.
            file.name.max > txid && !file.name.is_snapshot()
        })
    }

    /// The fewest files that lead from one TXID to another (breadth first).
    fn path(&self, from: Txid, to: Txid) -> Option<Vec<&'a StoredFile>> {
        let mut arrived_by: HashMap<Txid, (Txid, &StoredFile)> = HashMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(txid) = queue.pop_front() {
            if txid == to {
                return Some(unwind(&arrived_by, from, to));
            }
            for file in self.continuing(txid) {
                let end = file.name.max;
                if end != from && !arrived_by.contains_key(&end) {
                    arrived_by.insert(end, (txid, file));
                    queue.push_back(end);
                }
            }
        }
        None
    }

    fn reachable(&self) -> BTreeSet<Txid> {
        let snapshots = self.files.iter().filter(|file| file.name.is_snapshot());
        let mut seen: BTreeSet<Txid> = snapshots.map(|file| file.name.max).collect();
        let mut open: Vec<Txid> = seen.iter().copied().collect();
        while let Some(txid) = open.pop() {
            for file in self.continuing(txid) {
                if seen.insert(file.name.max) {
                    open.push(file.name.max);
                }
            }
        }
        seen
    }
}

fn unwind<'a>(
    arrived_by: &HashMap<Txid, (Txid, &'a StoredFile)>,
    from: Txid,
    to: Txid,
) -> Vec<&'a StoredFile> {
    let mut path = Vec::new();
    let mut at = to;
    while at != from {
        let (before, file) = arrived_by[&at];
        path.push(file);
        at = before;
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests;
