//! What a replica does next: apply files that lead on, or begin anew from a snapshot.
//!
//! Invariant: a replica never goes back in time. Files are applied only if together they lead from its state
//! to a newer one; it is made anew only to get to a newer state, or because its own is no state of
//! the history any more. If neither is possible it stays where it is, and says why.

use std::cmp::Reverse;

use walrust_ltx::Txid;

use crate::restore_planner::restorable_txids;
use crate::tree::{StoredFile, Tree};

/// Whether the state of a replica is a state of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinship {
    /// A file ends in the state of the replica.
    Same,
    /// No file says so, and none says otherwise: files were merged over the state, or are gone.
    Unknown,
    /// Where the state of the replica should be is another one, or it is another history.
    Other,
    /// It is of a branch that does not go on, and newer than the newest state of the history.
    Newer,
}

/// The next step of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaStep {
    /// It is in the newest state.
    Stay,
    /// Apply these files, in order.
    Apply(Vec<StoredFile>),
    /// Restore this state and become it.
    Rebuild(Txid),
    /// Newer files exist, but a file between is missing and no snapshot is after the gap.
    Gap {
        /// Key of the first file after the gap.
        next: String,
    },
    /// The newest state of the history is older than the replica.
    Behind {
        /// The newest state; `None` if nothing can be restored.
        newest: Option<Txid>,
    },
}

/// The fewest files that lead from the state `txid` as far as possible, in order.
///
/// A file may begin before the state, as merged ones do: what it repeats is the same.
#[must_use]
pub fn files_after(tree: &Tree, txid: Txid) -> Vec<StoredFile> {
    // A snapshot never continues anything: it starts over.
    let mut waiting: Vec<&StoredFile> =
        tree.files.iter().filter(|file| !file.name.is_snapshot()).collect();
    waiting.sort_by_key(|file| Reverse(file.name.min));
    let (mut files, mut at) = (Vec::new(), txid);
    let mut furthest: Option<&StoredFile> = None;
    loop {
        while let Some(file) = waiting.pop_if(|file| file.name.min <= at.next()) {
            // Of those that lead equally far the shortest, which is the one that can prove most.
            let order = |file: &StoredFile| (file.name.max, file.name.min);
            if furthest.is_none_or(|furthest| order(furthest) < order(file)) {
                furthest = Some(file);
            }
        }
        let Some(best) = furthest.filter(|file| file.name.max > at) else { return files };
        at = best.name.max;
        files.push(best.clone());
    }
}

