use super::*;
use crate::restore_planner::restorable_txids;
use crate::tree::{Layout, StoredFile, Tree};

mod random_histories;
mod year;

/// Noon of a Wednesday.
const NOW: i64 = 1_785_412_800_000;

fn txid(number: u64) -> Txid {
    Txid::new(number).expect("a test uses TXIDs from 1")
}

fn name((min, max): (u64, u64)) -> FileName {
    FileName { min: txid(min), max: txid(max) }
}

/// A file whose state is some hours old.
fn file(range: (u64, u64), hours: f64) -> HistoryFile {
    let age_ms = (hours * HOUR_MS as f64) as i64;
    HistoryFile { name: name(range), size: 100, timestamp_ms: NOW - age_ms, indexed: true }
}

fn plan(files: &[HistoryFile], policy: RetentionPolicy) -> RetentionPlan {
    plan_retention(files, &policy, NOW)
}

const NO_TIER: RetentionPolicy = RetentionPolicy { hourly: 0, daily: 0, weekly: 0, monthly: 0 };

/// What a restore finds among files.
fn restorable(files: &[HistoryFile]) -> BTreeSet<Txid> {
    let stored = files.iter().map(|file| {
        let key = format!("app/{}", file.name);
        StoredFile { key, name: file.name, level: 0, size: file.size }
    });
    let files = stored.collect();
    restorable_txids(&Tree { layout: Layout::Walrust, files, has_manifest: true })
}

/// The files when a plan was carried out.
fn carry_out(files: &[HistoryFile], plan: &RetentionPlan) -> Vec<HistoryFile> {
    let stays = |file: &&HistoryFile| matches!(plan.decisions[&file.name], Decision::Keep(_));
    let mut left: Vec<HistoryFile> = files.iter().filter(stays).copied().collect();
    left.extend(plan.merges.iter().map(|merge| merged(files, merge)));
    left
}

fn merged(files: &[HistoryFile], merge: &Merge) -> HistoryFile {
    let sources = files.iter().filter(|file| merge.sources.contains(&file.name));
    HistoryFile {
        name: merge.into,
        size: sources.clone().map(|file| file.size).sum(),
        timestamp_ms: sources.map(|file| file.timestamp_ms).max().expect("a merge has sources"),
        indexed: true,
    }
}

fn text(plan: &RetentionPlan, range: (u64, u64)) -> String {
    plan.decisions[&name(range)].to_string()
}

#[test]
fn each_decision_says_why() {
    let files = [
        file((1, 10), 60.0),
        file((1, 20), 30.0),
        file((1, 30), 2.2),
        file((1, 40), 2.1),
        file((5, 10), 61.0),
        file((11, 15), 40.0),
        file((16, 20), 30.0),
        file((21, 22), 29.0),
        file((23, 25), 25.0),
        file((26, 30), 2.2),
        file((31, 40), 2.1),
    ];
    let plan = plan(&files, RetentionPolicy { hourly: 24, daily: 2, weekly: 0, monthly: 0 });
    assert_eq!(text(&plan, (1, 10)), "expired: no tier keeps it");
    assert_eq!(text(&plan, (1, 20)), "daily of 2026-07-29");
    assert_eq!(text(&plan, (1, 30)), "expired: no tier keeps it");
    let reasons = "latest snapshot, hourly of 2026-07-30T09, daily of 2026-07-30";
    assert_eq!(text(&plan, (1, 40)), reasons);
    let expired = format!("expired: before the oldest kept snapshot, TXID {}", txid(20));
    assert_eq!(text(&plan, (16, 20)), expired);
    let into = format!("merged into {}", name((21, 25)));
    assert_eq!([text(&plan, (21, 22)), text(&plan, (23, 25))], [into.clone(), into]);
    assert_eq!(text(&plan, (26, 30)), "inside the finest window");
    assert_eq!(text(&plan, (31, 40)), "leads to the newest state");
    let points: Vec<u64> = plan.restore_points.iter().map(|point| point.get()).collect();
    assert_eq!(points, [20, 25, 30, 40]);
}

#[test]
fn two_snapshots_stay_whatever_the_policy_and_their_age() {
    let files = [file((1, 1), 90_000.0), file((1, 2), 80_000.0), file((1, 3), 70_000.0)];
    let plan = plan(&files, NO_TIER);
    assert_eq!(text(&plan, (1, 1)), "expired: no tier keeps it");
    assert_eq!(text(&plan, (1, 2)), "two snapshots stay in any case");
    assert_eq!(text(&plan, (1, 3)), "latest snapshot");
}

