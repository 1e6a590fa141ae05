//! The daemon keeps its histories, and leaves alone what does not change.

use std::time::{Duration, Instant};

use walrust_actors::Settings;
use walrust_engine::RetentionPolicy;
use walrust_storage::{Condition, Metadata, ObjectStore};

use crate::scene::{PATIENCE, Scene, shut_down, wait_for_status};
use crate::snapshots::wait_for_snapshots;

const INTERVAL: Duration = Duration::from_millis(50);

/// Settings under which all but the newest states are merged or removed.
fn settings(scene: &Scene) -> Settings {
    // What is stored while a manifest is written comes with the next one.
    let mut settings = Settings { manifest_interval: INTERVAL, ..scene.settings() };
    for database in &mut settings.databases {
        database.snapshot.max_changes = 5;
        database.compaction.interval = INTERVAL;
        database.compaction.policy = RetentionPolicy { hourly: 0, daily: 0, weekly: 0, monthly: 0 };
    }
    settings
}

/// Waits until nothing was asked of storage for ten intervals.
async fn wait_for_silence(scene: &Scene) {
    let began = Instant::now();
    loop {
        let before = scene.store.requests();
        tokio::time::sleep(10 * INTERVAL).await;
        if scene.store.requests() == before {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "requests for databases that do not change");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_are_kept_short_and_a_database_that_does_not_change_costs_no_request() {
    let mut scene = Scene::new(3);
    let replicator = scene.start_with(settings(&scene)).await;
    for _ in 0..2 {
        for _ in 0..12 {
            scene.write(1);
            for (name, ..) in &scene.databases {
                replicator.sync(name).await.unwrap();
            }
        }
        let began = Instant::now();
        loop {
            wait_for_silence(&scene).await;
            // On a busy machine it may be silent before all is done.
            let Err(problem) = short_histories(&scene).await else { break };
            assert!(began.elapsed() < PATIENCE, "{problem}");
        }
        scene.assert_restorable().await;
    }
    shut_down(replicator).await;
}

/// Whether of each history only the newest states are left, or what else there is.
async fn short_histories(scene: &Scene) -> Result<(), String> {
    for (name, ..) in &scene.databases {
        let (tree, manifest) = (scene.tree(name).await, scene.manifest(name).await);
        let missing = manifest.missing_from(&tree);
        let snapshots = tree.files.iter().filter(|file| file.name.is_snapshot()).count();
        if !missing.is_empty() || !manifest.retired.is_empty() || snapshots != 2 {
            let (retired, files) = (manifest.retired, tree.files);
            return Err(format!("{name}: missing {missing:?}, retired {retired:?}, {files:?}"));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_cannot_be_looked_at_holds_up_neither_others_nor_uploads() {
    let mut scene = Scene::new(2);
    let replicator = scene.start_with(settings(&scene)).await;
    for (name, ..) in &scene.databases {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    scene.manifest("a").await;
    // The manifest lists what is not there: nothing of the history may be touched, for ever.
    let first = scene.tree("a").await.files[0].key.clone();
    scene.store.delete(&[first]).await.unwrap();
    for _ in 0..12 {
        scene.write(1);
        for (name, ..) in &scene.databases {
            replicator.sync(name).await.unwrap();
        }
    }
    wait_for_snapshots(&scene, "a", 1).await;
    let began = Instant::now();
    while scene.tree("b").await.files.len() > 12 {
        assert!(began.elapsed() < PATIENCE, "the history of b is not kept short");
        tokio::time::sleep(INTERVAL).await;
    }
    assert!(scene.tree("a").await.files.len() > 12);
    // A history that is being kept short may lose a file between a plan and its restore.
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c08_an_odd_file_of_a_busy_database_is_fetched_once() {
    let scene = Scene::new(1);
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    for _ in 0..6 {
        scene.commit(0);
        replicator.sync("a").await.unwrap();
    }
    shut_down(replicator).await;
    let incrementals = scene.tree("a").await.files;
    let odd = incrementals.iter().filter(|it| !it.name.is_snapshot()).nth(2).unwrap().key.clone();
    let zeros = vec![0; scene.store.head(&odd).await.unwrap().size as usize].into();
    scene.store.put(&odd, zeros, &Metadata::new(), &Condition::None).await.unwrap();

    let mut settings = Settings { manifest_interval: INTERVAL / 5, ..settings(&scene) };
    settings.databases[0].snapshot.max_changes = 0;
    let replicator = scene.start_with(settings).await;
    for _ in 0..6 {
        scene.commit(0);
        replicator.sync("a").await.unwrap();
        // The snapshot, what is before it, the odd file, what is after it, and the newest.
        let began = Instant::now();
        while scene.tree("a").await.files.len() > 5 {
            assert!(began.elapsed() < PATIENCE, "the history is not kept short");
            tokio::time::sleep(INTERVAL / 5).await;
        }
    }
    assert_eq!(scene.store.fetches(&odd), 1);
    shut_down(replicator).await;
}
