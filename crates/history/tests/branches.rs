//! Histories in which two writers have continued one state.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use walrust_engine::{RestoreTarget, RetentionPolicy, StoredFile};
use walrust_history::{
    Finding, History, HistoryError, PlannedRestore, Problem, Severity, Verification, Verify,
    VerifyOptions,
};
use walrust_ltx::{FileName, Txid};
use walrust_storage::ObjectStore;

use crate::crashing_store::CrashingStore;
use crate::retention::runtime;
use crate::scene::{NAME, Scene, apply, at, file_names, manifest, name, plan, txid};

const MERGE_ALL: RetentionPolicy = RetentionPolicy { hourly: 0, daily: 0, weekly: 0, monthly: 0 };

/// A history up to TXID 4, what a killed process had sent behind it, which its manifest knows or not,
/// and what its successor has begun there a second later.
async fn two_branches(indexed: bool) -> Scene {
    let mut scene = Scene::begin("2026-12-31T22:00:00Z").await;
    scene.commit(3, true).await;
    scene.now_ms += 1000;
    scene.commit(8, indexed).await;
    scene.go_back(4);
    scene.now_ms += 1000;
    scene.commit(1, true).await;
    scene.write_manifest().await;
    scene
}

async fn newest(store: &CrashingStore) -> Txid {
    let planned = PlannedRestore::plan(store, NAME, RestoreTarget::Latest).await.unwrap();
    planned.plan.head
}

/// Asserts that the newest state, and each that can be restored, is one of the branch that goes on.
async fn assert_restored(scene: &Scene) {
    assert_eq!(newest(&scene.store).await, txid(scene.head));
    let history = History::read(&scene.store, NAME).await.unwrap();
    for txid in walrust_engine::restorable_txids(&history.tree) {
        let target = RestoreTarget::Txid(txid);
        let planned = PlannedRestore::plan(&scene.store, NAME, target).await.unwrap();
        let restored = apply(&scene.store, &planned.plan).await;
        assert!(restored == scene.states[&txid.get()], "TXID {txid} is of another branch");
    }
}

fn names(files: &[StoredFile]) -> Vec<FileName> {
    files.iter().map(|file| file.name).collect()
}

#[test]
fn the_newest_state_is_that_of_the_branch_that_goes_on() {
    for indexed in [false, true] {
        runtime().block_on(async {
            let mut scene = two_branches(indexed).await;
            let history = History::read(&scene.store, NAME).await.unwrap();
            assert_eq!(names(&history.abandoned), [name(5, 12)]);
            assert_restored(&scene).await;
            let late = PlannedRestore::plan(&scene.store, NAME, RestoreTarget::Txid(txid(12)));
            assert!(matches!(late.await, Err(HistoryError::Unavailable { .. })));
            // On beyond the TXIDs of the other branch, with a file that begins where it ends.
            for commits in [4, 3, 2] {
                scene.now_ms += 1000;
                scene.commit(commits, false).await;
                assert_restored(&scene).await;
            }
        });
    }
}

#[test]
fn who_has_continued_the_late_upload_has_made_it_the_branch_that_goes_on() {
    runtime().block_on(async {
        let mut scene = two_branches(false).await;
        scene.go_back(12);
        scene.now_ms += 1000;
        scene.commit(1, false).await;
        let history = History::read(&scene.store, NAME).await.unwrap();
        assert_eq!(names(&history.abandoned), [name(5, 5)]);
        assert_restored(&scene).await;
    });
}

/// The TXID of the state at a time, or why there is none.
async fn state_at(store: &CrashingStore, time_ms: i64) -> Result<u64, HistoryError> {
    let time = Timestamp::from_millisecond(time_ms).unwrap();
    Ok(PlannedRestore::plan_at(store, NAME, time).await?.plan.head.get())
}

