//! Two runs of the retention at once, interleaved at every request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use proptest::prelude::*;
use walrust_engine::RetentionPolicy;
use walrust_history::{HistoryError, Retention, RetentionReport};
use walrust_ltx::Txid;

use crate::crashing_store::CrashingStore;
use crate::retention::{GRACE, POLICY, runtime};
use crate::scene::{HOUR_MS, NAME, Scene, assert_indexed, at, manifest, plan};
use crate::through::Through;
use crate::turnstile::{User, turnstile};

/// How the history was kept before.
const BEFORE: RetentionPolicy = RetentionPolicy { hourly: 12, ..POLICY };

/// One of the runs.
#[derive(Clone, Copy, Debug)]
struct Kind {
    policy: RetentionPolicy,
    now_ms: i64,
    grace: Duration,
}

/// What a run had promised, and how it ended.
#[derive(Debug)]
struct Ran {
    points: Option<BTreeSet<Txid>>,
    outcome: Result<RetentionReport, HistoryError>,
}

async fn run(user: &Through<User>, kind: Kind) -> Ran {
    let now = at(kind.now_ms);
    let ran = match Retention::plan(user, NAME, &kind.policy, now).await {
        Ok(retention) => Ran {
            points: Some(retention.plan.restore_points.clone()),
            outcome: retention.execute(user, kind.grace, &|| now).await,
        },
        Err(error) => Ran { points: None, outcome: Err(error) },
    };
    user.0.leaves();
    ran
}

/// Two runs on a copy of a history; how many requests each of them made.
async fn run_both(
    scene: &Scene,
    kinds: [Kind; 2],
    choose: impl FnMut([usize; 2]) -> usize,
) -> [usize; 2] {
    let store = Arc::new(scene.store.copied().await);
    let (users, mut turns) = turnstile(&store);
    let (requests, one, other) =
        tokio::join!(turns.run(&users, choose), run(&users[0], kinds[0]), run(&users[1], kinds[1]));
    assert_sound(scene, &store, &[one, other]).await;
    // Whoever comes next goes on.
    for hours in [1, 2] {
        let kind = Kind { now_ms: kinds[1].now_ms + hours * HOUR_MS, ..kinds[1] };
        let retention = plan(&store, &kind.policy, kind.now_ms).await;
        let points = Some(retention.plan.restore_points.clone());
        let outcome = retention.execute(store.as_ref(), kind.grace, &|| at(kind.now_ms)).await;
        let next = Ran { points, outcome };
        assert!(next.outcome.is_ok(), "{next:?}");
        assert_sound(scene, &store, &[next]).await;
    }
    assert!(manifest(&store).await.names_in_deletion().is_empty());
    requests
}

/// Asserts that everything is there that is entered, and everything that all have promised.
async fn assert_sound(scene: &Scene, store: &CrashingStore, runs: &[Ran]) {
    assert_indexed(store).await;
    for ran in runs {
        let ended = matches!(&ran.outcome, Ok(_) | Err(HistoryError::Outdated { .. }));
        assert!(ended, "{ran:?}");
    }
    let promised = runs.iter().filter_map(|ran| ran.points.clone());
    if let Some(points) = promised.reduce(|all, points| &all & &points) {
        scene.assert_restorable(store, &points).await;
    }
}

/// A history of which some was kept before.
async fn history(hours: f64) -> Scene {
    let mut scene = Scene::begin("2026-12-29T00:00:00Z").await;
    for step in 0..18 {
        scene.wait_hours(hours);
        scene.commit(1 + step % 2, true).await;
        if step % 5 == 1 {
            scene.snapshot(true).await;
        }
    }
    scene.write_manifest().await;
    let earlier = scene.now_ms - 3 * HOUR_MS;
    let retention = plan(&scene.store, &BEFORE, earlier).await;
    retention.execute(&scene.store, GRACE, &|| at(earlier)).await.unwrap();
    scene
}

fn kinds(scene: &Scene) -> [[Kind; 2]; 5] {
    let now = Kind { policy: POLICY, now_ms: scene.now_ms, grace: GRACE };
    let at_once = Kind { grace: Duration::ZERO, ..now };
    let later = Kind { now_ms: scene.now_ms + HOUR_MS, ..at_once };
    let shorter = RetentionPolicy { hourly: 2, daily: 1, weekly: 0, monthly: 0 };
    let shorter = Kind { policy: shorter, ..at_once };
    // One only deletes what was retired before, and the other wants it back.
    let deleting = Kind { policy: BEFORE, now_ms: scene.now_ms - 3 * HOUR_MS, ..at_once };
    let longer = RetentionPolicy { hourly: 99, daily: 30, weekly: 9, monthly: 9 };
    let longer = Kind { policy: longer, ..now };
    [[now, now], [at_once, at_once], [at_once, later], [now, shorter], [longer, deleting]]
}

#[test]
fn c06_c07_two_runs_that_take_turns_at_any_two_requests_lose_nothing() {
    runtime().block_on(async {
        let scene = history(3.1).await;
        assert!(!manifest(&scene.store).await.retired.is_empty(), "there is something to delete");
        for kinds in kinds(&scene) {
            let [one, _] = run_both(&scene, kinds, |_| 0).await;
            let [_, other] = run_both(&scene, kinds, |_| 1).await;
            assert!(one >= 4 && other >= 7, "{one} and {other} requests are no test");
            // The first makes some, then the other makes some, then each goes on to its end.
            let pairs = (1..=one).flat_map(|first| (1..=other).map(move |second| (first, second)));
            let runs = pairs.map(|(first, second)| {
                let turn =
                    move |[one, other]: [usize; 2]| usize::from(one >= first && other < second);
                run_both(&scene, kinds, turn)
            });
            // Some of them wait a little now and then.
            futures_util::stream::iter(runs).buffer_unordered(32).for_each(async |_| {}).await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn c06_c07_two_runs_in_any_order_lose_nothing(
        hours in 0.5..5.0f64,
        which in 0usize..5,
        turns in proptest::collection::vec(0usize..2, 1..40),
    ) {
        runtime().block_on(async {
            let scene = history(hours).await;
            let mut turns = turns.iter().copied().cycle();
            run_both(&scene, kinds(&scene)[which], |_| turns.next().unwrap_or_default()).await;
        });
    }
}
