use proptest::prelude::*;

use super::*;
use crate::prices::Provider;

const MIB: f64 = 1024.0 * 1024.0;
const MONTH: f64 = 730.0;

fn settings() -> ReplicationSettings {
    ReplicationSettings {
        sync_interval: Duration::from_secs(1),
        snapshot: SnapshotSettings::default(),
        compact_after_snapshot: false,
        compact_interval: Duration::ZERO,
        retention: RetentionPolicy::default(),
    }
}

fn compacting() -> ReplicationSettings {
    ReplicationSettings { compact_after_snapshot: true, ..settings() }
}

fn rate(commits_per_hour: f64) -> ChangeRate {
    ChangeRate { commits_per_hour, bytes_per_commit: 1000.0 }
}

#[track_caller]
fn assert_near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= expected.abs() * 1e-9, "{found} is not {expected}");
}

#[test]
fn a_database_that_never_changes_costs_the_storage_of_one_snapshot() {
    for settings in [settings(), compacting()] {
        let usage = Usage::estimate(&rate(0.0), 10.0 * MIB, &settings);
        let expected = Usage { snapshots: 1.0, stored_bytes: 10.0 * MIB, ..Usage::default() };
        assert_eq!(usage, expected);
    }
}

#[test]
fn without_compaction_everything_stays() {
    let usage = Usage::estimate(&rate(60.0), MIB, &settings());
    // An upload a minute, a snapshot an hour, and a manifest a minute for both.
    assert_near(usage.puts, (60.0 + 1.0 + 60.0) * MONTH);
    assert_near(usage.gets, 60.0 * MONTH);
    assert_near(usage.lists, 0.0);
    assert_near(usage.uploaded_bytes, (60_000.0 + MIB) * MONTH);
    assert_near(usage.growth_bytes, usage.uploaded_bytes);
    assert_near(usage.snapshots, 8761.0);
    assert_near(usage.stored_bytes, 8761.0 * MIB + 60_000.0 * 8760.0);
}

#[test]
fn uploads_are_not_more_frequent_than_their_interval() {
    let usage = Usage::estimate(&rate(36_000.0), MIB, &settings());
    assert_near(usage.puts, (3600.0 + 1.0 + 60.0) * MONTH);
    // Ten commits are one file.
    assert_near(usage.uploaded_bytes, (36_000.0 * 1000.0 + MIB) * MONTH);
    let small = Usage::estimate(&rate(36_000.0), 5000.0, &settings());
    assert_near(small.uploaded_bytes, (3600.0 * 5000.0 + 5000.0) * MONTH);
}

#[test]
fn the_fastest_trigger_decides_how_many_snapshots_there_are() {
    let hour = Duration::from_secs(3600);
    let pace = |commits, change: fn(&mut SnapshotSettings)| {
        let mut settings =
            SnapshotSettings { interval: Duration::ZERO, ..SnapshotSettings::default() };
        change(&mut settings);
        snapshots_an_hour(commits, &settings)
    };
    assert_near(pace(60.0, |_| {}), 0.0);
    assert_near(pace(60.0, |it| it.interval = Duration::from_secs(1800)), 2.0);
    assert_near(pace(0.5, |it| it.interval = Duration::from_secs(1800)), 0.5);
    assert_near(pace(60.0, |it| it.max_changes = 20), 3.0);
    assert_near(pace(1.0, |it| it.max_interval = Duration::from_secs(3600)), 0.5);
    assert_near(pace(2.0, |it| it.on_idle = Duration::from_secs(60)), 2.0);
    assert_near(pace(120.0, |it| it.on_idle = Duration::from_secs(60)), 0.0);
    let all = SnapshotSettings { interval: hour, max_changes: 6, ..SnapshotSettings::default() };
    assert_near(snapshots_an_hour(60.0, &all), 10.0);
}

