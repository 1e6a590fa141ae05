//! Retention that dies anywhere, meets another writer, or an odd storage.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};
use walrust_engine::{Decision, RetentionPolicy, manifest_key};
use walrust_history::{HistoryError, edit_manifest};
use walrust_ltx::FileName;
use walrust_storage::{Condition, Metadata, ObjectStore};

use crate::crashing_store::CrashingStore;
use crate::scene::{
    HOUR_MS, NAME, Scene, assert_indexed, at, file_names, key, manifest, name, plan, restore, txid,
};

pub(crate) const GRACE: Duration = Duration::from_secs(3600);
pub(crate) const POLICY: RetentionPolicy =
    RetentionPolicy { hourly: 6, daily: 2, weekly: 1, monthly: 1 };

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Commits and snapshots with pauses, and whether the manifest knows of each file.
async fn build(steps: &[(u8, u64, f64, u8)]) -> Scene {
    let mut scene = Scene::begin("2026-12-29T00:00:00Z").await;
    for (kind, commits, hours, odd) in steps {
        scene.wait_hours(*hours);
        scene.commit(*commits, odd % 16 != 0).await;
        if kind % 4 == 0 {
            scene.snapshot(odd % 16 != 1).await;
        }
    }
    scene.write_manifest().await;
    scene
}

