//! Which files of a history Litestream gets, at which level, and in which order.
//!
//! Litestream plans by names and never compares checksums of neighbours, so what it gets is one chain
//! without a gap and without overlaps: it would restore a mixture of two chains, and its compaction
//! would fail for ever on a gap.
//!
//! Invariants: a tree that is not complete restores nothing, or the head, never an older state as the
//! newest: what restores begins with a snapshot, and snapshots come last, the newest of them first. And
//! a file of level 0 has the head as its only TXID. There Litestream looks for the TXID after which it
//! goes on, and under that name it looks for the file: without one it begins with TXID 1 again, and
//! restores the state of the export until it has caught up; with one of several TXIDs it fails. If no
//! file of the history is such a file, one without pages takes the place. No restore takes it, since
//! nothing ends at the TXID before.

use walrust_ltx::{FileName, Txid};

use crate::restore_planner::{RestorePlan, RestoreTarget, plan_restore};
use crate::tree::{Layout, StoredFile, Tree};

/// Litestream's level of files that it captured, each of one TXID.
const CAPTURED: u8 = 0;
/// Its first level of files that were merged.
const MERGED: u8 = 1;
/// Its level of snapshots.
const SNAPSHOTS: u8 = 9;

/// A file to be exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedFile {
    /// The file in the history.
    pub file: StoredFile,
    /// Its level in the tree of Litestream.
    pub level: u8,
}

/// The files of an export, in the order in which they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportPlan {
    /// The files: incrementals, each continuing the one before it, then snapshots, newest first.
    pub files: Vec<ExportedFile>,
    /// The TXID of the newest state.
    pub head: Txid,
}

impl ExportPlan {
    /// Bytes to fetch.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.iter().map(|exported| exported.file.size).sum()
    }

    /// Level and name of a file without pages by which Litestream finds its position, if no other file
    /// tells. It is to be stored before the first file that ends with the head.
    #[must_use]
    pub fn position(&self) -> Option<(u8, FileName)> {
        let is_known = self.files.iter().any(|exported| exported.level == CAPTURED);
        (!is_known).then_some((CAPTURED, FileName { min: self.head, max: self.head }))
    }
}

/// Plans the export of a tree of ours, of which `latest` restores the newest state. It has the files
/// of `latest`; with `whole`, those from the oldest snapshot from which incrementals lead to the same
/// head, and the snapshots on the way.
#[must_use]
pub fn plan_export(tree: &Tree, latest: &RestorePlan, whole: bool) -> ExportPlan {
    let longer = if whole { from_oldest_snapshot(tree, latest.head) } else { None };
    let RestorePlan { files, head } = longer.as_ref().unwrap_or(latest);
    let (mut snapshots, incrementals): (Vec<&StoredFile>, Vec<&StoredFile>) =
        files.iter().map(|(file, _)| file).partition(|file| file.name.is_snapshot());
    if whole {
        let is_state = |txid| incrementals.iter().any(|file| file.name.max == txid);
        let on_the_way = tree.files.iter().filter(|file| file.name.is_snapshot());
        snapshots.extend(on_the_way.filter(|file| is_state(file.name.max)));
    }
    snapshots.sort_by_key(|file| std::cmp::Reverse(file.name.max));
    let exported = |file: &StoredFile| {
        let level = match file.name {
            FileName { min, max } if min == *head && max == *head => CAPTURED,
            name if name.is_snapshot() => SNAPSHOTS,
            _ => MERGED,
        };
        ExportedFile { file: file.clone(), level }
    };
    let files = incrementals.into_iter().chain(snapshots).map(exported).collect();
    ExportPlan { files, head: *head }
}