#[test]
fn the_retention_bounds_what_is_stored() {
    let usage = Usage::estimate(&rate(60.0), MIB, &compacting());
    assert_near(usage.snapshots, 52.0);
    assert_near(usage.growth_bytes, 0.0);
    // A day of files; then a merged file for each day, week and month, none larger than a snapshot.
    let merged = 7.0 * MIB + 12.0 * MIB + 12.0 * MIB;
    assert_near(usage.stored_bytes, 52.0 * MIB + 24.0 * 60_000.0 + merged);
    // A snapshot, what is looked at, and the index twice, each hour.
    assert_near(usage.lists, MONTH);
    let without = Usage::estimate(&rate(60.0), MIB, &settings());
    assert_near(usage.puts - without.puts, (1.0 + 2.0) * MONTH);
}

#[test]
fn a_policy_keeps_no_more_snapshots_than_there_are() {
    let daily =
        SnapshotSettings { interval: Duration::from_secs(86_400), ..SnapshotSettings::default() };
    let usage =
        Usage::estimate(&rate(60.0), MIB, &ReplicationSettings { snapshot: daily, ..compacting() });
    // One of 24 hours, seven days, twelve weeks and twelve months.
    assert_near(usage.snapshots, 1.0 + 7.0 + 12.0 + 12.0);
    let none = RetentionPolicy { hourly: 0, daily: 0, weekly: 0, monthly: 0 };
    let usage =
        Usage::estimate(&rate(60.0), MIB, &ReplicationSettings { retention: none, ..compacting() });
    assert_near(usage.snapshots, 2.0);
    assert_eq!(most_snapshots(&none), 2);
    assert_eq!(most_snapshots(&RetentionPolicy::default()), 52);
    assert_eq!(most_snapshots(&RetentionPolicy { hourly: 24, ..none }), 24);
}

#[test]
fn large_files_are_uploaded_in_parts() {
    assert_near(requests_of(31.9 * MIB), 1.0);
    assert_near(requests_of(32.0 * MIB), 4.0);
    assert_near(requests_of(1000.0 * MIB), 65.0);
}

#[test]
fn the_cost_follows_from_the_prices() {
    let usage = Usage {
        puts: 2_000_000.0,
        lists: 1_000.0,
        gets: 1_000_000.0,
        stored_bytes: 50e9,
        ..Usage::default()
    };
    let cost = usage.cost(&Provider::Tigris.prices());
    assert_near(cost.storage, 1.0);
    assert_near(cost.requests, 10.0 + 0.005 + 0.5);
    assert_near(cost.total(), 11.505);
    assert_near(usage.cost(&Provider::Aws.prices()).storage, 1.15);
    let two: Usage = [usage, usage].into_iter().sum();
    assert_near(two.cost(&Provider::Tigris.prices()).total(), 23.01);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn more_changes_and_larger_databases_never_cost_less(
        commits in 0.0f64..1e5,
        more in 1.0f64..10.0,
        bytes in 512.0f64..1e10,
        interval in 0u64..100_000,
        (compact_interval, compact_after_snapshot) in (0u64..10_000, any::<bool>()),
        (hourly, daily, weekly, monthly) in (0u32..40, 0u32..40, 0u32..40, 0u32..40),
    ) {
        let settings = ReplicationSettings {
            snapshot: SnapshotSettings {
                interval: Duration::from_secs(interval),
                ..SnapshotSettings::default()
            },
            compact_interval: Duration::from_secs(compact_interval),
            compact_after_snapshot,
            retention: RetentionPolicy { hourly, daily, weekly, monthly },
            ..settings()
        };
        let cost = |commits, bytes| {
            let usage = Usage::estimate(&rate(commits), bytes, &settings);
            for number in [usage.puts, usage.lists, usage.gets, usage.stored_bytes] {
                assert!(number.is_finite() && number >= 0.0, "{usage:?}");
            }
            usage.cost(&Provider::Aws.prices()).total()
        };
        let slack = 1.0 + 1e-9;
        prop_assert!(cost(commits, bytes) <= cost(commits * more, bytes) * slack);
        prop_assert!(cost(commits, bytes) <= cost(commits, bytes * more) * slack);
        let mut keeping = settings;
        (keeping.compact_interval, keeping.compact_after_snapshot) = (Duration::ZERO, false);
        let stored = |settings| Usage::estimate(&rate(commits), bytes, settings).stored_bytes;
        prop_assert!(stored(&settings) <= stored(&keeping) * 2.0 + 2.0 * bytes);
    }
}
