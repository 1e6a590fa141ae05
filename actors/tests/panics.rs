//! What panics or stands still outside of the actors: threads, tasks, blocking jobs.
//!
//! Crash points are global to the process: nextest gives every test its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use walrust_actors::{DatabasePhase, DatabaseStatus, Replicator, Settings};
use walrust_engine::RestartSettings;
use walrust_testkit::{TestDatabase, Workload};

use crate::crashes::count_deaths;
use crate::scene::{PATIENCE, Scene, shut_down, status_of, wait_for_phase, wait_for_status};

/// A tree that restarts what dies soon.
fn settings(scene: &Scene) -> Settings {
    let base_delay = Duration::from_millis(1);
    let restart = RestartSettings { base_delay, ..RestartSettings::default() };
    Settings { restart, ..scene.settings() }
}

async fn wait_for_death(deaths: &AtomicUsize) {
    let began = Instant::now();
    while deaths.load(Ordering::SeqCst) == 0 {
        assert!(began.elapsed() < PATIENCE, "no actor died");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The only way to hear of a commit, without asking for a sync, is the watcher.
async fn assert_noticed(scene: &Scene, replicator: &Replicator) {
    let before = wait_for_status(replicator, "a", |status| status.up_to_date).await.txid;
    scene.commit(0);
    wait_for_status(replicator, "a", |status| status.txid > before && status.up_to_date).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e08_a_thread_of_the_watcher_that_panics_is_replaced() {
    let deaths = count_deaths();
    let scene = Scene::new(1);
    let replicator = scene.start_with(settings(&scene)).await;
    assert_noticed(&scene, &replicator).await;
    // Nothing comes or goes from now on, so that nobody would find out by a message to it.
    fail::cfg("watcher::sweep", "1*panic->off").unwrap();
    wait_for_death(&deaths).await;
    assert_noticed(&scene, &replicator).await;
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e08_an_opening_that_panics_is_told_and_tried_again() {
    let scene = Scene::new(1);
    fail::cfg("database::opening", "panic").unwrap();
    let replicator = scene.start_with(settings(&scene)).await;
    let status = wait_for_phase(&replicator, "a", DatabasePhase::Degraded).await;
    assert!(status.last_error.is_some_and(|error| error.contains("panicked")));
    fail::remove("database::opening");
    wait_for_phase(&replicator, "a", DatabasePhase::Replicating).await;
    assert_noticed(&scene, &replicator).await;
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

/// Waits until one of two databases is in its second incarnation; that one, and the other.
async fn wait_for_either_incarnation<'a>(
    replicator: &Replicator,
    [one, other]: [&'a str; 2],
) -> (&'a str, &'a str) {
    let began = Instant::now();
    loop {
        for (name, other) in [(one, other), (other, one)] {
            if status_of(replicator, name).await.incarnation == 2 {
                return (name, other);
            }
        }
        assert!(began.elapsed() < PATIENCE, "no actor died");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e08_a_job_that_panics_costs_its_actor_and_nothing_else() {
    let scene = Scene::new(2);
    let replicator = scene.start_with(settings(&scene)).await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    wait_for_status(&replicator, "b", |status| status.up_to_date).await;
    fail::cfg("database::short_job", "1*panic->off").unwrap();
    scene.commit(0);
    // It may be the other one: the watcher has everybody look at files that are so young.
    let (dead, other) = wait_for_either_incarnation(&replicator, ["a", "b"]).await;
    let revived = |status: &DatabaseStatus| {
        status.incarnation == 2 && status.up_to_date && status.phase == DatabasePhase::Replicating
    };
    wait_for_status(&replicator, dead, revived).await;
    assert_noticed(&scene, &replicator).await;
    assert_eq!(status_of(&replicator, other).await.incarnation, 1);
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b10_large_databases_that_are_read_as_a_whole_hold_up_no_small_one() {
    let mut scene = Scene::new(1);
    let blobs = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 36)
                 INSERT INTO extra SELECT zeroblob(1000000) FROM n";
    // As many as there are threads for jobs.
    for (name, seed) in [("x", 1), ("y", 2), ("z", 3)] {
        let database = TestDatabase::with_history(4096, seed, 1);
        database.run("CREATE TABLE extra (x)");
        database.run(blobs);
        scene.databases.push((name.to_owned(), database, Workload::new(seed)));
    }
    fail::cfg("database::long_job", "pause").unwrap();
    let replicator = scene.start().await;
    for _ in 0..3 {
        assert_noticed(&scene, &replicator).await;
    }
    for name in ["x", "y", "z"] {
        assert_eq!(status_of(&replicator, name).await.txid, None, "{name} is being read");
    }
    fail::remove("database::long_job");
    let began = Instant::now();
    for name in ["x", "y", "z"] {
        while !status_of(&replicator, name).await.up_to_date {
            // That is a lot to read for a busy machine.
            assert!(began.elapsed() < 3 * PATIENCE, "{name} is not read");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    shut_down(replicator).await;
    scene.assert_restorable().await;
}