/// The plan that begins with the oldest snapshot that leads to the head.
fn from_oldest_snapshot(tree: &Tree, head: Txid) -> Option<RestorePlan> {
    debug_assert_eq!(tree.layout, Layout::Walrust);
    let (mut snapshots, incrementals): (Vec<_>, Vec<_>) =
        tree.files.iter().cloned().partition(|file| file.name.is_snapshot());
    snapshots.sort_by_key(|file| file.name.max);
    snapshots.into_iter().find_map(|snapshot| {
        let files = std::iter::once(snapshot).chain(incrementals.iter().cloned()).collect();
        let tree = Tree { layout: tree.layout, files, has_manifest: tree.has_manifest };
        plan_restore(&tree, RestoreTarget::Txid(head)).ok()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn plan(files: &BTreeSet<(u64, u64)>, whole: bool) -> Option<ExportPlan> {
        let keys: Vec<String> =
            files.iter().map(|(min, max)| format!("app/{min:016x}-{max:016x}.ltx")).collect();
        let tree = Tree::read("app", keys.iter().map(|key| (key.as_str(), 10)));
        let latest = plan_restore(&tree, RestoreTarget::Latest).ok()?;
        Some(plan_export(&tree, &latest, whole))
    }

    /// First and last TXID and level of the files, that of the position included.
    fn planned(files: &[(u64, u64)], whole: bool) -> Vec<(u64, u64, u8)> {
        let plan = plan(&files.iter().copied().collect(), whole).unwrap();
        let files = plan.files.iter().map(|it| (it.level, it.file.name)).chain(plan.position());
        files.map(|(level, name)| (name.min.get(), name.max.get(), level)).collect()
    }

    const HISTORY: [(u64, u64); 5] = [(1, 1), (2, 3), (4, 4), (1, 4), (5, 9)];

    #[test]
    fn the_newest_snapshot_and_what_is_after_it_come_incrementals_first() {
        assert_eq!(planned(&HISTORY, false), [(5, 9, 1), (1, 4, 9), (9, 9, 0)]);
    }

    #[test]
    fn the_whole_history_begins_with_the_oldest_snapshot() {
        let expected = [(2, 3, 1), (4, 4, 1), (5, 9, 1), (1, 4, 9), (1, 1, 9), (9, 9, 0)];
        assert_eq!(planned(&HISTORY, true), expected);
    }

    #[test]
    fn the_position_is_the_head_in_a_file_of_its_own() {
        assert_eq!(planned(&[(1, 1)], false), [(1, 1, 0)]);
        assert_eq!(planned(&[(1, 7)], false), [(1, 7, 9), (7, 7, 0)]);
        assert_eq!(planned(&[(1, 6), (7, 7)], false), [(7, 7, 0), (1, 6, 9)]);
        assert_eq!(planned(&[(1, 5), (6, 7)], false), [(6, 7, 1), (1, 5, 9), (7, 7, 0)]);
        let expected = [(4, 7, 1), (1, 7, 9), (1, 3, 9), (7, 7, 0)];
        assert_eq!(planned(&[(1, 3), (4, 7), (1, 7)], true), expected);
    }

    #[test]
    fn what_is_before_a_gap_stays_behind() {
        let files = [(1, 1), (2, 2), (1, 5), (6, 6), (1, 6), (7, 7)];
        assert_eq!(planned(&files, true), [(6, 6, 1), (7, 7, 0), (1, 6, 9), (1, 5, 9)]);
    }

    #[test]
    fn sources_of_a_merged_file_stay_behind() {
        let files = [(1, 1), (2, 4), (2, 2), (3, 3), (4, 4), (5, 5)];
        assert_eq!(planned(&files, true), [(2, 4, 1), (5, 5, 0), (1, 1, 9)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_plan_is_one_chain_with_a_position_that_no_restore_takes(
            files in prop::collection::btree_set((1u64..12, 0u64..4), 1..20),
            whole: bool,
        ) {
            let files = files.into_iter().map(|(min, more)| (min, min + more)).collect();
            let Some(plan) = plan(&files, whole) else { return Ok(()) };
            let names: Vec<FileName> = plan.files.iter().map(|it| it.file.name).collect();
            let first = names.iter().position(|name| name.is_snapshot()).unwrap();
            let (incrementals, snapshots) = names.split_at(first);
            prop_assert!(snapshots.iter().all(|name| name.is_snapshot()));
            let mut states = vec![snapshots.last().unwrap().max];
            for name in incrementals {
                prop_assert_eq!(name.min, states.last().unwrap().next());
                states.push(name.max);
            }
            prop_assert_eq!(states.last(), Some(&plan.head));
            prop_assert!(snapshots.iter().all(|name| states.contains(&name.max)));

            let captured = plan.files.iter().filter(|it| it.level == 0).map(|it| it.file.name);
            let extra = plan.position().map(|(_, name)| name);
            let positions: Vec<FileName> = captured.chain(extra).collect();
            prop_assert_eq!(&positions, &[FileName { min: plan.head, max: plan.head }]);
            prop_assert!(extra.is_none() || states.iter().all(|txid| txid.next() != plan.head));
        }
    }
}