#[test]
fn nothing_is_decided_about_nothing_and_all_stays_without_a_snapshot() {
    assert_eq!(plan(&[], RetentionPolicy::default()), RetentionPlan::default());
    let files = [file((2, 2), 90_000.0), file((3, 3), 80_000.0)];
    let plan = plan(&files, NO_TIER);
    assert_eq!(text(&plan, (2, 2)), "behind a gap, left alone");
    assert_eq!(carry_out(&files, &plan).len(), 2);
}

#[test]
fn c07_a_base_that_a_restore_point_needs_stays_although_it_expired() {
    // The link from 10 to 11 is gone: only the snapshot of 20 leads to the states behind it.
    let files = [
        file((1, 10), 25.0),
        file((1, 20), 23.9),
        file((21, 25), 23.8),
        file((1, 30), 23.7),
        file((31, 40), 0.5),
        file((1, 40), 0.5),
    ];
    let plan = plan(&files, RetentionPolicy { hourly: 24, ..NO_TIER });
    let needed = format!("needed by restore point {}", txid(20));
    assert_eq!(text(&plan, (1, 20)), needed);
    assert!(plan.restore_points.contains(&txid(25)));
    assert!(restorable(&carry_out(&files, &plan)).is_superset(&plan.restore_points));
}

#[test]
fn the_state_in_which_the_window_begins_can_be_restored() {
    let files = [file((1, 1), 30.0), file((2, 2), 25.0), file((3, 3), 23.0), file((4, 4), 1.0)];
    let plan = plan(&files, RetentionPolicy::default());
    // At 24 hours ago the database was in the state of TXID 2.
    assert!(plan.restore_points.contains(&txid(2)));
    assert_eq!(plan.merges, []);
}

#[test]
fn the_head_is_never_merged() {
    let files: Vec<_> = std::iter::once(file((1, 1), 100.0))
        .chain((2..=6).map(|txid| file((txid, txid), 99.0)))
        .collect();
    let plan = plan(&files, NO_TIER);
    assert_eq!(plan.merges, Merge::of(&[2, 3, 4, 5].map(|txid| name((txid, txid)))).as_slice());
    assert_eq!(text(&plan, (6, 6)), "leads to the newest state");
}

#[test]
fn merges_end_at_kept_snapshots_and_what_the_manifest_does_not_know_stays() {
    const MONTH: f64 = 31.0 * 24.0;
    let mut files: Vec<_> = (2..=13).map(|txid| file((txid, txid), 90.0)).collect();
    files[9].indexed = false;
    files.extend([file((1, 1), 2.0 * MONTH), file((1, 7), 90.0), file((1, 14), 1.0)]);
    files.push(file((14, 14), 1.0));
    let merges = |files: &[HistoryFile]| {
        let plan = plan(files, RetentionPolicy { monthly: 12, ..NO_TIER });
        assert_eq!(text(&plan, (11, 11)), "leads from one kept snapshot to the next");
        let mut merges: Vec<_> = plan.merges.iter().map(|merge| merge.into).collect();
        merges.sort();
        merges
    };
    assert_eq!(merges(&files), [(2, 10), (12, 13)].map(name), "the snapshot of 7 expired");
    files[13] = file((1, 7), MONTH);
    assert_eq!(merges(&files), [(2, 7), (8, 10), (12, 13)].map(name), "it is that of June");
}

#[test]
fn a_merged_file_whose_sources_are_still_there_replaces_them() {
    let mut files: Vec<_> = (2..=9).map(|txid| file((txid, txid), 90.0)).collect();
    files.extend([file((1, 1), 100.0), file((2, 6), 90.0), file((1, 9), 90.0)]);
    let plan = plan(&files, NO_TIER);
    assert_eq!(text(&plan, (4, 4)), format!("part of {}", name((2, 6))));
    assert_eq!(text(&plan, (2, 6)), format!("merged into {}", name((2, 8))));
}

#[test]
fn a_second_chain_and_what_is_behind_a_gap_are_left_alone() {
    let files = [
        file((1, 1), 99.0),
        file((2, 5), 98.0),
        file((2, 7), 98.0),
        file((6, 9), 97.0),
        file((8, 9), 97.0),
        file((12, 13), 96.0),
        file((1, 20), 95.0),
        file((21, 21), 94.0),
        file((22, 22), 93.0),
    ];
    let plan = plan(&files, RetentionPolicy { hourly: 0, daily: 7, weekly: 0, monthly: 0 });
    assert_eq!(text(&plan, (12, 13)), "behind a gap, left alone");
    assert_eq!(text(&plan, (2, 7)), "part of a second chain, left alone");
    // By their names alone this could be what the larger file was merged of.
    assert_eq!(text(&plan, (8, 9)), format!("part of {}", name((6, 9))));
    assert!(restorable(&carry_out(&files, &plan)).contains(&txid(9)));
}
