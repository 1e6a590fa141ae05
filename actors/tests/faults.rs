//! The path of a commit when storage, other writers or the database itself get in the way.

use std::time::Duration;

use walrust_actors::DatabasePhase;
use walrust_engine::ErrorClass;
use walrust_storage::{Condition, Metadata, ObjectStore};

use crate::fault_store::Fault;
use crate::scene::{Scene, shut_down, wait_for_phase, wait_for_status};
use crate::snapshots::wait_for_snapshots;

#[tokio::test(flavor = "multi_thread")]
async fn refused_uploads_are_tried_again_until_storage_has_them() {
    let mut scene = Scene::new(2);
    scene.store.fail_next([
        Fault::Refused(ErrorClass::Transient),
        Fault::Refused(ErrorClass::Throttled),
        Fault::Refused(ErrorClass::Auth),
        Fault::Refused(ErrorClass::Permanent),
        Fault::Refused(ErrorClass::NotFound),
        Fault::Refused(ErrorClass::Transient),
    ]);
    let replicator = scene.start().await;
    scene.write(20);
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_answer_was_lost_is_recognised_as_our_own() {
    let mut scene = Scene::new(1);
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    scene.store.fail_next([Fault::LostReply]);
    scene.write(10);
    let status = wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    assert_eq!(status.phase, DatabasePhase::Replicating);
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_writer_is_never_overwritten_and_stops_only_its_database() {
    let scene = Scene::new(2);
    let replicator = scene.start().await;
    let status = wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    wait_for_status(&replicator, "b", |status| status.up_to_date).await;
    // Whoever writes it would find the file of the other one ahead of ours, and go on behind it.
    scene.manifest("a").await;
    let next = status.txid.unwrap().next();
    let key = format!("a/{next}-{next}.ltx");
    let theirs = bytes::Bytes::from_static(b"another writer's file");
    let put = scene.store.put(&key, theirs.clone(), &Metadata::new(), &Condition::IfAbsent).await;
    put.unwrap();
    scene.commit(0);
    wait_for_phase(&replicator, "a", DatabasePhase::WriterConflict).await;
    let stored = scene.store.get(&key).await.unwrap().bytes().await.unwrap();
    assert_eq!(stored, theirs);
    scene.commit(1);
    let not_shipped = replicator.shut_down(Duration::from_secs(10)).await.unwrap();
    let names: Vec<_> = not_shipped.iter().map(|database| database.name.as_str()).collect();
    assert_eq!(names, ["a"]);
    assert!(not_shipped[0].reason.contains("another process"), "{}", not_shipped[0].reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_is_away_at_the_start_is_waited_for() {
    let mut scene = Scene::new(2);
    scene.store.set_away(true);
    let replicator = scene.start().await;
    let status = wait_for_phase(&replicator, "a", DatabasePhase::Degraded).await;
    assert!(status.last_error.unwrap().contains("injected fault"));
    scene.write(5);
    scene.store.set_away(false);
    for name in ["a", "b"] {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_storage_did_not_take_before_the_deadline_is_named_and_shipped_next_time() {
    let mut scene = Scene::new(2);
    let replicator = scene.start().await;
    for name in ["a", "b"] {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    scene.store.set_away(true);
    scene.write(5);
    let not_shipped = replicator.shut_down(Duration::from_millis(500)).await.unwrap();
    let names: Vec<_> = not_shipped.iter().map(|database| database.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    scene.store.set_away(false);
    // The first tree has let go of everything.
    shut_down(scene.start().await).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_broken_database_is_reported_and_the_others_go_on() {
    let mut scene = Scene::new(2);
    let broken = scene.path(0);
    let hidden = broken.with_extension("hidden");
    std::fs::rename(&broken, &hidden).unwrap();
    let replicator = scene.start().await;
    let status = wait_for_phase(&replicator, "a", DatabasePhase::Degraded).await;
    assert!(status.last_error.unwrap().contains("no such file"));
    scene.databases[1].1.run("CREATE TABLE more (x)");
    wait_for_status(&replicator, "b", |status| status.up_to_date).await;
    std::fs::rename(&hidden, &broken).unwrap();
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    scene.write(3);
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_an_earlier_run_that_arrives_late_is_not_another_writer() {
    let mut scene = Scene::new(1);
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    scene.store.fail_next([Fault::Overtaken]);
    scene.write(5);
    // It is opened again, and goes on after it.
    wait_for_snapshots(&scene, "a", 2).await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    scene.write(5);
    shut_down(replicator).await;
    scene.assert_restorable().await;
}