#[test]
fn c09_a_time_whose_state_was_left_behind_gets_no_older_one() {
    runtime().block_on(async {
        let mut scene = Scene::begin("2026-01-01T00:00:00Z").await;
        scene.commit(4, true).await;
        let t0 = scene.now_ms;
        let (t1, t2, t3) = (t0 + 1000, t0 + 2000, t0 + 3000);
        scene.now_ms = t1;
        scene.commit(5, false).await;
        scene.go_back(5);
        scene.now_ms = t2;
        scene.commit(1, true).await;
        scene.write_manifest().await;
        let refused = async |scene: &Scene, time, left: u64, sides: [u64; 2]| {
            let error = state_at(&scene.store, time).await.unwrap_err();
            let HistoryError::Unavailable { why, neighbours, .. } = &error else {
                panic!("{error}")
            };
            let left = txid(left);
            assert!(why.contains(&format!("TXID {left}")) && why.contains("left behind"), "{why}");
            let found = [neighbours.before, neighbours.after].map(|it| it.unwrap().txid.get());
            assert_eq!(found, sides);
        };
        assert_eq!(state_at(&scene.store, t1 - 1).await.unwrap(), 5);
        refused(&scene, t1, 10, [5, 6]).await;
        refused(&scene, t2 - 1, 10, [5, 6]).await;
        assert_eq!(state_at(&scene.store, t2).await.unwrap(), 6);
        assert_eq!(state_at(&scene.store, t3).await.unwrap(), 6);

        // The daemon finds the late upload and goes on behind it, with what it had confirmed.
        scene.go_back(10);
        scene.now_ms = t3;
        scene.commit(1, true).await;
        scene.write_manifest().await;
        assert_eq!(state_at(&scene.store, t1).await.unwrap(), 10);
        assert_eq!(state_at(&scene.store, t2 - 1).await.unwrap(), 10);
        refused(&scene, t2, 6, [10, 11]).await;
        refused(&scene, t3 - 1, 6, [10, 11]).await;
        assert_eq!(state_at(&scene.store, t3).await.unwrap(), 11);

        let history = History::read(&scene.store, NAME).await.unwrap();
        let ranges = history.restorable_ranges(&scene.store).await.unwrap();
        let ends = ranges.iter().map(|range| (range.first.txid.get(), range.last.txid.get()));
        assert_eq!(ends.collect::<Vec<_>>(), [(1, 10), (11, 11)]);
    });
}

#[test]
fn retention_keeps_what_goes_on_and_leaves_the_other_branch_alone() {
    runtime().block_on(async {
        let mut scene = two_branches(true).await;
        for commits in [4, 3, 2] {
            scene.now_ms += 1000;
            scene.commit(commits, true).await;
        }
        scene.snapshot(true).await;
        scene.now_ms += 1000;
        scene.commit(2, true).await;
        scene.write_manifest().await;
        for _ in 0..3 {
            let retention = plan(&scene.store, &MERGE_ALL, scene.now_ms).await;
            assert_eq!(retention.problems.len(), 0, "{:?}", retention.problems);
            let now = || at(scene.now_ms);
            let report = retention.execute(&scene.store, Duration::ZERO, &now).await.unwrap();
            assert_eq!(report.problems.len(), 0, "{:?}", report.problems);
            assert_restored(&scene).await;
        }
        let left = file_names(&scene.store).await;
        assert!(left.contains(&name(5, 12)), "{left:?}");
        assert!(!left.contains(&name(5, 5)), "nothing was merged: {left:?}");
    });
}

async fn verify(store: &Arc<CrashingStore>) -> Verification {
    let verify = Verify::begin(store.as_ref(), NAME).await.unwrap();
    let store: Arc<dyn ObjectStore> = store.clone();
    verify.run(&store, &VerifyOptions::default(), |_| {}).await.unwrap()
}

#[test]
fn verify_warns_of_a_branch_that_was_left_behind_and_takes_it_out_of_the_manifest() {
    for indexed in [false, true] {
        runtime().block_on(async {
            let mut scene = two_branches(indexed).await;
            for _ in 0..2 {
                let store = Arc::new(scene.store.copied().await);
                let mut found = verify(&store).await;
                assert_eq!(found.severity(), Some(Severity::Warning), "{:?}", found.findings);
                assert_eq!(found.head, Some(txid(scene.head)));
                assert!(found.findings.iter().all(|it| it.key == crate::scene::key(5, 12)));
                let before = manifest(&store).await;
                let repaired = found.repair_index(store.as_ref()).await.unwrap();
                assert_eq!(repaired.len(), usize::from(indexed), "{repaired:?}");
                let is_entry = |it: &Finding| matches!(it.problem, Problem::AbandonedEntry);
                assert!(repaired.iter().all(is_entry), "{repaired:?}");
                let [finding] = &found.findings[..] else { panic!("{:?}", found.findings) };
                assert!(matches!(finding.problem, Problem::Abandoned), "{finding:?}");
                let mut wanted = before;
                wanted.files.retain(|entry| entry.file_name() != Some(name(5, 12)));
                assert_eq!(manifest(&store).await, wanted);
                assert!(file_names(&store).await.contains(&name(5, 12)), "no file is touched");
                // Whoever deletes the file now, as it is told, leaves nothing that is missing.
                store.delete(&[crate::scene::key(5, 12)]).await.unwrap();
                assert_eq!(verify(&store).await.severity(), None);
                plan(&store, &MERGE_ALL, scene.now_ms).await;
                scene.commit(12, true).await;
                scene.write_manifest().await;
            }
        });
    }
}
