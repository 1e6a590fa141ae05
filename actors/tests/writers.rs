//! Two hosts under one name: the later one wins.

use walrust_actors::DatabasePhase;

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
async fn a_writer_that_sees_a_later_epoch_in_the_manifest_stops() {
    let scene = Scene::new(1);
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    let other = scene.copied();
    shut_down(other.start().await).await;
    scene.commit(0);
    let not_shipped = replicator.shut_down(PATIENCE).await.unwrap();
    let [problem] = &not_shipped[..] else { panic!("one database stopped: {not_shipped:?}") };
    assert!(problem.reason.contains("has taken the name over (epoch 2)"), "{}", problem.reason);
}