/// Plans and carries the plan out; whether the process survived.
async fn run(
    store: &CrashingStore,
    policy: &RetentionPolicy,
    now_ms: i64,
    grace: Duration,
) -> bool {
    let planned = walrust_history::Retention::plan(store, NAME, policy, at(now_ms)).await;
    match planned {
        Ok(retention) => retention.execute(store, grace, &|| at(now_ms)).await.is_ok(),
        Err(_) => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn c06_c07_every_restore_point_survives_a_crash_at_every_step(
        steps in proptest::collection::vec((any::<u8>(), 1u64..4, 0.0..5.0f64, any::<u8>()), 4..30),
    ) {
        runtime().block_on(async {
            let scene = build(&steps).await;
            let points = plan(&scene.store, &POLICY, scene.now_ms).await.plan.restore_points;
            let later = scene.now_ms + HOUR_MS;
            let points_later = plan(&scene.store, &POLICY, later).await.plan.restore_points;
            for changes in 0.. {
                let store = scene.store.copied().await;
                store.crash_after(changes);
                let mut survived = run(&store, &POLICY, scene.now_ms, GRACE).await;
                let crashed_before_deleting = store.has_crashed();
                // The grace period is over, and what was retired is deleted.
                survived &= run(&store, &POLICY, later, GRACE).await;
                store.recover();
                if crashed_before_deleting {
                    scene.assert_restorable(&store, &points).await;
                }
                scene.assert_restorable(&store, &points_later).await;
                assert_indexed(&store).await;
                if survived {
                    return;
                }
                // Whoever comes next goes on.
                for hours in 1..=3 {
                    let now_ms = scene.now_ms + hours * HOUR_MS;
                    assert!(run(&store, &POLICY, now_ms, GRACE).await, "the next run fails");
                    assert_indexed(&store).await;
                }
                let end = plan(&store, &POLICY, scene.now_ms + 3 * HOUR_MS).await;
                scene.assert_restorable(&store, &end.plan.restore_points).await;
                assert!(changes < 500, "a run without end");
            }
        });
    }
}

#[test]
fn c06_nothing_is_deleted_before_the_grace_period_is_over() {
    runtime().block_on(async {
        let scene =
            build(&[(0, 1, 10.0, 9), (1, 1, 1.0, 9), (0, 1, 60.0, 9), (1, 1, 0.1, 9)]).await;
        let (store, before) = (&scene.store, file_names(&scene.store).await);
        let policy = RetentionPolicy { hourly: 0, daily: 0, weekly: 0, monthly: 0 };
        let retention = plan(store, &policy, scene.now_ms).await;
        let report = retention.execute(store, GRACE, &|| at(scene.now_ms)).await.unwrap();
        assert_eq!(report.deleted, []);
        assert!(!report.retired.is_empty());
        let now = file_names(store).await;
        assert!(before.iter().all(|name| now.contains(name)), "a restore in flight loses a file");
        let listed = manifest(store).await;
        let retired: BTreeSet<FileName> = report.retired.iter().copied().collect();
        assert_eq!(listed.retired_names(), retired);

        // A moment before the end, and at it.
        assert!(run(store, &policy, scene.now_ms + HOUR_MS - 1, GRACE).await);
        assert_eq!(file_names(store).await, now);
        assert!(run(store, &policy, scene.now_ms + HOUR_MS, GRACE).await);
        let left: BTreeSet<FileName> = file_names(store).await.into_iter().collect();
        assert!(left.is_disjoint(&retired));
        assert_eq!(manifest(store).await.retired, []);
    });
}

#[test]
fn d02_a_run_says_exactly_until_when_nothing_is_due() {
    runtime().block_on(async {
        let steps: Vec<_> = (0..20).map(|step| (step, 1, 1.7, 9)).collect();
        let scene = build(&steps).await;
        let execute = async |store: &CrashingStore, now_ms| {
            let retention = plan(store, &POLICY, now_ms).await;
            let report = retention.execute(store, GRACE, &|| at(now_ms)).await.unwrap();
            (report.changed_something(), report.quiet_until_ms)
        };
        let (mut now_ms, mut runs) = (scene.now_ms, 0);
        let (changed, mut quiet_until_ms) = execute(&scene.store, now_ms).await;
        assert!(changed && quiet_until_ms <= now_ms + HOUR_MS, "what was retired is to be deleted");
        while quiet_until_ms < i64::MAX {
            assert!(quiet_until_ms > now_ms, "a run has left something to do");
            let copy = scene.store.copied().await;
            let too_early = execute(&copy, quiet_until_ms - 1).await;
            assert_eq!(too_early, (false, quiet_until_ms));
            now_ms = quiet_until_ms;
            let changed;
            (changed, quiet_until_ms) = execute(&scene.store, now_ms).await;
            assert!(changed, "nothing was due");
            runs += 1;
        }
        assert!((5..60).contains(&runs), "{runs} runs");
        assert_eq!(file_names(&scene.store).await.len(), 5, "two snapshots, and what leads on");
    });
}

#[test]
fn d02_a_file_that_stays_odd_is_nothing_to_do() {
    runtime().block_on(async {
        let scene = build(&[(1, 1, 1.0, 9); 6]).await;
        let policy = RetentionPolicy { hourly: 0, daily: 0, weekly: 0, monthly: 0 };
        let (size, metadata) = (scene.bytes[&name(4, 4)].len(), Metadata::new());
        let zeros = vec![0; size].into();
        scene.store.put(&key(4, 4), zeros, &metadata, &Condition::None).await.unwrap();
        let retention = plan(&scene.store, &policy, scene.now_ms).await;
        let now = at(scene.now_ms);
        let report = retention.execute(&scene.store, Duration::ZERO, &|| now).await.unwrap();
        assert_eq!((report.problems.len(), report.merged.len()), (1, 2));
        assert_eq!(report.quiet_until_ms, i64::MAX);
    });
}

#[test]
fn c07_nothing_happens_on_a_listing_that_lacks_files_or_is_empty() {
    runtime().block_on(async {
        let scene = build(&[(0, 1, 10.0, 9), (1, 1, 1.0, 9), (0, 1, 60.0, 9)]).await;
        let policy = RetentionPolicy { hourly: 0, daily: 0, weekly: 0, monthly: 0 };
        let lacking = scene.store.copied().await;
        lacking.delete(&[key(3, 3)]).await.unwrap();
        let before = file_names(&lacking).await;
        let refused =
            walrust_history::Retention::plan(&lacking, NAME, &policy, at(scene.now_ms)).await;
        let refused = refused.unwrap_err();
        assert!(
            matches!(&refused, HistoryError::FilesMissing { file, .. }
            if *file == name(3, 3).to_string()),
            "{refused}"
        );
        assert_eq!(file_names(&lacking).await, before);

        let keys: Vec<String> = before.iter().map(|name| format!("{NAME}/{name}")).collect();
        lacking.delete(&keys).await.unwrap();
        let refused =
            walrust_history::Retention::plan(&lacking, NAME, &policy, at(scene.now_ms)).await;
        assert!(matches!(refused, Err(HistoryError::FilesMissing { .. })));
        lacking.delete(&[manifest_key(NAME)]).await.unwrap();
        let refused =
            walrust_history::Retention::plan(&lacking, NAME, &policy, at(scene.now_ms)).await;
        assert!(matches!(refused, Err(HistoryError::UnknownName { .. })));
    });
}

#[test]
fn after_another_writer_took_the_name_over_nothing_more_is_done() {
    runtime().block_on(async {
        let scene = build(&[(0, 1, 10.0, 9), (1, 1, 1.0, 9), (0, 1, 60.0, 9)]).await;
        let store = &scene.store;
        let policy = RetentionPolicy { hourly: 0, daily: 0, weekly: 0, monthly: 0 };
        let retention = plan(store, &policy, scene.now_ms).await;
        let mut theirs = manifest(store).await;
        theirs.writer.id = "ef".repeat(16);
        theirs.writer.epoch += 1;
        let (key, body) = (manifest_key(NAME), theirs.to_bytes().into());
        store.put(&key, body, &Metadata::new(), &Condition::None).await.unwrap();
        let before = file_names(store).await;
        let stopped = retention.execute(store, Duration::ZERO, &|| at(scene.now_ms)).await;
        assert!(matches!(stopped, Err(HistoryError::Superseded { epoch: 2, .. })), "{stopped:?}");
        let now = file_names(store).await;
        assert!(before.iter().all(|name| now.contains(name)), "nothing was deleted");
        assert_eq!(manifest(store).await, theirs);
    });
}

#[test]
fn entries_that_others_add_meanwhile_stay() {
    runtime().block_on(async {
        let mut scene = build(&[(0, 1, 10.0, 9), (1, 1, 1.0, 9), (0, 1, 60.0, 9)]).await;
        let policy = RetentionPolicy { hourly: 0, daily: 0, weekly: 0, monthly: 0 };
        let retention = plan(&scene.store, &policy, scene.now_ms).await;
        scene.commit(1, true).await;
        scene.write_manifest().await;
        let head = scene.head;
        retention.execute(&scene.store, Duration::ZERO, &|| at(scene.now_ms)).await.unwrap();
        let listed = manifest(&scene.store).await;
        let names: Vec<_> = listed.files.iter().filter_map(|entry| entry.file_name()).collect();
        assert!(names.contains(&name(head, head)), "{names:?}");
        assert_indexed(&scene.store).await;
    });
}

#[test]
fn a_retired_file_that_a_longer_policy_wants_is_put_back() {
    runtime().block_on(async {
        let scene = build(&[(0, 1, 30.0, 9), (0, 1, 30.0, 9), (0, 1, 30.0, 9)]).await;
        let short = RetentionPolicy { hourly: 0, daily: 0, weekly: 0, monthly: 0 };
        assert!(run(&scene.store, &short, scene.now_ms, GRACE).await);
        assert!(manifest(&scene.store).await.retired_names().contains(&name(1, 2)));
        let long = RetentionPolicy { hourly: 0, daily: 30, weekly: 0, monthly: 0 };
        let later = scene.now_ms + 2 * HOUR_MS;
        let retention = plan(&scene.store, &long, later).await;
        assert!(matches!(retention.plan.decisions[&name(1, 2)], Decision::Keep(_)));
        let report = retention.execute(&scene.store, GRACE, &|| at(later)).await.unwrap();
        assert!(report.taken_back.contains(&name(1, 2)));
        let listed = manifest(&scene.store).await;
        assert!(listed.files.iter().any(|entry| entry.file_name() == Some(name(1, 2))));
        assert!(!listed.retired_names().contains(&name(1, 2)));
        assert!(run(&scene.store, &long, later + 2 * HOUR_MS, GRACE).await);
        assert!(file_names(&scene.store).await.contains(&name(1, 2)));
        assert_eq!(restore(&scene.store, txid(2)).await, scene.states[&2]);
    });
}

#[test]
fn two_edits_of_a_manifest_at_once_are_both_made() {
    runtime().block_on(async {
        let scene = build(&[(0, 1, 1.0, 9), (0, 1, 1.0, 9)]).await;
        let writer = manifest(&scene.store).await.writer;
        let retire = |name: FileName| {
            let (store, writer) = (&scene.store, &writer);
            async move {
                let names = BTreeSet::from([name]);
                edit_manifest(store, NAME, writer, |it| it.retire(&names, "now")).await.unwrap()
            }
        };
        tokio::join!(retire(name(2, 2)), retire(name(3, 3)));
        let retired = manifest(&scene.store).await.retired_names();
        assert_eq!(retired, BTreeSet::from([name(2, 2), name(3, 3)]));
    });
}

#[test]
fn c07_files_whose_merged_file_vanished_are_not_deleted() {
    runtime().block_on(async {
        let steps = [(1, 1, 1.0, 9), (1, 1, 1.0, 9), (1, 1, 1.0, 9), (1, 1, 1.0, 9)];
        let (scene, policy) = (build(&steps).await, RetentionPolicy { hourly: 0, ..POLICY });
        assert!(run(&scene.store, &policy, scene.now_ms, GRACE).await);
        let retired = manifest(&scene.store).await.retired_names();
        assert_eq!(retired, (2..=4).map(|it| name(it, it)).collect());
        // Somebody deletes the merged file and corrects the manifest; and it cannot be made again.
        let store = &scene.store;
        store.delete(&[key(2, 4)]).await.unwrap();
        let writer = manifest(store).await.writer;
        let forget = |manifest: &mut walrust_engine::manifest::Manifest| {
            manifest.files.retain(|entry| entry.file_name() != Some(name(2, 4)));
        };
        edit_manifest(store, NAME, &writer, forget).await.unwrap();
        let size = store.get(&key(3, 3)).await.unwrap().meta.size;
        let (zeros, metadata) = (vec![0; usize::try_from(size).unwrap()], Metadata::new());
        store.put(&key(3, 3), zeros.into(), &metadata, &Condition::None).await.unwrap();
        assert!(run(store, &policy, scene.now_ms + 9 * HOUR_MS, GRACE).await);
        let left: BTreeSet<FileName> = file_names(store).await.into_iter().collect();
        assert!(left.is_superset(&retired), "{left:?}");
    });
}

#[test]
fn a_history_that_is_seen_under_another_name_is_kept_as_well() {
    runtime().block_on(async {
        let scene = build(&[(1, 1, 1.0, 9), (1, 1, 1.0, 9), (1, 1, 1.0, 9)]).await;
        let store = &scene.store;
        let mut moved = manifest(store).await;
        moved.name = "app".to_owned();
        let (key, body) = (manifest_key(NAME), moved.to_bytes().into());
        store.put(&key, body, &Metadata::new(), &Condition::None).await.unwrap();
        let policy = RetentionPolicy { hourly: 0, ..POLICY };
        assert!(run(store, &policy, scene.now_ms, Duration::ZERO).await);
        assert_eq!(file_names(store).await, [name(1, 1), name(2, 3), name(4, 4)]);
        assert_indexed(store).await;
        assert_eq!(store.list("app/", None).await.unwrap(), []);
    });
}
