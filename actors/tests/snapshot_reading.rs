//! Snapshots that take a while to read.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use tokio::task::JoinHandle;
use walrust_actors::{DatabasePhase, DatabaseStatus, Replicator, ReplicatorError};
use walrust_ltx::{FileName, Txid};

use crate::scene::{PATIENCE, Scene, shut_down, status_of, wait_for_status, wait_until};

/// A database that is in storage, and has changed since.
async fn changed() -> (Scene, Replicator) {
    let scene = Scene::new(1);
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    scene.commit(0);
    (scene, replicator)
}

/// Readings of snapshots that do not begin before this is dropped.
struct Held {
    begun: Arc<AtomicBool>,
    _go: mpsc::Sender<()>,
}

/// Fail points are global to the process: nextest gives every test its own.
fn hold_readings() -> Held {
    let (go, goes) = mpsc::channel();
    let (begun, goes) = (Arc::new(AtomicBool::new(false)), Mutex::new(goes));
    let begins = Arc::clone(&begun);
    let hold = move || {
        begins.store(true, Ordering::SeqCst);
        // Nobody ever sends anything.
        let _ = goes.lock().unwrap().recv();
    };
    fail::cfg_callback("database::snapshot_reading", hold).unwrap();
    Held { begun, _go: go }
}

type Asking = JoinHandle<Result<Txid, ReplicatorError>>;

/// Asks for a snapshot, and waits until it is about to be read and storage has what was committed
/// before.
async fn begin_snapshot(replicator: &Replicator, held: &Held) -> (Asking, DatabaseStatus) {
    let asks = replicator.clone();
    let asking = tokio::spawn(async move { asks.snapshot("a").await });
    wait_until("the reading", || held.begun.load(Ordering::SeqCst)).await;
    (asking, wait_for_status(replicator, "a", |status| status.up_to_date).await)
}

async fn snapshots(scene: &Scene) -> usize {
    let tree = scene.tree("a").await;
    tree.files.iter().filter(|file| file.name.is_snapshot()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_reach_storage_while_a_snapshot_is_read() {
    let (scene, replicator) = changed().await;
    let held = hold_readings();
    let (asking, mut before) = begin_snapshot(&replicator, &held).await;
    for _ in 0..2 {
        scene.commit(0);
        before = wait_for_status(&replicator, "a", |status| status.txid > before.txid).await;
    }
    drop(held);
    let txid = asking.await.unwrap().unwrap();
    shut_down(replicator).await;
    let uploads: Vec<FileName> = scene.store.uploaded("a");
    let snapshot = FileName { min: Txid::FIRST, max: txid };
    let before = uploads.iter().take_while(|name| **name != snapshot);
    let meanwhile = before.filter(|name| name.min > txid).count();
    assert_eq!(meanwhile, 2, "{uploads:?}");
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_snapshot_that_nobody_waits_for() {
    let (scene, replicator) = changed().await;
    let held = hold_readings();
    let (asking, _) = begin_snapshot(&replicator, &held).await;
    asking.abort();
    assert!(asking.await.is_err_and(|error| error.is_cancelled()));
    let mut stop = pin!(shut_down(replicator.clone()));
    tokio::select! {
        biased;
        () = &mut stop => panic!("it is being read"),
        () = std::future::ready(()) => {}
    }
    // Answered behind what the stop has told the database.
    status_of(&replicator, "a").await;
    drop(held);
    stop.await;
    assert_eq!(snapshots(&scene).await, 1, "the one that began the history");
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_gives_way_when_the_wal_grows_while_it_is_read() {
    let (mut scene, replicator) = changed().await;
    shut_down(replicator).await;
    scene.checkpoint.limit_pages = 1000;
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    scene.commit(0);
    let held = hold_readings();
    let (asking, before) = begin_snapshot(&replicator, &held).await;
    // Half of the limit.
    scene.databases[0].1.run("INSERT INTO extra VALUES (randomblob(2100000))");
    wait_for_status(&replicator, "a", |status| status.wal_pages >= before.wal_pages + 500).await;
    drop(held);
    let refused = asking.await.unwrap().unwrap_err();
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