/// Plans the next step of a replica in the state `txid` from all files of the history.
#[must_use]
pub fn plan_replica(tree: &Tree, txid: Txid, kinship: Kinship) -> ReplicaStep {
    let newest = restorable_txids(tree).last().copied();
    match kinship {
        Kinship::Same | Kinship::Unknown => {}
        Kinship::Other => {
            return newest.map_or(ReplicaStep::Behind { newest }, ReplicaStep::Rebuild);
        }
        Kinship::Newer => return ReplicaStep::Behind { newest },
    }
    let files = files_after(tree, txid);
    let reached = files.last().map_or(txid, |file| file.name.max);
    if newest.is_some_and(|newest| newest > reached) {
        // A snapshot leads further than the files do.
        return newest.map_or(ReplicaStep::Stay, ReplicaStep::Rebuild);
    }
    if !files.is_empty() {
        return ReplicaStep::Apply(files);
    }
    let after_a_gap = tree.files.iter().filter(|file| file.name.min > txid);
    if let Some(next) = after_a_gap.min_by_key(|file| file.name) {
        return ReplicaStep::Gap { next: next.key.clone() };
    }
    match newest {
        Some(newest) if newest == txid => ReplicaStep::Stay,
        newest => ReplicaStep::Behind { newest },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(files: &[(u64, u64)]) -> Tree {
        let keys: Vec<String> =
            files.iter().map(|(min, max)| format!("app/{min:016x}-{max:016x}.ltx")).collect();
        Tree::read("app", keys.iter().map(|key| (key.as_str(), 1)))
    }

    fn txid(number: u64) -> Txid {
        Txid::new(number).unwrap()
    }

    fn plan(files: &[(u64, u64)], at: u64, kinship: Kinship) -> ReplicaStep {
        plan_replica(&tree(files), txid(at), kinship)
    }

    fn ranges(step: ReplicaStep) -> Vec<(u64, u64)> {
        match step {
            ReplicaStep::Apply(files) => {
                files.iter().map(|file| (file.name.min.get(), file.name.max.get())).collect()
            }
            step => panic!("{step:?} applies nothing"),
        }
    }

    #[test]
    fn files_that_continue_are_applied_and_snapshots_are_not_fetched() {
        let files = [(1, 1), (2, 2), (3, 5), (1, 5), (6, 6)];
        assert_eq!(ranges(plan(&files, 2, Kinship::Same)), [(3, 5), (6, 6)]);
        assert_eq!(plan(&files, 6, Kinship::Same), ReplicaStep::Stay);
    }

    #[test]
    fn a_merged_file_serves_a_replica_in_the_middle_of_it() {
        let files = [(1, 1), (2, 9), (10, 10)];
        assert_eq!(ranges(plan(&files, 5, Kinship::Unknown)), [(2, 9), (10, 10)]);
        // The sources of a merge may still be there: the fewest files are taken.
        let files = [(1, 1), (2, 9), (6, 7), (8, 9), (10, 10)];
        assert_eq!(ranges(plan(&files, 5, Kinship::Unknown)), [(2, 9), (10, 10)]);
    }

    #[test]
    fn a_snapshot_after_a_gap_rebuilds() {
        let files = [(1, 1), (2, 2), (1, 7), (8, 9)];
        assert_eq!(plan(&files, 4, Kinship::Unknown), ReplicaStep::Rebuild(txid(9)));
        assert_eq!(plan(&files, 2, Kinship::Same), ReplicaStep::Rebuild(txid(9)));
    }

    #[test]
    fn a_gap_without_a_snapshot_after_it_stays_a_gap() {
        let step = plan(&[(1, 1), (2, 2), (4, 4)], 2, Kinship::Same);
        let next = "app/0000000000000004-0000000000000004.ltx".to_owned();
        assert_eq!(step, ReplicaStep::Gap { next });
        // What comes before the gap is applied first.
        assert_eq!(ranges(plan(&[(1, 1), (2, 2), (4, 4)], 1, Kinship::Same)), [(2, 2)]);
    }

    #[test]
    fn a_history_that_ends_before_the_replica_does_not_take_it_back() {
        let step = plan(&[(1, 1), (2, 3)], 5, Kinship::Unknown);
        assert_eq!(step, ReplicaStep::Behind { newest: Some(txid(3)) });
        assert_eq!(plan(&[], 5, Kinship::Unknown), ReplicaStep::Behind { newest: None });
    }

    #[test]
    fn another_history_begins_anew_whatever_its_numbers_are() {
        assert_eq!(plan(&[(1, 1), (2, 3)], 5, Kinship::Other), ReplicaStep::Rebuild(txid(3)));
        assert_eq!(plan(&[], 5, Kinship::Other), ReplicaStep::Behind { newest: None });
    }

    #[test]
    fn files_of_the_branch_that_goes_on_do_not_take_a_newer_state_back() {
        let step = plan(&[(1, 1), (2, 5), (6, 9)], 5, Kinship::Newer);
        assert_eq!(step, ReplicaStep::Behind { newest: Some(txid(9)) });
    }

    #[test]
    fn c12_a_replica_that_is_days_behind_is_planned_in_no_time() {
        const FILES: u64 = 200_000;
        let files: Vec<_> = (1..=FILES).map(|txid| (txid, txid)).collect();
        let tree = tree(&files);
        // To look at every file for every step takes longer than any test may.
        assert_eq!(files_after(&tree, txid(1)).len() as u64, FILES - 1);
    }

    /// Looks at every file for every step.
    fn files_after_one_by_one(tree: &Tree, txid: Txid) -> Vec<StoredFile> {
        let (mut files, mut at) = (Vec::new(), txid);
        let continues = |file: &StoredFile, at: Txid| {
            !file.name.is_snapshot() && file.name.min <= at.next() && file.name.max > at
        };
        while let Some(best) = tree
            .files
            .iter()
            .filter(|file| continues(file, at))
            .max_by_key(|file| (file.name.max, file.name.min))
        {
            at = best.name.max;
            files.push(best.clone());
        }
        files
    }

    proptest! {
        #[test]
        fn the_way_is_the_shortest_along_the_longest_files(
            files in prop::collection::btree_set((1u64..30, 0u64..8), 0..30),
            at in 1u64..30,
        ) {
            let files: Vec<_> = files.into_iter().map(|(min, more)| (min, min + more)).collect();
            let (tree, at) = (tree(&files), txid(at));
            prop_assert_eq!(files_after(&tree, at), files_after_one_by_one(&tree, at));
        }

        #[test]
        fn a_step_never_leads_back(
            files in prop::collection::vec((1u64..20, 0u64..6), 0..20),
            at in 1u64..25,
        ) {
            let files: Vec<_> = files.into_iter().map(|(min, more)| (min, min + more)).collect();
            match plan(&files, at, Kinship::Unknown) {
                ReplicaStep::Apply(files) => {
                    let mut reached = txid(at);
                    for file in files {
                        prop_assert!(file.name.min <= reached.next() && file.name.max > reached);
                        reached = file.name.max;
                    }
                }
                ReplicaStep::Rebuild(target) => prop_assert!(target > txid(at)),
                ReplicaStep::Stay | ReplicaStep::Gap { .. } | ReplicaStep::Behind { .. } => {}
            }
        }
    }
}
