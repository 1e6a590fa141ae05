//! What is told of databases that were let go of before storage had everything.

use std::time::Duration;

use walrust_actors::{DatabasePhase, NotShipped, Replicator};
use walrust_engine::ErrorClass;

use crate::changes::wait_for_removal;
use crate::fault_store::Fault;
use crate::scene::{PATIENCE, Scene, shut_down, status_of, wait_for_phase, wait_for_status};

/// A tree that has stored everything, then a commit in each database that storage does not take.
async fn cut_off(scene: &Scene) -> Replicator {
    let replicator = scene.start().await;
    for (name, ..) in &scene.databases {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    scene.store.set_away(true);
    for index in 0..scene.databases.len() {
        scene.commit(index);
    }
    for (name, ..) in &scene.databases {
        let refused = |status: &walrust_actors::DatabaseStatus| {
            status.staged_files == 1 && status.last_error.is_some()
        };
        wait_for_status(&replicator, name, refused).await;
    }
    replicator
}

#[track_caller]
fn assert_told(database: &NotShipped, name: &str, phrases: &[&str]) {
    assert_eq!(database.name, name);
    for phrase in phrases {
        assert!(database.reason.contains(phrase), "{phrase:?} is not in: {}", database.reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_paused_too_early_says_so_until_it_is_resumed() {
    let mut scene = Scene::new(1);
    scene.breaker.threshold = u32::MAX;
    let replicator = cut_off(&scene).await;
    let before = status_of(&replicator, "a").await;
    let problem = replicator.pause("a").await.unwrap().expect("storage is away");
    assert!(problem.contains("in time") && problem.contains("injected fault"), "{problem}");
    let status = status_of(&replicator, "a").await;
    assert_eq!(status.phase, DatabasePhase::Paused);
    assert_eq!((status.txid, status.staged_files), (before.txid, 1));
    assert_eq!(status.staged_bytes, before.staged_bytes);
    assert_eq!(status.last_error.as_ref(), Some(&problem));
    assert_eq!(replicator.pause("a").await.unwrap(), Some(problem), "it is as it was");

    let not_shipped = replicator.shut_down(PATIENCE).await.unwrap();
    let [only] = &not_shipped[..] else { panic!("one database: {not_shipped:?}") };
    assert_told(only, "a", &["it was paused", "injected fault", "1 staged file"]);

    scene.store.set_away(false);
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    assert_eq!(replicator.pause("a").await.unwrap(), None);
    let status = status_of(&replicator, "a").await;
    assert_eq!((status.txid, status.staged_files), (before.txid.map(|it| it.next()), 0));
    assert_eq!(status.last_error, None);
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_resumed_after_an_early_pause_is_not_named_at_the_end() {
    let scene = Scene::new(1);
    scene.store.set_away(true);
    let replicator = scene.start().await;
    wait_for_phase(&replicator, "a", DatabasePhase::Degraded).await;
    assert!(replicator.pause("a").await.unwrap().is_some());
    scene.store.set_away(false);
    assert_eq!(replicator.resume("a").await.unwrap(), DatabasePhase::Paused);
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_that_left_the_configuration_too_early_are_named_at_the_end() {
    let scene = Scene::new(5);
    let replicator = cut_off(&scene).await;
    // One goes, one goes and comes back, one changes its name, one stays, one comes back and goes again.
    let all = scene.settings();
    let mut settings = all.clone();
    settings.databases = all.databases[2..4].to_vec();
    settings.databases[0].name = "renamed".to_owned();
    replicator.reconfigure(settings.clone(), None).await.unwrap();
    for name in ["a", "b", "c", "e"] {
        wait_for_removal(&replicator, name).await;
    }
    scene.store.set_away(false);
    settings.databases.extend([all.databases[1].clone(), all.databases[4].clone()]);
    replicator.reconfigure(settings.clone(), None).await.unwrap();
    for name in ["b", "renamed", "d", "e"] {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    settings.databases.pop();
    replicator.reconfigure(settings, None).await.unwrap();
    wait_for_removal(&replicator, "e").await;
    let not_shipped = replicator.shut_down(PATIENCE).await.unwrap();
    let [only] = &not_shipped[..] else { panic!("one database: {not_shipped:?}") };
    assert_told(only, "a", &["left the configuration", "injected fault", "1 staged file"]);
    shut_down(scene.start().await).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_that_is_too_late_says_what_storage_said_last_and_what_is_kept() {
    let mut scene = Scene::new(2);
    scene.limits.concurrency = 1;
    scene.breaker.threshold = u32::MAX;
    let replicator = scene.start().await;
    for name in ["a", "b"] {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    // One is refused and then not answered; the other waits behind it and is refused nothing.
    scene.store.fail_next([Fault::Refused(ErrorClass::Transient), Fault::Silence, Fault::Silence]);
    scene.commit(0);
    wait_for_status(&replicator, "a", |status| status.last_error.is_some()).await;
    scene.commit(1);
    wait_for_status(&replicator, "b", |status| status.staged_files == 1).await;
    let not_shipped = replicator.shut_down(Duration::from_millis(300)).await.unwrap();
    assert_eq!(not_shipped.len(), 2, "{not_shipped:?}");
    for (database, name) in not_shipped.iter().zip(["a", "b"]) {
        assert_told(database, name, &["deadline", "injected fault", "1 staged file"]);
    }
    scene.store.heal();
    shut_down(scene.start().await).await;
    scene.assert_restorable().await;
}
