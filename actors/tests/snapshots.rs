//! Scheduled snapshots.

use std::time::{Duration, Instant};

use walrust_actors::Replicator;
use walrust_engine::SnapshotSettings;

use crate::scene::{PATIENCE, Scene, shut_down, wait_for_status, wait_until};

/// Nothing is scheduled.
const NEVER: SnapshotSettings = SnapshotSettings {
    interval: Duration::ZERO,
    max_changes: 0,
    max_interval: Duration::ZERO,
    on_idle: Duration::ZERO,
    on_startup: false,
};

async fn start(scene: &Scene, snapshot: SnapshotSettings, at_once: usize) -> Replicator {
    let mut settings = scene.settings();
    settings.snapshots_at_once = at_once;
    for database in &mut settings.databases {
        database.snapshot = snapshot;
    }
    let replicator = scene.start_with(settings).await;
    for (name, ..) in &scene.databases {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    replicator
}

/// TXIDs of the snapshots of a database.
async fn snapshots(scene: &Scene, name: &str) -> Vec<u64> {
    let files = scene.tree(name).await.files;
    let mut txids: Vec<_> =
        files.iter().filter(|it| it.name.is_snapshot()).map(|it| it.name.max.get()).collect();
    txids.sort_unstable();
    txids
}

pub(crate) async fn wait_for_snapshots(scene: &Scene, name: &str, count: usize) -> Vec<u64> {
    let began = Instant::now();
    loop {
        let found = snapshots(scene, name).await;
        if found.len() >= count {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{name} has the snapshots {found:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_changes_bring_a_snapshot() {
    let scene = Scene::new(2);
    let replicator = start(&scene, SnapshotSettings { max_changes: 5, ..NEVER }, 2).await;
    for _ in 0..4 {
        scene.commit(0);
        replicator.sync("a").await.unwrap();
    }
    assert_eq!(snapshots(&scene, "a").await.len(), 1, "four are not enough");
    scene.commit(0);
    let found = wait_for_snapshots(&scene, "a", 2).await;
    assert_eq!(found[1] - found[0], 5);
    assert_eq!(snapshots(&scene, "b").await.len(), 1, "it did not change");
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interval_rest_and_the_start_bring_a_snapshot_and_none_of_them_without_a_change() {
    let second = Duration::from_secs(1);
    let reasons = [
        SnapshotSettings { interval: second, ..NEVER },
        SnapshotSettings { max_interval: second, ..NEVER },
        SnapshotSettings { on_idle: second, ..NEVER },
    ];
    for settings in reasons {
        let scene = Scene::new(2);
        let replicator = start(&scene, settings, 2).await;
        scene.manifest("a").await;
        let requests = scene.store.requests_for("a");
        // The other one is stored later, changes, and is due.
        scene.manifest("b").await;
        scene.commit(1);
        wait_for_snapshots(&scene, "b", 2).await;
        let looks = scene.store.requests_for("a") - requests;
        assert_eq!(looks, 0, "{settings:?}: an idle database costs nothing");
        scene.commit(0);
        wait_for_snapshots(&scene, "a", 2).await;
        shut_down(replicator).await;
    }
    let scene = Scene::new(1);
    shut_down(start(&scene, NEVER, 2).await).await;
    let starts = SnapshotSettings { on_startup: true, ..NEVER };
    shut_down(start(&scene, starts, 2).await).await;
    assert_eq!(snapshots(&scene, "a").await.len(), 1, "the database did not change");
    scene.commit(0);
    shut_down(start(&scene, NEVER, 2).await).await;
    let replicator = start(&scene, starts, 2).await;
    wait_for_snapshots(&scene, "a", 2).await;
    shut_down(replicator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b10_commits_go_on_while_a_snapshot_hangs() {
    let scene = Scene::new(2);
    let replicator = start(&scene, SnapshotSettings { max_changes: 1, ..NEVER }, 2).await;
    scene.store.hold(["a/0000000000000001-".to_owned()]);
    scene.commit(0);
    wait_until("a snapshot", || scene.store.holding() > 0).await;
    for _ in 0..5 {
        scene.commit(0);
        let synced = tokio::time::timeout(PATIENCE, replicator.sync("a")).await;
        synced.expect("a commit does not wait for the snapshot").unwrap();
    }
    assert_eq!(scene.store.holding(), 1, "of one database one snapshot at a time");
    let head = scene.tree("a").await.files.iter().map(|file| file.name.max).max();
    assert_eq!(head.map(|txid| txid.get()), Some(7));
    let no = Vec::<String>::new();
    scene.store.hold(no);
    wait_for_snapshots(&scene, "a", 2).await;
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d05_so_many_snapshots_at_once_and_no_more() {
    let scene = Scene::new(6);
    let replicator = start(&scene, SnapshotSettings { max_changes: 1, ..NEVER }, 2).await;
    let held: Vec<_> =
        scene.databases.iter().map(|(name, ..)| format!("{name}/0000000000000001-")).collect();
    scene.store.hold(held);
    scene.store.take_most_snapshots();
    for index in 0..6 {
        scene.commit(index);
    }
    // Every commit is in storage, so every snapshot is due: the others wait in line.
    for (name, ..) in &scene.databases {
        replicator.sync(name).await.unwrap();
    }
    wait_until("two snapshots", || scene.store.holding() == 2).await;
    // Each takes long enough to have others beside it.
    scene.store.set_latency(Duration::from_millis(50));
    let no = Vec::<String>::new();
    scene.store.hold(no);
    for (name, ..) in &scene.databases {
        wait_for_snapshots(&scene, name, 2).await;
    }
    assert_eq!(scene.store.take_most_snapshots(), 2, "at once");
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_crashes_is_told_everything_again() {
    let scene = Scene::new(2);
    let replicator = start(&scene, SnapshotSettings { max_changes: 3, ..NEVER }, 1).await;
    fail::cfg("snapshots::confirmed", "1*return").unwrap();
    for _ in 0..4 {
        scene.commit(0);
        replicator.sync("a").await.unwrap();
    }
    for _ in 0..4 {
        scene.commit(0);
        replicator.sync("a").await.unwrap();
    }
    wait_for_snapshots(&scene, "a", 2).await;
    shut_down(replicator).await;
    scene.assert_restorable().await;
}
