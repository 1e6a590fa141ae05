//! What the root does with children that die.

use std::time::Instant;

use ractor::ActorCell;
use serde_json::Value;
use walrust_engine::{EventKind, RestartSettings};
use walrust_storage::MemoryStore;
use walrust_testkit::{TestDatabase, WebhookReceiver};

use super::*;
use crate::settings::{DatabaseSettings, WebhookSettings};
use crate::snapshot_scheduler::SnapshotSchedulerMsg;
use crate::webhook::WebhookMsg;

/// How long anything may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn child_with<M: ractor::Message>(root: &ActorRef<RootMsg>) -> Option<ActorCell> {
    let children = root.get_cell().get_children();
    children.into_iter().find(|child| child.is_message_type_of::<M>() == Some(true))
}

/// Kills a child of the root, and waits until there is one to be killed.
async fn kill<M: ractor::Message>(root: &ActorRef<RootMsg>) {
    let began = Instant::now();
    loop {
        if let Some(child) = child_with::<M>(root) {
            child.kill();
            return;
        }
        assert!(began.elapsed() < PATIENCE, "there is no such child");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn events(receiver: &WebhookReceiver, at_least: usize) -> Vec<Value> {
    let receiver = receiver.clone();
    let wait = move || receiver.wait_until(PATIENCE, |received| received.len() >= at_least);
    let received = tokio::task::spawn_blocking(wait).await.unwrap();
    received.iter().map(|webhook| serde_json::from_str(&webhook.body).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_is_quarantined_is_an_event_and_so_is_the_recovery_of_a_database() {
    let receiver = WebhookReceiver::that_accepts();
    let database = TestDatabase::with_history(4096, 1, 5);
    let databases = vec![DatabaseSettings::new("app".to_owned(), database.path().to_owned())];
    let webhook = WebhookSettings {
        url: receiver.url("/"),
        events: vec![EventKind::ActorQuarantined, EventKind::DatabaseRecovered],
        secret: None,
        heartbeat_interval: Duration::ZERO,
    };
    let settings = Settings {
        webhooks: vec![webhook],
        // The first crash is one too many.
        restart: RestartSettings {
            intensity: 0,
            quarantine: Duration::from_millis(1100),
            ..RestartSettings::default()
        },
        ..Settings::new(databases, "test".to_owned())
    };
    let arguments = RootArguments { settings, store: Arc::new(MemoryStore::default()) };
    let (root, task) = Actor::spawn(None, RootSupervisor, arguments).await.unwrap();
    kill::<SnapshotSchedulerMsg>(&root).await;
    let first = events(&receiver, 1).await;
    assert_eq!(first[0]["event"], "actor_quarantined");
    assert_eq!(first[0]["database"], Value::Null);
    assert_eq!(first[0]["context"], serde_json::json!({ "actor": "snapshots", "seconds": 1 }));
    kill::<DatabaseMsg>(&root).await;
    let all = events(&receiver, 3).await;
    assert_eq!(all[1]["event"], "actor_quarantined");
    assert_eq!(all[1]["context"]["actor"], "database");
    assert_eq!(all[2]["event"], "database_recovered");
    assert!(all[1..].iter().all(|event| event["database"] == "app"));
    let shutdown = |reply| RootMsg::Shutdown { timeout: PATIENCE, reply };
    root.call(shutdown, Some(PATIENCE)).await.unwrap();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_actor_that_dies_is_followed_by_another() {
    let receiver = WebhookReceiver::that_accepts();
    // Each incarnation says that it is there.
    let webhook = WebhookSettings {
        url: receiver.url("/"),
        events: vec![EventKind::Heartbeat],
        secret: None,
        heartbeat_interval: Duration::from_secs(3600),
    };
    let settings =
        Settings { webhooks: vec![webhook], ..Settings::new(Vec::new(), "test".to_owned()) };
    let arguments = RootArguments { settings, store: Arc::new(MemoryStore::default()) };
    let (root, task) = Actor::spawn(None, RootSupervisor, arguments).await.unwrap();
    events(&receiver, 1).await;
    kill::<WebhookMsg>(&root).await;
    events(&receiver, 2).await;
    let shutdown = |reply| RootMsg::Shutdown { timeout: PATIENCE, reply };
    root.call(shutdown, Some(PATIENCE)).await.unwrap();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_started_while_it_waited_for_its_turn_is_not_started_again() {
    let settings = Settings::new(Vec::new(), "test".to_owned());
    let arguments = RootArguments { settings, store: Arc::new(MemoryStore::default()) };
    let (root, task) = Actor::spawn(None, RootSupervisor, arguments).await.unwrap();
    for service in SERVICES {
        root.cast(RootMsg::RestartDue(service)).unwrap();
    }
    // It answers when it has done all that.
    root.call(RootMsg::Roster, Some(PATIENCE)).await.unwrap();
    assert_eq!(root.get_cell().get_children().len(), SERVICES.len());
    let shutdown = |reply| RootMsg::Shutdown { timeout: PATIENCE, reply };
    root.call(shutdown, Some(PATIENCE)).await.unwrap();
    task.await.unwrap();
}
