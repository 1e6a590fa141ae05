//! The daemon proves that its histories can be restored, and tells when it cannot.

use std::time::{Duration, Instant};

use walrust_actors::Settings;
use walrust_engine::{ErrorClass, EventKind, RetentionPolicy};
use walrust_storage::ObjectStore;
use walrust_testkit::WebhookReceiver;

use crate::scene::{Scene, shut_down, wait_for_status, wait_until};
use crate::webhooks::{self, summary, wait_for_event};

const KINDS: [EventKind; 2] = [EventKind::ValidationFailed, EventKind::CorruptionDetected];

fn settings(scene: &Scene, receiver: &WebhookReceiver) -> Settings {
    let mut settings = webhooks::settings(scene, receiver, &KINDS);
    for database in &mut settings.databases {
        database.validation.interval = Duration::from_millis(40);
    }
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_storage_is_told_and_replication_goes_on() {
    let mut scene = Scene::new(2);
    let receiver = WebhookReceiver::that_accepts();
    let replicator = scene.start_with(settings(&scene, &receiver)).await;
    for (name, ..) in &scene.databases {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
        replicator.sync(name).await.unwrap();
    }
    let key = scene.tree("a").await.files[0].key.clone();
    scene.damage(&key).await;
    for kind in ["validation_failed", "corruption_detected"] {
        let event = wait_for_event(&receiver, kind).await;
        assert_eq!(event["database"], "a", "{event}");
        assert!(event["error"].as_str().unwrap().starts_with(&key), "{event}");
        assert!(event["context"]["critical"].as_u64().unwrap() >= 1, "{event}");
    }
    scene.write(3);
    for (name, ..) in &scene.databases {
        replicator.sync(name).await.unwrap();
    }
    shut_down(replicator).await;
    assert!(summary(&receiver).iter().all(|event| event.ends_with(" a")), "b is sound");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_told_and_is_no_corruption() {
    let scene = Scene::new(1);
    let receiver = WebhookReceiver::that_accepts();
    let replicator = scene.start_with(settings(&scene, &receiver)).await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    replicator.sync("a").await.unwrap();
    // What no manifest knows is not missed.
    scene.manifest("a").await;
    let key = scene.tree("a").await.files[0].key.clone();
    scene.store.delete(std::slice::from_ref(&key)).await.unwrap();
    let event = wait_for_event(&receiver, "validation_failed").await;
    assert!(event["error"].as_str().unwrap().contains("is not there"), "{event}");
    shut_down(replicator).await;
    assert!(summary(&receiver).iter().all(|event| event == "validation_failed a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_changes_all_the_time_raises_no_alarm() {
    let mut scene = Scene::new(2);
    let receiver = WebhookReceiver::that_accepts();
    let mut settings = settings(&scene, &receiver);
    // Nothing leads to a file that is not indexed yet once the retention has removed what it goes on from.
    settings.manifest_interval = Duration::from_millis(10);
    for database in &mut settings.databases {
        database.validation.interval = Duration::from_millis(10);
        database.validation.bytes_per_second = 0;
        database.snapshot.max_changes = 5;
        // With the shortest grace period that there is.
        database.compaction.interval = Duration::from_millis(20);
        database.compaction.policy = RetentionPolicy { hourly: 0, daily: 0, weekly: 0, monthly: 0 };
    }
    let replicator = scene.start_with(settings).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        scene.write(1);
        for (name, ..) in &scene.databases {
            replicator.sync(name).await.unwrap();
        }
    }
    shut_down(replicator).await;
    let events: Vec<_> = receiver.received().into_iter().map(|webhook| webhook.body).collect();
    assert_eq!(events, [""; 0]);
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_cannot_be_read_for_the_moment_raises_no_alarm() {
    let scene = Scene::new(1);
    let receiver = WebhookReceiver::that_accepts();
    let replicator = scene.start_with(settings(&scene, &receiver)).await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    replicator.sync("a").await.unwrap();
    let before = scene.store.requests();
    scene.store.refuse_everything(Some(ErrorClass::Throttled));
    let began = Instant::now();
    // More than one validation asks for.
    while scene.store.requests() < before + 12 {
        assert!(began.elapsed() < Duration::from_secs(60), "it is not tried again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(summary(&receiver), [""; 0]);
    // This does not pass by itself.
    scene.store.refuse_everything(Some(ErrorClass::Auth));
    wait_for_event(&receiver, "validation_failed").await;
    scene.store.refuse_everything(None);
    shut_down(replicator).await;
    assert_eq!(summary(&receiver), ["validation_failed a"], "nobody hears of it twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_validation_holds_up_neither_syncs_nor_the_end() {
    let mut scene = Scene::new(1);
    let receiver = WebhookReceiver::that_accepts();
    let mut settings = settings(&scene, &receiver);
    settings.databases[0].validation.bytes_per_second = 1;
    let replicator = scene.start_with(settings).await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    // Nobody else has to read it.
    let key = scene.tree("a").await.files[0].key.clone();
    wait_until("a validation", || scene.store.fetches(&key) > 0).await;
    let began = Instant::now();
    scene.write(1);
    replicator.sync("a").await.unwrap();
    shut_down(replicator).await;
    assert!(began.elapsed() < Duration::from_secs(20), "its end was waited for");
    assert_eq!(summary(&receiver), [""; 0]);
}
