//! What a look at a history finds while others change it, and at random histories.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use walrust_engine::RetentionPolicy;
use walrust_history::{Problem, Severity, Verification, Verify, VerifyOptions};
use walrust_storage::ObjectStore;

use crate::crashing_store::CrashingStore;
use crate::retention::runtime;
use crate::scene::{NAME, Scene, at, key, plan};
use crate::through::{Through, Way};

const MERGE_ALL: RetentionPolicy = RetentionPolicy { hourly: 0, daily: 0, weekly: 0, monthly: 0 };

async fn history() -> (Scene, Arc<CrashingStore>) {
    let mut scene = Scene::begin("2026-12-31T22:00:00Z").await;
    for number in 1..=9 {
        scene.now_ms += 1000;
        scene.commit(number % 3 + 1, true).await;
        if number % 4 == 0 {
            scene.snapshot(true).await;
        }
    }
    scene.write_manifest().await;
    let store = Arc::new(scene.store.copied().await);
    (scene, store)
}

async fn begin(store: &Arc<CrashingStore>) -> Verify {
    Verify::begin(store.as_ref(), NAME).await.unwrap()
}

async fn run(verify: Verify, store: &Arc<CrashingStore>) -> Verification {
    let store: Arc<dyn ObjectStore> = store.clone();
    verify.run(&store, &VerifyOptions::default(), |_| {}).await.unwrap()
}

fn problems(verification: &Verification) -> Vec<String> {
    let finding = |it: &walrust_history::Finding| format!("{}: {}", it.key, it.problem);
    verification.findings.iter().map(finding).collect()
}

#[test]
fn files_that_are_merged_while_they_are_read_are_no_loss() {
    runtime().block_on(async {
        let (scene, store) = history().await;
        let verify = begin(&store).await;
        let retention = plan(&store, &MERGE_ALL, scene.now_ms).await;
        let report = retention.execute(store.as_ref(), Duration::ZERO, &|| at(scene.now_ms)).await;
        assert!(report.unwrap().deleted.len() > 5);
        let verification = run(verify, &store).await;
        assert_eq!(problems(&verification), [""; 0]);
        assert!(verification.files.len() < 5, "it has looked at the history as it is now");
    });
}

/// A store that goes on from one state to the next with each listing: what is listed is of one, and the
/// files that are read then are of the next.
#[derive(Debug)]
struct Moving {
    states: Vec<Arc<CrashingStore>>,
    listings: AtomicUsize,
}

impl Way for Moving {
    fn store(&self) -> &CrashingStore {
        let listings = self.listings.load(Ordering::SeqCst);
        &self.states[listings.min(self.states.len() - 1)]
    }

    fn listed(&self) {
        self.listings.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_history_that_is_merged_at_each_look_is_no_loss_and_what_is_lost_is_one() {
    for lost in [false, true] {
        runtime().block_on(async {
            let mut scene = Scene::begin("2026-12-31T22:00:00Z").await;
            let mut states = Vec::new();
            for _ in 0..12 {
                for _ in 0..4 {
                    scene.now_ms += 1000;
                    scene.commit(1, true).await;
                }
                scene.write_manifest().await;
                let store = scene.store.copied().await;
                if lost {
                    store.delete(&[key(3, 3)]).await.unwrap();
                    states.push(Arc::new(store));
                    continue;
                }
                states.push(Arc::new(store));
                let (merged, now) = (scene.store.copied().await, at(scene.now_ms));
                let retention = plan(&merged, &MERGE_ALL, scene.now_ms).await;
                retention.execute(&merged, Duration::ZERO, &|| now).await.unwrap();
                states.push(Arc::new(merged));
            }
            let store: Arc<dyn ObjectStore> =
                Arc::new(Through(Moving { states, listings: AtomicUsize::new(0) }));
            let verify = Verify::begin(store.as_ref(), NAME).await.unwrap();
            let verified = verify.run(&store, &VerifyOptions::default(), |_| {}).await.unwrap();
            if lost {
                let is_lost = |it: &walrust_history::Finding| it.key == key(3, 3);
                assert!(verified.findings.iter().any(is_lost), "{:?}", problems(&verified));
            } else {
                assert_ne!(
                    verified.severity(),
                    Some(Severity::Critical),
                    "{:?}",
                    problems(&verified)
                );
            }
        });
    }
}

#[test]
fn a_file_that_vanishes_while_files_are_read_is_a_loss() {
    runtime().block_on(async {
        let (_scene, store) = history().await;
        let verify = begin(&store).await;
        store.delete(&[key(2, 3)]).await.unwrap();
        let verification = run(verify, &store).await;
        assert_eq!(verification.severity(), Some(Severity::Critical));
        let is_missing = |it: &walrust_history::Finding| {
            it.key == key(2, 3) && matches!(it.problem, Problem::Missing)
        };
        assert!(verification.findings.iter().any(is_missing), "{:?}", problems(&verification));
    });
}

#[test]
fn retired_files_may_be_there_or_not() {
    runtime().block_on(async {
        let (scene, store) = history().await;
        let retention = plan(&store, &MERGE_ALL, scene.now_ms).await;
        let hour = Duration::from_secs(3600);
        let report = retention.execute(store.as_ref(), hour, &|| at(scene.now_ms)).await.unwrap();
        assert!(report.deleted.is_empty() && report.retired.len() > 5);
        assert_eq!(problems(&run(begin(&store).await, &store).await), [""; 0]);
        let retired: Vec<String> =
            report.retired.iter().map(|name| format!("{NAME}/{name}")).collect();
        store.delete(&retired).await.unwrap();
        assert_eq!(problems(&run(begin(&store).await, &store).await), [""; 0]);
    });
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_history_that_only_grew_passes_at_every_step_of_its_retention(
        steps in prop::collection::vec((0u8..6, 1u64..4), 1..25),
        grace in 0u64..2,
    ) {
        runtime().block_on(async {
            let mut scene = Scene::begin("2026-12-31T22:00:00Z").await;
            for (step, number) in steps {
                scene.now_ms += 1_000_000;
                match step {
                    0 => scene.snapshot(true).await,
                    1 => scene.wait_hours(number as f64),
                    _ => scene.commit(number, true).await,
                }
            }
            scene.write_manifest().await;
            let policy = RetentionPolicy { hourly: 1, daily: 1, weekly: 0, monthly: 0 };
            // The user of the store dies after each of its changes.
            for changes in 0.. {
                let store = Arc::new(scene.store.copied().await);
                let retention = plan(&store, &policy, scene.now_ms).await;
                store.crash_after(changes);
                let grace = Duration::from_secs(grace);
                let ended = retention.execute(store.as_ref(), grace, &|| at(scene.now_ms)).await;
                let has_crashed = store.has_crashed() && ended.is_err();
                store.recover();
                let verification = run(begin(&store).await, &store).await;
                let worst = verification.severity();
                assert!(worst != Some(Severity::Critical), "{:?}", problems(&verification));
                if !has_crashed {
                    break;
                }
            }
        });
    }
}
