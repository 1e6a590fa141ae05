use walrust_ltx::FileName;

use super::*;

fn txid(number: u64) -> Txid {
    Txid::new(number).expect("a test uses TXIDs from 1")
}

fn tree(layout: Layout, ranges: &[(u64, u64)]) -> Tree {
    let files = ranges.iter().map(|(min, max)| {
        let name = FileName { min: txid(*min), max: txid(*max) };
        StoredFile { key: format!("app/{name}"), name, level: 0, size: 100 }
    });
    Tree { layout, files: files.collect(), has_manifest: false }
}

fn ours(ranges: &[(u64, u64)]) -> Tree {
    tree(Layout::Walrust, ranges)
}

fn ranges(plan: &RestorePlan) -> Vec<(u64, u64)> {
    plan.files.iter().map(|(file, _)| (file.name.min.get(), file.name.max.get())).collect()
}

#[test]
fn latest_starts_at_the_newest_snapshot_and_takes_the_fewest_files() {
    let tree = ours(&[(1, 1), (2, 10), (1, 10), (11, 12), (13, 20), (11, 20), (21, 21)]);
    let plan = plan_restore(&tree, RestoreTarget::Latest).unwrap();
    assert_eq!(ranges(&plan), [(1, 10), (11, 20), (21, 21)]);
    assert_eq!(plan.head, txid(21));
    assert_eq!(plan.files[0].1, FileRole::Base);
}

#[test]
fn a_txid_at_the_end_of_a_file_is_reached_exactly() {
    let tree = ours(&[(1, 1), (2, 10), (1, 10), (11, 12), (13, 20), (11, 20)]);
    let plan = plan_restore(&tree, RestoreTarget::Txid(txid(12))).unwrap();
    assert_eq!(ranges(&plan), [(1, 10), (11, 12)]);
    let plan = plan_restore(&tree, RestoreTarget::Txid(txid(1))).unwrap();
    assert_eq!(ranges(&plan), [(1, 1)]);
}

#[test]
fn a_dead_end_of_the_widest_file_is_avoided() {
    // The widest file leads to 8, from where nothing goes on.
    let tree = ours(&[(1, 1), (2, 8), (2, 5), (6, 9)]);
    let plan = plan_restore(&tree, RestoreTarget::Latest).unwrap();
    assert_eq!(ranges(&plan), [(1, 1), (2, 5), (6, 9)]);
}

#[test]
fn an_older_snapshot_serves_when_the_newer_one_leads_nowhere() {
    let tree = ours(&[(1, 1), (1, 3), (2, 4), (5, 6)]);
    let plan = plan_restore(&tree, RestoreTarget::Latest).unwrap();
    assert_eq!(ranges(&plan), [(1, 1), (2, 4), (5, 6)]);
}

#[test]
fn a_missing_file_in_the_middle_is_a_gap_and_names_the_file_behind_it() {
    let tree = ours(&[(1, 1), (2, 2), (4, 4), (5, 5)]);
    let expected = RestorePlanError::Gap { after: txid(2), next: tree.files[2].key.clone() };
    assert_eq!(plan_restore(&tree, RestoreTarget::Latest), Err(expected.clone()));
    assert_eq!(plan_restore(&tree, RestoreTarget::Txid(txid(5))), Err(expected));
}

#[test]
fn without_a_snapshot_there_is_no_plan() {
    let tree = ours(&[(2, 2), (3, 3)]);
    assert_eq!(plan_restore(&tree, RestoreTarget::Latest), Err(RestorePlanError::NoSnapshot));
    let nothing = plan_restore(&ours(&[]), RestoreTarget::Latest);
    assert_eq!(nothing, Err(RestorePlanError::Empty));
}

#[test]
fn a_txid_inside_a_file_or_out_of_range_names_its_neighbours() {
    let tree = ours(&[(1, 3), (4, 10)]);
    let unavailable = |target, before: Option<u64>, after: Option<u64>| {
        Err(RestorePlanError::TargetUnavailable {
            target: txid(target),
            before: before.map(txid),
            after: after.map(txid),
        })
    };
    let plan = |target| plan_restore(&tree, RestoreTarget::Txid(txid(target)));
    assert_eq!(plan(7), unavailable(7, Some(3), Some(10)));
    assert_eq!(plan(1), unavailable(1, None, Some(3)));
    assert_eq!(plan(11), unavailable(11, Some(10), None));
}

#[test]
fn our_files_must_meet_exactly_while_litestream_may_overlap() {
    let overlapping = [(1, 5), (4, 9)];
    let gap = plan_restore(&ours(&overlapping), RestoreTarget::Latest);
    assert!(matches!(gap, Err(RestorePlanError::Gap { .. })));
    let peer = tree(Layout::LitestreamS3, &overlapping);
    let plan = plan_restore(&peer, RestoreTarget::Latest).unwrap();
    assert_eq!(ranges(&plan), overlapping);
}

#[test]
fn restorable_txids_are_the_ends_of_all_chains() {
    let tree = ours(&[(1, 1), (2, 3), (4, 6), (8, 9), (1, 12)]);
    let points: Vec<u64> = restorable_txids(&tree).into_iter().map(Txid::get).collect();
    assert_eq!(points, [1, 3, 6, 12]);
}
