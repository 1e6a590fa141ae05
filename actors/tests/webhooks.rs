//! What receivers outside the process hear of what happens in the tree.

use std::time::{Duration, Instant};

use serde_json::Value;
use walrust_actors::{Replicator, Settings, WebhookSettings};
use walrust_engine::EventKind;
use walrust_testkit::{ReceiverAnswer, WebhookReceiver};

use crate::scene::{PATIENCE, Scene, shut_down, wait_for_status};

pub(crate) fn settings(
    scene: &Scene,
    receiver: &WebhookReceiver,
    events: &[EventKind],
) -> Settings {
    let webhook = WebhookSettings {
        url: receiver.url("/"),
        events: events.to_vec(),
        secret: None,
        heartbeat_interval: Duration::ZERO,
    };
    Settings { webhooks: vec![webhook], ..scene.settings() }
}

fn bodies(receiver: &WebhookReceiver) -> Vec<Value> {
    let received = receiver.received();
    received.iter().map(|webhook| serde_json::from_str(&webhook.body).unwrap()).collect()
}

/// Name and database of each event.
pub(crate) fn summary(receiver: &WebhookReceiver) -> Vec<String> {
    let words = |body: &Value| {
        let word = |key: &str| body[key].as_str().unwrap_or("-").to_owned();
        format!("{} {}", word("event"), word("database"))
    };
    bodies(receiver).iter().map(words).collect()
}

/// Waits for an event without holding the runtime.
pub(crate) async fn wait_for_event(receiver: &WebhookReceiver, event: &'static str) -> Value {
    let receiver = receiver.clone();
    let wait = move || {
        let received = receiver.wait_until(PATIENCE, |received| {
            received.iter().any(|webhook| webhook.headers["x-walrust-event"] == event)
        });
        let found = received.iter().find(|webhook| webhook.headers["x-walrust-event"] == event);
        serde_json::from_str(&found.unwrap().body).unwrap()
    };
    tokio::task::spawn_blocking(wait).await.unwrap()
}

async fn wait_for_error(replicator: &Replicator, name: &str, words: &str) {
    wait_for_status(replicator, name, |status| {
        status.last_error.as_ref().is_some_and(|error| error.contains(words))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e03_that_a_database_is_unavailable_and_recovers_is_told_once_each() {
    let mut scene = Scene::new(2);
    let receiver = WebhookReceiver::that_accepts();
    let kinds = [EventKind::DatabaseUnavailable, EventKind::DatabaseRecovered];
    let replicator = scene.start_with(settings(&scene, &receiver, &kinds)).await;
    for name in ["a", "b"] {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    let path = scene.path(0);
    let hidden = path.with_extension("hidden");
    std::fs::rename(&path, &hidden).unwrap();
    let event = wait_for_event(&receiver, "database_unavailable").await;
    assert!(event["error"].as_str().unwrap().contains(path.to_str().unwrap()), "{event}");
    // It is tried again, and fails in another way.
    wait_for_error(&replicator, "a", "no such file").await;
    std::fs::rename(&hidden, &path).unwrap();
    wait_for_event(&receiver, "database_recovered").await;
    scene.write(3);
    shut_down(replicator).await;
    assert_eq!(summary(&receiver), ["database_unavailable a", "database_recovered a"]);
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_and_healed_gaps_are_told_with_their_facts() {
    let scene = Scene::new(1);
    let receiver = WebhookReceiver::that_accepts();
    let replicator = scene.start_with(settings(&scene, &receiver, &[])).await;
    let event = wait_for_event(&receiver, "snapshot_completed").await;
    assert_eq!(event["context"]["txid"], 1);
    assert!(event["context"]["bytes"].as_u64().unwrap() > 1000, "{event}");
    shut_down(replicator).await;
    // The WAL begins anew while nobody watches, and frames are gone.
    scene.commit(0);
    scene.databases[0].1.run("PRAGMA wal_checkpoint(TRUNCATE)");
    scene.commit(0);
    let replicator = scene.start_with(settings(&scene, &receiver, &[])).await;
    let event = wait_for_event(&receiver, "history_gap_healed").await;
    assert_eq!(event["database"], "a");
    assert_eq!(event["context"]["txid"], 2);
    assert!(event["context"]["pages"].as_u64().unwrap() > 0, "{event}");
    assert!(!event["context"]["reason"].as_str().unwrap().is_empty(), "{event}");
    shut_down(replicator).await;
    assert_eq!(summary(&receiver), ["snapshot_completed a", "history_gap_healed a"]);
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_told_as_such() {
    let scene = Scene::new(2);
    std::fs::write(scene.path(0), [b'x'; 8192]).unwrap();
    let receiver = WebhookReceiver::that_accepts();
    let kinds = [EventKind::DatabaseUnavailable, EventKind::CorruptionDetected];
    let replicator = scene.start_with(settings(&scene, &receiver, &kinds)).await;
    let event = wait_for_event(&receiver, "corruption_detected").await;
    assert!(event["error"].as_str().unwrap().contains("not a SQLite database"), "{event}");
    // It fails in another way, then in the first way again.
    std::fs::remove_file(scene.path(0)).unwrap();
    wait_for_error(&replicator, "a", "no such file").await;
    std::fs::write(scene.path(0), [b'x'; 8192]).unwrap();
    wait_for_error(&replicator, "a", "not a SQLite database").await;
    replicator.shut_down(PATIENCE).await.unwrap();
    assert_eq!(summary(&receiver), ["corruption_detected a", "database_unavailable a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn e03_what_waits_at_the_end_is_delivered_before_the_tree_ends() {
    let scene = Scene::new(1);
    // The second attempt would come later than the end.
    let receiver = WebhookReceiver::start(|number| match number {
        0 => ReceiverAnswer::Status(503),
        _ => ReceiverAnswer::Status(200),
    });
    let replicator = scene.start_with(settings(&scene, &receiver, &[])).await;
    wait_for_event(&receiver, "snapshot_completed").await;
    shut_down(replicator).await;
    let bodies = bodies(&receiver);
    assert_eq!(bodies.len(), 2);
    assert_eq!(bodies[0], bodies[1], "the same event");
}

#[tokio::test(flavor = "multi_thread")]
async fn e03_a_receiver_that_hangs_delays_neither_replication_nor_the_end() {
    let mut scene = Scene::new(2);
    let receiver = WebhookReceiver::start(|_| ReceiverAnswer::Never);
    let replicator = scene.start_with(settings(&scene, &receiver, &[])).await;
    wait_for_event(&receiver, "snapshot_completed").await;
    let began = Instant::now();
    scene.write(5);
    for name in ["a", "b"] {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    shut_down(replicator).await;
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    scene.assert_restorable().await;
}
