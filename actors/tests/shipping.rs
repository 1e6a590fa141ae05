//! The path of a commit when nothing fails.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use walrust_actors::{DatabasePhase, Settings};
use walrust_engine::CheckpointSettings;
use walrust_engine::manifest::Manifest;

use crate::resting::{self, count_rests, touch_wal, wait_for_rests};
use crate::scene::{PATIENCE, Scene, shut_down, status_of, wait_for_phase, wait_for_status};

#[tokio::test(flavor = "multi_thread")]
async fn several_databases_are_shipped_and_come_back_equal() {
    let mut scene = Scene::new(5);
    let replicator = scene.start().await;
    for _ in 0..10 {
        scene.write(5);
    }
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_goes_on_where_the_first_one_stopped() {
    let mut scene = Scene::new(2);
    shut_down(scene.start().await).await;
    scene.write(10);
    let replicator = scene.start().await;
    scene.write(10);
    shut_down(replicator).await;
    scene.assert_restorable().await;
    for name in ["a", "b"] {
        let tree = scene.tree(name).await;
        let snapshots = tree.files.iter().filter(|file| file.name.is_snapshot()).count();
        assert_eq!(snapshots, 1, "the second start needs no snapshot");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_after_a_quiet_spell_goes_at_once_and_the_next_waits_for_the_interval() {
    let mut scene = Scene::new(1);
    shut_down(scene.start().await).await;
    scene.sync_interval = Duration::from_secs(3600);
    let replicator = scene.start().await;
    wait_for_phase(&replicator, "a", DatabasePhase::Replicating).await;
    scene.commit(0);
    let first =
        wait_for_status(&replicator, "a", |status| status.txid.is_some_and(|txid| txid.get() > 1))
            .await;
    let shipped = scene.store.uploads("a").len();
    scene.commit(0);
    scene.commit(0);
    // The commits are seen, and wait.
    wait_for_status(&replicator, "a", |status| !status.up_to_date).await;
    assert_eq!(scene.store.uploads("a").len(), shipped);
    assert_eq!(status_of(&replicator, "a").await.txid, first.txid);
    shut_down(replicator).await;
    assert_eq!(scene.store.uploads("a").len(), shipped + 1, "both went together at the end");
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steady_writes_make_at_most_one_upload_per_interval() {
    let mut scene = Scene::new(1);
    scene.sync_interval = Duration::from_millis(300);
    let began = Instant::now();
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.txid.is_some()).await;
    while scene.store.uploads("a").len() < 8 {
        scene.commit(0);
        assert!(began.elapsed() < PATIENCE, "it does not keep shipping");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // One upload may take longer than the next, so all are measured from the beginning.
    for (intervals, at) in (0..).zip(scene.store.uploads("a")) {
        let least = intervals * scene.sync_interval;
        assert!(at - began >= least, "{intervals} and the snapshot within {:?}", at - began);
    }
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_databases_cost_no_requests() {
    let rests = count_rests();
    let scene = Scene::new(3);
    let replicator = scene.start_with(resting::settings(&scene)).await;
    for (name, ..) in &scene.databases {
        wait_for_rests(&rests, name, 1).await;
    }
    let requests = scene.store.requests();
    // Somebody looks at each of them again, and finds nothing.
    for (index, (name, ..)) in scene.databases.iter().enumerate() {
        let before = rests.of(name);
        touch_wal(&scene.path(index));
        wait_for_rests(&rests, name, before + 1).await;
        assert_eq!(scene.store.requests(), requests, "a look costs none");
    }
    shut_down(replicator).await;
    assert_eq!(scene.store.requests(), requests, "nor does the end of an idle database");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wal_is_checkpointed_once_it_is_shipped_and_restarts() {
    let mut scene = Scene::new(1);
    scene.checkpoint = CheckpointSettings {
        min_pages: 20,
        interval: Duration::ZERO,
        ..CheckpointSettings::default()
    };
    scene.databases[0].1.run("PRAGMA wal_autocheckpoint = 0");
    // The checkpoint comes right behind the sync. A commit at once would keep it from being complete.
    let rests = count_rests();
    let quick = Duration::from_millis(10);
    let settings = Settings { rest_after: quick, manifest_interval: quick, ..scene.settings() };
    let replicator = scene.start_with(settings).await;
    wait_for_status(&replicator, "a", |status| status.txid.is_some()).await;
    let wal = walrust_sqlite::sidecar(&scene.path(0), "-wal");
    // The salts of the WAL, which every restart changes.
    let salts = || std::fs::read(&wal).unwrap().get(16..24).map(<[u8]>::to_vec);
    let first = salts();
    let began = Instant::now();
    while salts() == first {
        let before = rests.of("a");
        scene.commit(0);
        replicator.sync("a").await.unwrap();
        wait_for_rests(&rests, "a", before + 1).await;
        assert!(began.elapsed() < PATIENCE, "each of them has frames, and 20 are enough");
    }
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_taken_beside_the_history_and_once_per_state() {
    let mut scene = Scene::new(1);
    let replicator = scene.start().await;
    scene.write(10);
    let txid = replicator.snapshot("a").await.unwrap();
    assert_eq!(replicator.snapshot("a").await.unwrap(), txid);
    shut_down(replicator).await;
    let tree = scene.tree("a").await;
    let snapshots: Vec<_> = tree
        .files
        .iter()
        .filter(|file| file.name.is_snapshot())
        .map(|file| file.name.max)
        .collect();
    assert_eq!(snapshots.last(), Some(&txid));
    assert!(snapshots.len() <= 2, "{snapshots:?}");
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_lists_every_file_after_a_clean_stop() {
    let mut scene = Scene::new(1);
    for _ in 0..3 {
        let replicator = scene.start().await;
        scene.write(10);
        shut_down(replicator).await;
    }
    let (tree, manifest) = (scene.tree("a").await, scene.manifest("a").await);
    let stored: BTreeSet<_> = tree.files.iter().map(|file| file.name).collect();
    let listed: BTreeSet<_> = manifest.files.iter().filter_map(|entry| entry.file_name()).collect();
    assert_eq!(stored, listed);
    assert_eq!(manifest.page_size, 4096);
    assert_eq!(manifest.writer.epoch, 1, "one local state is one writer");
}

/// Commits without a pause until it is told to stop; returns the number of rows.
async fn write_without_pause(path: PathBuf, stop: Arc<AtomicBool>) -> i64 {
    let write = move || {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        while !stop.load(Ordering::SeqCst) {
            connection.execute("INSERT INTO extra VALUES (randomblob(100))", []).unwrap();
        }
        connection.query_row("SELECT count(*) FROM extra", [], |row| row.get(0)).unwrap()
    };
    tokio::task::spawn_blocking(write).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn b12_a_writer_that_never_pauses_does_not_hold_up_the_end() {
    let scene = Scene::new(1);
    // Every upload takes longer than the writer's pause.
    scene.store.set_latency(Duration::from_millis(40));
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write_without_pause(scene.path(0), Arc::clone(&stop)));
    let before = status_of(&replicator, "a").await.txid;
    wait_for_status(&replicator, "a", |status| status.txid > before).await;
    let committed = rows(&scene.path(0));
    let paused = replicator.pause("a").await.unwrap();
    assert_eq!(paused, None, "what was committed before is in storage");
    assert!(rows_in_storage(&scene).await >= committed);
    replicator.resume("a").await.unwrap();
    wait_for_phase(&replicator, "a", DatabasePhase::Replicating).await;
    let committed = rows(&scene.path(0));
    assert_eq!(replicator.shut_down(PATIENCE).await.unwrap(), []);
    assert!(rows_in_storage(&scene).await >= committed);
    assert!(!writer.is_finished(), "it has written all the time");
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    shut_down(scene.start().await).await;
    scene.assert_restorable().await;
}

async fn rows_in_storage(scene: &Scene) -> i64 {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("restored.db");
    scene.restore("a", &output).await;
    rows(&output)
}

fn rows(path: &Path) -> i64 {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.query_row("SELECT count(*) FROM extra", [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_the_manifest_is_forgotten_when_it_is_written() {
    let scene = Scene::new(1);
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    // Else the one that is refused may be the one that the snapshot waits behind.
    scene.manifest("a").await;
    scene.commit(0);
    scene.store.refuse_manifests(1);
    let txid = replicator.snapshot("a").await.unwrap();
    let began = Instant::now();
    let knows_snapshot = |manifest: Manifest| {
        manifest.files.iter().filter_map(|entry| entry.file_name()).any(|name| name.max == txid)
    };
    while scene.store.refuses_manifest() || !knows_snapshot(scene.manifest("a").await) {
        assert!(began.elapsed() < PATIENCE, "the manifest is not written");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    wait_for_status(&replicator, "a", |status| status.last_error.is_none()).await;
    shut_down(replicator).await;
}
