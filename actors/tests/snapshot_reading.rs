//! Snapshots of a database that takes a while to read.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use walrust_actors::{DatabasePhase, Replicator, ReplicatorError};
use walrust_ltx::{FileName, Txid};

use crate::scene::{PATIENCE, Scene, shut_down, wait_for_status};

/// A database that takes hundreds of milliseconds to read, and is in storage.
async fn large() -> (Scene, Replicator) {
    let scene = Scene::new(1);
    let (_, database, _) = &scene.databases[0];
    database.run("CREATE TABLE large (x)");
    for _ in 0..50 {
        database.run("INSERT INTO large VALUES (randomblob(1000000))");
    }
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    scene.commit(0);
    (scene, replicator)
}

/// Asks for a snapshot and commits until it is answered.
async fn snapshot_beside(
    scene: &Scene,
    replicator: &Replicator,
    commit: &str,
) -> Result<Txid, ReplicatorError> {
    let mut snapshot = Box::pin(replicator.snapshot("a"));
    loop {
        if let Ok(answer) = tokio::time::timeout(Duration::from_millis(5), &mut snapshot).await {
            return answer;
        }
        scene.databases[0].1.run(commit);
    }
}

async fn snapshots(scene: &Scene) -> usize {
    let tree = scene.tree("a").await;
    tree.files.iter().filter(|file| file.name.is_snapshot()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_reach_storage_while_a_snapshot_is_read() {
    let (scene, replicator) = large().await;
    let commit = "INSERT INTO extra VALUES (1)";
    let txid = snapshot_beside(&scene, &replicator, commit).await.unwrap();
    shut_down(replicator).await;
    let uploads: Vec<FileName> = scene.store.uploaded("a");
    let snapshot = FileName { min: Txid::FIRST, max: txid };
    let before = uploads.iter().take_while(|name| **name != snapshot);
    let meanwhile = before.filter(|name| name.min > txid).count();
    assert!(meanwhile > 1, "{uploads:?}");
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_snapshot_that_nobody_waits_for() {
    let (scene, replicator) = large().await;
    let patience = Duration::from_millis(20);
    let answer = tokio::time::timeout(patience, replicator.snapshot("a")).await;
    assert!(answer.is_err(), "it takes longer");
    shut_down(replicator).await;
    assert_eq!(snapshots(&scene).await, 1, "the one that began the history");
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_gives_way_when_the_wal_grows_while_it_is_read() {
    let (mut scene, replicator) = large().await;
    shut_down(replicator).await;
    scene.checkpoint.limit_pages = 1000;
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    scene.commit(0);
    let commit = "INSERT INTO extra VALUES (randomblob(1000000))";
    let refused = snapshot_beside(&scene, &replicator, commit).await.unwrap_err();
    assert!(refused.to_string().contains("given up"), "{refused}");
    let status = wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    assert_eq!(status.phase, DatabasePhase::Replicating, "the history goes on");
    replicator.snapshot("a").await.unwrap();
    shut_down(replicator).await;
    assert_eq!(snapshots(&scene).await, 2);
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_does_not_fit_its_history_begins_a_new_one() {
    let scene = Scene::new(1);
    let (_, database, _) = &scene.databases[0];
    // In a page that no commit of the test touches.
    database.run("CREATE TABLE old AS SELECT 'as it was written'; PRAGMA wal_checkpoint(TRUNCATE)");
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    // A disk that returns something else, which nobody has noticed.
    let file = std::fs::OpenOptions::new().read(true).write(true).open(scene.path(0)).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut pages = Vec::new();
    (&file).read_to_end(&mut pages).unwrap();
    let place = pages.windows(17).position(|bytes| bytes == b"as it was written").unwrap();
    file.write_all_at(b"as it is read now", place as u64).unwrap();
    file.set_modified(modified).unwrap();
    scene.commit(0);
    let answer = tokio::time::timeout(PATIENCE, replicator.snapshot("a")).await;
    let txid = answer.expect("an answer in time").unwrap();
    shut_down(replicator).await;
    let ends = scene.store.uploaded("a").into_iter().map(|name| (name.min.get(), name.max.get()));
    assert_eq!(ends.collect::<Vec<_>>(), [(1, 1), (2, 2), (1, 3)]);
    assert_eq!(txid.get(), 3, "who asked for a snapshot gets the one that begins the chain");
    scene.assert_restorable().await;
    // Closing it earlier would drop the locks of the connections.
    drop(file);
}
