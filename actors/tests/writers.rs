//! Two hosts under one name: the later one wins.

use std::sync::Arc;
use std::time::Duration;

use walrust_actors::{DatabasePhase, Settings};
use walrust_ltx::Txid;
use walrust_storage::{Condition, Metadata, ObjectStore};

use crate::fault_store::FaultStore;
use crate::scene::{PATIENCE, Scene, shut_down, wait_for_phase, wait_for_status};

#[tokio::test(flavor = "multi_thread")]
async fn a_later_writer_takes_the_name_over_without_a_new_snapshot() {
    let scene = Scene::new(1);
    shut_down(scene.start().await).await;
    let before = scene.manifest("a").await.writer;
    let other = scene.copied();
    let successor = other.start().await;
    wait_for_status(&successor, "a", |status| status.up_to_date).await;
    let after = other.manifest("a").await.writer;
    assert_eq!(after.epoch, before.epoch + 1);
    assert_ne!(after.id, before.id);
    other.commit(0);
    shut_down(successor).await;
    let tree = other.tree("a").await;
    let snapshots = tree.files.iter().filter(|file| file.name.is_snapshot()).count();
    assert_eq!(snapshots, 1, "the copy is in the state of the head");
    other.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_of_one_transaction_the_second_stops() {
    let scene = Scene::new(1);
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    // Which the other one finds, and after which this one asks for it no more.
    scene.manifest("a").await;
    let other = scene.copied();
    let successor = other.start().await;
    other.commit(0);
    wait_for_status(&successor, "a", |status| status.txid.is_some_and(|txid| txid.get() == 2))
        .await;
    scene.commit(0);
    let status = wait_for_phase(&replicator, "a", DatabasePhase::WriterConflict).await;
    let error = status.last_error.expect("the conflict is named");
    assert!(error.contains("another process replicates into this name"), "{error}");
    shut_down(successor).await;
    other.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_another_has_stopped_claims_its_name_anew_when_it_is_resumed() {
    let scene = Scene::new(1);
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    assert_eq!(replicator.resume("a").await.unwrap(), DatabasePhase::Replicating);
    // Without one the other has nobody to take the name over from.
    scene.manifest("a").await;
    let other = scene.copied();
    let successor = other.start().await;
    other.commit(0);
    wait_for_status(&successor, "a", |status| status.txid == Txid::new(2)).await;
    shut_down(successor).await;
    scene.commit(0);
    let status = wait_for_phase(&replicator, "a", DatabasePhase::WriterConflict).await;
    let error = status.last_error.expect("the conflict is named");
    let advice = "; stop the other one and then run `walrust resume a` here, or give this database \
                  another prefix in the configuration file";
    assert!(error.ends_with(advice), "{error}");

    assert_eq!(replicator.resume("a").await.unwrap(), DatabasePhase::WriterConflict);
    let up_to_date = wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    assert_eq!((up_to_date.last_error, up_to_date.incarnation), (None, 1));
    scene.commit(0);
    shut_down(replicator).await;
    assert_eq!(scene.manifest("a").await.writer.epoch, 3);
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_a_newer_program_is_no_reason_to_stop_anybody() {
    let scene = Scene::new(1);
    let settings = Settings { manifest_interval: Duration::ZERO, ..scene.settings() };
    let replicator = scene.start_with(settings).await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    scene.manifest("a").await;
    let newer = bytes::Bytes::from_static(br#"{"format": 1000}"#);
    let key = "a/manifest.json";
    scene.store.put(key, newer, &Metadata::new(), &Condition::None).await.unwrap();
    scene.commit(0);
    let status = wait_for_phase(&replicator, "a", DatabasePhase::WriterConflict).await;
    let error = status.last_error.expect("it is named");
    assert!(error.ends_with("use a newer walrust"), "{error}");
    let not_shipped = replicator.shut_down(PATIENCE).await.unwrap();
    assert_eq!(not_shipped.len(), 1, "{not_shipped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_sees_a_later_epoch_in_the_manifest_stops() {
    let scene = Scene::new(1);
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    // Without one the other has nobody to take the name over from.
    scene.manifest("a").await;
    let other = scene.copied();
    shut_down(other.start().await).await;
    scene.commit(0);
    let not_shipped = replicator.shut_down(PATIENCE).await.unwrap();
    let [problem] = &not_shipped[..] else { panic!("one database stopped: {not_shipped:?}") };
    assert!(problem.reason.contains("has taken the name over (epoch 2)"), "{}", problem.reason);
}

/// Copies an object to another store.
async fn carry(key: &str, from: &FaultStore, to: &FaultStore) {
    let object = from.get(key).await.unwrap();
    let metadata = object.meta.metadata.clone();
    let bytes = object.bytes().await.unwrap();
    to.put(key, bytes, &metadata, &Condition::IfAbsent).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_comes_in_under_later_txids_is_gone_behind() {
    let scene = Scene::new(1);
    shut_down(scene.start().await).await;
    // A process that was killed while it sent five commits, with its host.
    let mut killed = scene.copied();
    killed.store = Arc::new(FaultStore::default());
    killed.sync_interval = Duration::from_secs(3600);
    for entry in scene.store.list("", None).await.unwrap() {
        carry(&entry.key, &scene.store, &killed.store).await;
    }
    let replicator = killed.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    // The first commit goes at once; those behind it go together at the end.
    killed.commit(0);
    wait_for_status(&replicator, "a", |status| status.txid == Txid::new(2)).await;
    let first = killed.tree("a").await.files.into_iter().max_by_key(|file| file.name.max).unwrap();
    carry(&first.key, &killed.store, &scene.store).await;
    let mut successor = killed.copied();
    for _ in 0..5 {
        killed.commit(0);
    }
    shut_down(replicator).await;
    let late = killed.tree("a").await.files.into_iter().max_by_key(|file| file.name.max).unwrap();
    assert_eq!(late.name.max.get() - late.name.min.get(), 4, "one file has all five");

    (successor.store, successor.sync_interval) = (scene.store, scene.sync_interval);
    let settings = Settings { manifest_interval: Duration::ZERO, ..successor.settings() };
    let replicator = successor.start_with(settings).await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    carry(&late.key, &killed.store, &successor.store).await;
    successor.commit(0);
    wait_for_status(&replicator, "a", |status| status.txid > Some(late.name.max)).await;
    successor.commit(0);
    shut_down(replicator).await;
    successor.assert_restorable().await;
}
