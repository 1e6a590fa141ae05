//! Storage loses the newest state of a database: a snapshot begins a new chain.

use std::sync::atomic::Ordering;
use std::time::Duration;

use walrust_actors::Settings;
use walrust_engine::{ErrorClass, EventKind};
use walrust_storage::ObjectStore;
use walrust_testkit::WebhookReceiver;

use crate::crashes::count_deaths;
use crate::scene::{Scene, shut_down, wait_for_status, wait_until};
use crate::webhooks::{self, summary, wait_for_event};

const KINDS: [EventKind; 2] = [EventKind::HistoryGapHealed, EventKind::ValidationFailed];

fn settings(scene: &Scene, receiver: &WebhookReceiver) -> Settings {
    webhooks::settings(scene, receiver, &KINDS)
}

fn with_validation(scene: &Scene, receiver: &WebhookReceiver) -> Settings {
    let mut settings = settings(scene, receiver);
    for database in &mut settings.databases {
        database.validation.interval = Duration::from_millis(20);
    }
    settings
}

async fn snapshots(scene: &Scene, name: &str) -> Vec<u64> {
    let files = scene.tree(name).await.files;
    let snapshots = files.iter().filter(|file| file.name.is_snapshot());
    snapshots.map(|file| file.name.max.get()).collect()
}

/// Waits until a file was validated a few times more.
async fn wait_for_validations(scene: &Scene, key: &str) {
    let before = scene.store.fetches(key);
    wait_until("validations", || scene.store.fetches(key) >= before + 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_rests_gets_one_snapshot_in_the_place_of_a_damaged_one() {
    let scene = Scene::new(2);
    let receiver = WebhookReceiver::that_accepts();
    let mut settings = with_validation(&scene, &receiver);
    // So slow that one is under way at any time.
    for database in &mut settings.databases {
        database.validation.bytes_per_second = 1 << 20;
    }
    let replicator = scene.start_with(settings).await;
    for (name, ..) in &scene.databases {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    let key = scene.tree("a").await.files[0].key.clone();
    scene.store.hold(["a/".to_owned()]);
    scene.damage(&key).await;
    wait_until("the snapshot", || scene.store.holding() == 1).await;
    // They find the same while the snapshot is on its way, and one of them ends after it.
    wait_for_validations(&scene, &key).await;
    scene.store.hold([]);
    let event = wait_for_event(&receiver, "history_gap_healed").await;
    assert_eq!((&event["database"], &event["context"]["txid"]), (&"a".into(), &2.into()));
    assert!(event["context"]["reason"].as_str().unwrap().starts_with(&key), "{event}");
    // What is damaged stays damaged, and is no reason for another one.
    wait_for_validations(&scene, &key).await;
    assert_eq!((snapshots(&scene, "a").await, snapshots(&scene, "b").await), (vec![1, 2], vec![1]));
    let status = wait_for_status(&replicator, "a", |status| status.last_error.is_none()).await;
    assert_eq!(status.txid.map(walrust_ltx::Txid::get), Some(2));
    scene.commit(0);
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_the_newest_state_does_not_need_costs_no_snapshot() {
    let scene = Scene::new(1);
    let receiver = WebhookReceiver::that_accepts();
    let replicator = scene.start_with(with_validation(&scene, &receiver)).await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    scene.commit(0);
    replicator.snapshot("a").await.unwrap();
    let key = scene.tree("a").await.files[0].key.clone();
    scene.damage(&key).await;
    wait_for_event(&receiver, "validation_failed").await;
    wait_for_validations(&scene, &key).await;
    assert_eq!(snapshots(&scene, "a").await, [1, 2]);
    shut_down(replicator).await;
    assert!(!summary(&receiver).contains(&"history_gap_healed a".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_emptied_beside_the_daemon_is_noticed_with_the_next_manifest() {
    let scene = Scene::new(2);
    let receiver = WebhookReceiver::that_accepts();
    let quick = Duration::from_millis(20);
    let settings = Settings { manifest_interval: quick, ..settings(&scene, &receiver) };
    let replicator = scene.start_with(settings).await;
    for (name, ..) in &scene.databases {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    scene.empty("a").await;
    for index in 0..2 {
        scene.commit(index);
    }
    let event = wait_for_event(&receiver, "history_gap_healed").await;
    assert!(event["context"]["reason"].as_str().unwrap().contains("no snapshot"), "{event}");
    shut_down(replicator).await;
    assert_eq!(summary(&receiver), ["history_gap_healed a"]);
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_was_emptied_is_noticed_at_the_end_at_the_latest() {
    let scene = Scene::new(1);
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    scene.commit(0);
    replicator.sync("a").await.unwrap();
    scene.empty("a").await;
    scene.commit(0);
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_lead_nowhere_are_not_continued_by_the_next_start() {
    let scene = Scene::new(1);
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    scene.commit(0);
    shut_down(replicator).await;
    let snapshot = scene.tree("a").await.files[0].key.clone();
    assert!(scene.store.delete(&[snapshot]).await.unwrap().is_empty());
    let receiver = WebhookReceiver::that_accepts();
    let replicator = scene.start_with(settings(&scene, &receiver)).await;
    let event = wait_for_event(&receiver, "history_gap_healed").await;
    assert!(event["context"]["reason"].as_str().unwrap().contains("no snapshot"), "{event}");
    shut_down(replicator).await;
    assert_eq!(snapshots(&scene, "a").await, [3]);
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_asked_for_is_there_though_the_database_has_not_changed() {
    let scene = Scene::new(1);
    let replicator = scene.start().await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    let txid = replicator.snapshot("a").await.unwrap();
    assert_eq!((txid.get(), snapshots(&scene, "a").await), (1, vec![1]), "it has one");
    scene.store.refuse_everything(Some(ErrorClass::Auth));
    let refused = replicator.snapshot("a").await.unwrap_err();
    assert!(refused.to_string().contains("injected fault"), "{refused}");
    scene.store.refuse_everything(None);
    scene.damage(&scene.tree("a").await.files[0].key).await;
    let txid = replicator.snapshot("a").await.unwrap();
    assert_eq!((txid.get(), snapshots(&scene, "a").await), (2, vec![1, 2]));
    scene.empty("a").await;
    let txid = replicator.snapshot("a").await.unwrap();
    assert_eq!((txid.get(), snapshots(&scene, "a").await), (3, vec![3]));
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_that_dies_of_the_loss_is_followed_by_one_that_makes_up_for_it() {
    let deaths = count_deaths();
    for action in ["1*return", "1*panic"] {
        let before = deaths.load(Ordering::SeqCst);
        let scene = Scene::new(1);
        let receiver = WebhookReceiver::that_accepts();
        let replicator = scene.start_with(with_validation(&scene, &receiver)).await;
        wait_for_status(&replicator, "a", |status| status.up_to_date).await;
        fail::cfg("database::state_lost", action).unwrap();
        scene.damage(&scene.tree("a").await.files[0].key).await;
        wait_for_event(&receiver, "history_gap_healed").await;
        assert_eq!(deaths.load(Ordering::SeqCst), before + 1);
        shut_down(replicator).await;
        scene.assert_restorable().await;
    }
}
