use super::*;
use crate::restore_planner::restorable_txids;
use crate::retention_policy::HOUR_MS;
use crate::tree::{Layout, StoredFile, Tree};

mod random_histories;
mod year;

/// Noon of a Thursday.
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
    plan_retention(files, &BTreeSet::new(), &policy, NOW)
}

const NOTHING_LEADS_THERE: &str = "no file that can be read leads to it, left alone";

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

/// Whether a file is a snapshot, or continues one of some states.
fn is_of_use(file: &HistoryFile, states: &BTreeSet<Txid>) -> bool {
    Txid::new(file.name.min.get() - 1).is_none_or(|before| states.contains(&before))
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
    assert_eq!(text(&plan, (2, 2)), NOTHING_LEADS_THERE);
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
fn a_file_that_nothing_leads_to_does_not_lead_to_the_newest_state() {
    // 3 is gone: only the snapshot leads to 4.
    let files = [
        file((1, 1), 9.0),
        file((2, 2), 8.0),
        file((4, 4), 6.0),
        file((1, 4), 6.0),
        file((6, 6), 1.0),
    ];
    for policy in [NO_TIER, RetentionPolicy::default()] {
        let plan = plan(&files, policy);
        assert_eq!(text(&plan, (4, 4)), "inside the finest window, though no file leads to it");
        assert_eq!(text(&plan, (6, 6)), "inside the finest window, though no file leads to it");
    }
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
fn a_second_chain_and_what_an_odd_file_leads_to_are_left_alone() {
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
    let policy = RetentionPolicy { daily: 7, ..NO_TIER };
    let expired = "expired: no snapshot that is kept leads to it";
    assert_eq!(text(&plan(&files, policy), (12, 13)), expired);
    let odd = BTreeSet::from([name((10, 11))]);
    let plan = plan_retention(&files, &odd, &policy, NOW);
    assert_eq!(text(&plan, (12, 13)), NOTHING_LEADS_THERE);
    assert_eq!(text(&plan, (2, 7)), "part of a second chain, left alone");
    // By their names alone this could be what the larger file was merged of.
    assert_eq!(text(&plan, (8, 9)), format!("part of {}", name((6, 9))));
    assert!(restorable(&carry_out(&files, &plan)).contains(&txid(9)));
}

/// Three chains: the second ended days ago, and the third is the one that goes on.
fn three_chains() -> Vec<HistoryFile> {
    let mut files = vec![
        file((1, 1), 300.0),
        file((2, 5), 290.0),
        file((1, 10), 100.0),
        file((11, 15), 99.0),
        file((1, 15), 99.0),
        file((16, 20), 98.0),
        file((1, 30), 97.0),
        file((31, 35), 20.0),
        file((1, 35), 20.0),
        file((36, 36), 10.0),
    ];
    files.sort_by_key(|file| file.name);
    files
}

#[test]
fn a_chain_goes_with_its_last_snapshot_though_an_older_chain_stays() {
    let files = three_chains();
    let policy = RetentionPolicy { weekly: 3, ..NO_TIER };
    let plan = plan_retention(&files, &BTreeSet::new(), &policy, NOW);
    assert!(matches!(plan.decisions[&name((1, 1))], Decision::Keep(_)), "it is of another week");
    let expired = "expired: no snapshot that is kept leads to it";
    for range in [(11, 15), (16, 20)] {
        assert_eq!(text(&plan, range), expired);
    }
    // Whoever has removed the snapshots and died goes on with the rest.
    let mut left = files.clone();
    left.retain(|file| !matches!(file.name.max.get(), 10 | 15) || !file.name.is_snapshot());
    assert_eq!(text(&plan_retention(&left, &BTreeSet::new(), &policy, NOW), (16, 20)), expired);
    let kept = carry_out(&files, &plan);
    let ranges: Vec<_> = kept.iter().map(|it| (it.name.min.get(), it.name.max.get())).collect();
    assert_eq!(ranges, [(1, 1), (1, 30), (1, 35), (2, 5), (31, 35), (36, 36)]);
}

#[test]
fn a_chain_that_the_window_or_an_odd_snapshot_needs_stays() {
    let files = three_chains();
    let window = RetentionPolicy { hourly: 99, weekly: 3, ..NO_TIER };
    let plan = plan(&files, window);
    assert_eq!(text(&plan, (16, 20)), "inside the finest window");
    assert!(restorable(&carry_out(&files, &plan)).contains(&txid(20)));
    // A snapshot whose header cannot be read, and nobody knows of which time it is.
    let odd = BTreeSet::from([name((1, 15))]);
    let mut readable = files;
    readable.retain(|file| !odd.contains(&file.name));
    let policy = RetentionPolicy { weekly: 3, ..NO_TIER };
    let plan = plan_retention(&readable, &odd, &policy, NOW);
    assert_eq!(text(&plan, (16, 20)), NOTHING_LEADS_THERE);
}

#[test]
fn odd_files_and_names_have_no_part_in_a_merge() {
    let mut files: Vec<_> = (2..=9).map(|txid| file((txid, txid), 90.0)).collect();
    files.extend([file((1, 1), 100.0), file((1, 9), 90.0)]);
    let merges = |odd: &[(u64, u64)]| -> Vec<(u64, u64)> {
        let odd = odd.iter().map(|range| name(*range)).collect();
        let merges = plan_retention(&files, &odd, &NO_TIER, NOW).merges;
        merges.iter().map(|merge| (merge.into.min.get(), merge.into.max.get())).collect()
    };
    assert_eq!(merges(&[]), [(2, 8)]);
    assert_eq!(merges(&[(5, 5)]), [(2, 4), (6, 8)]);
    assert_eq!(merges(&[(2, 8)]), []);
}

#[test]
fn a_history_is_quiet_until_a_tier_lets_a_snapshot_go_or_the_window_a_file() {
    let alone = [file((1, 1), 30.0)];
    let policy = RetentionPolicy::default();
    let quiet = |files: &[HistoryFile], policy: &RetentionPolicy| {
        quiet_until(files, &BTreeSet::new(), policy, NOW)
    };
    assert_eq!(quiet(&alone, &policy), i64::MAX, "two snapshots stay");
    let files = [
        file((1, 1), 30.0),
        file((2, 2), 20.0),
        file((3, 3), 19.0),
        file((4, 4), 18.0),
        file((1, 4), 18.0),
    ];
    // The window leaves TXID 3 behind in five hours.
    let until = quiet(&files, &policy);
    assert_eq!(until, NOW + 5 * HOUR_MS);
    assert_eq!(plan_retention(&files, &BTreeSet::new(), &policy, until - 1).merges, []);
    assert_ne!(plan_retention(&files, &BTreeSet::new(), &policy, until).merges, []);
    let nothing_left = [file((1, 1), 90.0), file((2, 2), 80.0), file((3, 3), 70.0)];
    assert_eq!(quiet(&nothing_left, &policy), i64::MAX);
    // On Monday, the third of August, one of two snapshots is no longer of the last two weeks.
    let weekly = RetentionPolicy { weekly: 2, ..NO_TIER };
    let files = [file((1, 1), 150.0), file((1, 2), 60.0), file((1, 3), 50.0)];
    let monday = NOW - 12 * HOUR_MS + 4 * 24 * HOUR_MS;
    assert_eq!(quiet(&files, &weekly), monday);
}
