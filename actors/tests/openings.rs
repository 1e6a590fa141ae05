//! What a store is asked while databases are opened: by one of them at a time if it is away, within the
//! rate of the process, and with an alarm if it refuses the credentials.

use std::time::{Duration, Instant};

use walrust_actors::{UploadLimits, UploaderStatus, WebhookSettings};
use walrust_engine::{BreakerSettings, BreakerState, ErrorClass, EventKind};
use walrust_testkit::WebhookReceiver;

use crate::scene::{PATIENCE, Scene, shut_down, wait_for_status, wait_for_uploads, wait_until};

/// A breaker that opens soon and does not probe before a test has looked.
const BREAKER: BreakerSettings =
    BreakerSettings { enabled: true, threshold: 3, cooldown: Duration::from_secs(1) };

fn held_back(status: &UploaderStatus) -> bool {
    status.breaker == BreakerState::Open && status.asking > 0
}

#[tokio::test(flavor = "multi_thread")]
async fn b08_a_store_that_is_away_at_the_start_is_asked_by_one_database_at_a_time() {
    let mut scene = Scene::new(20);
    scene.breaker = BREAKER;
    scene.store.set_away(true);
    let replicator = scene.start().await;
    // All that were let through before it opened have asked, but for one at most.
    let all_held_back = |status: &UploaderStatus| held_back(status) && status.asking >= 19;
    wait_for_uploads(&replicator, all_held_back).await;
    let began = Instant::now();
    let before = scene.store.requests();
    // Each probe is one listing; two cooldowns pass at least.
    let probes = 3;
    wait_until("somebody finds out whether it is back", || {
        scene.store.requests() >= before + probes
    })
    .await;
    assert!(began.elapsed() > BREAKER.cooldown, "{probes} probes in {:?}", began.elapsed());
    scene.store.set_away(false);
    for (name, ..) in &scene.databases {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b12_databases_that_wait_for_storage_do_not_hold_up_the_end() {
    let mut scene = Scene::new(20);
    scene.breaker = BreakerSettings { cooldown: Duration::from_secs(3600), ..BREAKER };
    scene.store.set_away(true);
    let replicator = scene.start().await;
    wait_for_uploads(&replicator, held_back).await;
    let began = Instant::now();
    let not_shipped = replicator.shut_down(PATIENCE).await.unwrap();
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    assert_eq!(not_shipped.len(), 20, "each is named: {not_shipped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_of_the_process_is_that_of_openings_as_well() {
    const PER_SECOND: u32 = 40;
    let mut scene = Scene::new(10);
    shut_down(scene.start().await).await;
    scene.limits = UploadLimits { requests_per_second: PER_SECOND, ..UploadLimits::default() };
    let before = scene.store.requests();
    let began = Instant::now();
    let replicator = scene.start().await;
    for (name, ..) in &scene.databases {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    let requests = scene.store.requests() - before;
    let allowed = f64::from(PER_SECOND) * (1.0 + began.elapsed().as_secs_f64());
    assert!(requests as f64 <= allowed + 1.0, "{requests} requests, {allowed} were allowed");
    assert!(requests > 20, "each database asks twice at least: {requests}");
    shut_down(replicator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_credentials_that_are_refused_at_the_start_are_an_alarm() {
    let receiver = WebhookReceiver::that_accepts();
    let scene = Scene::new(1);
    scene.store.refuse_everything(Some(ErrorClass::Auth));
    let mut settings = scene.settings();
    settings.webhooks = vec![WebhookSettings {
        url: receiver.url("/"),
        events: vec![EventKind::AuthFailure],
        secret: None,
        heartbeat_interval: Duration::ZERO,
    }];
    let replicator = scene.start_with(settings).await;
    let heard = move || receiver.wait_until(PATIENCE, |received| !received.is_empty());
    let received = tokio::task::spawn_blocking(heard).await.unwrap();
    assert!(received[0].body.contains("\"database\":\"a\""), "{}", received[0].body);
    scene.store.refuse_everything(None);
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    shut_down(replicator).await;
}
