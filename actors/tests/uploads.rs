//! The uploads of many databases over one store that is slow, silent, away or limited.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use walrust_actors::{Replicator, UploadLimits, UploaderStatus};
use walrust_engine::{BreakerSettings, BreakerState, ErrorClass};

use crate::fault_store::Fault;
use crate::scene::{PATIENCE, Scene, shut_down, wait_for_status, wait_for_uploads, wait_until};

const COOLDOWN: Duration = Duration::from_millis(300);

/// How much later than its sync interval a commit may be stored on a busy machine.
const SLACK: Duration = Duration::from_secs(10);

/// What the files of a database that are snapshots begin with.
fn snapshots_of(name: &str) -> String {
    format!("{name}/0000000000000001-")
}

async fn start(scene: &Scene) -> Replicator {
    let replicator = scene.start().await;
    all_up_to_date(scene, &replicator).await;
    replicator
}

async fn all_up_to_date(scene: &Scene, replicator: &Replicator) {
    for (name, ..) in &scene.databases {
        wait_for_status(replicator, name, |status| status.up_to_date).await;
    }
}

/// Commits in a database and waits until storage has it; how long that took.
async fn stored_after(scene: &Scene, index: usize) -> Duration {
    let name = &scene.databases[index].0;
    let (before, began) = (scene.store.uploads(name).len(), Instant::now());
    scene.commit(index);
    wait_until("the upload of a commit", || scene.store.uploads(name).len() > before).await;
    began.elapsed()
}

/// Asks for a snapshot, which goes on when the future is polled again.
async fn begin_snapshot<'a>(replicator: &'a Replicator, name: &'a str) -> Pin<Box<impl Future>> {
    let mut snapshot = Box::pin(replicator.snapshot(name));
    let _ = tokio::time::timeout(Duration::from_millis(1), &mut snapshot).await;
    snapshot
}

#[tokio::test(flavor = "multi_thread")]
async fn b10_a_hanging_upload_and_slow_snapshots_hold_up_nobody_else() {
    let mut scene = Scene::new(10);
    scene.limits = UploadLimits { concurrency: 8, ..UploadLimits::default() };
    let replicator = start(&scene).await;
    let slow = ["b", "c", "d", "e", "f", "g", "h"];
    for index in 1..=slow.len() {
        stored_after(&scene, index).await;
    }
    all_up_to_date(&scene, &replicator).await;
    scene.store.hold(slow.map(snapshots_of).into_iter().chain(["a/".to_owned()]));
    scene.commit(0);
    let mut snapshots = Vec::new();
    for name in &slow {
        snapshots.push(begin_snapshot(&replicator, name).await);
    }
    wait_until("all slots that slow ones may take", || scene.store.holding() == 7).await;
    for index in [8, 9, 8, 9] {
        let took = stored_after(&scene, index).await;
        assert!(took < scene.sync_interval + SLACK, "{took:?}");
    }
    // One of the slow ones has no slot.
    let waits = |status: &UploaderStatus| status.under_way >= 7 && status.queued >= 1;
    let status = wait_for_uploads(&replicator, waits).await;
    assert!(status.bytes_under_way > 0 && status.bytes_queued > 0, "{status:?}");
    scene.store.hold([]);
    drop(snapshots);
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b10_one_database_that_always_hangs_takes_one_slot_for_a_bounded_time() {
    let mut scene = Scene::new(3);
    scene.limits = UploadLimits {
        concurrency: 1,
        attempt_timeout: Duration::from_millis(200),
        ..UploadLimits::default()
    };
    let replicator = start(&scene).await;
    scene.store.hold(["a/".to_owned()]);
    scene.commit(0);
    wait_until("the upload that hangs", || scene.store.holding() == 1).await;
    for index in [1, 2, 1, 2] {
        let took = stored_after(&scene, index).await;
        assert!(took < scene.sync_interval + SLACK, "{took:?}");
    }
    let failed = wait_for_status(&replicator, "a", |status| status.last_error.is_some()).await;
    let error = failed.last_error.unwrap();
    assert!(error.contains("a/") && error.contains("not done after 0.2 s"), "{error}");
    scene.store.hold([]);
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b11_a_failing_store_gets_one_request_per_cooldown_and_then_everything() {
    let mut scene = Scene::new(4);
    scene.breaker = BreakerSettings { enabled: true, threshold: 3, cooldown: COOLDOWN };
    let replicator = start(&scene).await;
    let stored = |scene: &Scene| -> Vec<usize> {
        scene.databases.iter().map(|(name, ..)| scene.store.uploads(name).len()).collect()
    };
    let before = stored(&scene);
    scene.store.set_away(true);
    scene.write(1);
    let open =
        |status: &UploaderStatus| status.breaker != BreakerState::Closed && status.under_way == 0;
    wait_for_uploads(&replicator, open).await;
    let began = Instant::now();
    let requests = scene.store.requests();
    while began.elapsed() < 5 * COOLDOWN || scene.store.requests() < requests + 2 {
        assert!(began.elapsed() < PATIENCE, "it does not look whether the store is back");
        scene.write(1);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (sent, time) = (scene.store.requests() - requests, began.elapsed());
    let cooldowns = time.as_millis().div_ceil(COOLDOWN.as_millis());
    assert!(sent as u128 <= cooldowns, "{sent} requests in {time:?}");
    scene.store.set_away(false);
    all_up_to_date(&scene, &replicator).await;
    let status = replicator.uploader_status().await.unwrap();
    assert_eq!(status.breaker, BreakerState::Closed);
    for (before, after) in before.iter().zip(stored(&scene)) {
        assert!(after - before <= 3, "b08: an outage is caught up with by a few uploads");
    }
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b11_half_open_lets_one_request_through_and_waits_for_its_end() {
    let mut scene = Scene::new(4);
    scene.breaker = BreakerSettings { enabled: true, threshold: 1, cooldown: COOLDOWN };
    let replicator = start(&scene).await;
    // One that comes later may be the probe, and nothing holds it.
    for (name, ..) in &scene.databases {
        scene.manifest(name).await;
    }
    scene.store.set_away(true);
    for index in 0..4 {
        scene.commit(index);
    }
    // What was under way when it opened has ended.
    let open = |status: &UploaderStatus| status.breaker == BreakerState::Open;
    wait_for_uploads(&replicator, |status| open(status) && status.under_way == 0).await;
    scene.store.hold(["a", "b", "c", "d"].map(|name| format!("{name}/")));
    scene.store.set_away(false);
    wait_until("the probe", || scene.store.holding() > 0).await;
    let began = Instant::now();
    while began.elapsed() < 3 * COOLDOWN {
        assert_eq!(scene.store.holding(), 1);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let status = replicator.uploader_status().await.unwrap();
    assert_eq!((status.breaker, status.under_way), (BreakerState::HalfOpen, 1));
    scene.store.hold([]);
    all_up_to_date(&scene, &replicator).await;
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_refused_credentials_are_no_failing_endpoint_and_no_end() {
    let mut scene = Scene::new(2);
    scene.breaker = BreakerSettings { enabled: true, threshold: 2, cooldown: PATIENCE };
    let replicator = start(&scene).await;
    let classes = [ErrorClass::Auth, ErrorClass::NotFound, ErrorClass::Permanent];
    scene.store.fail_next(classes.into_iter().cycle().take(30).map(Fault::Refused));
    scene.commit(0);
    wait_until("all refusals", || scene.store.faults_left() == 0).await;
    all_up_to_date(&scene, &replicator).await;
    let status = replicator.uploader_status().await.unwrap();
    assert_eq!(status.breaker, BreakerState::Closed);
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_panics_gives_its_slot_back_and_is_tried_again() {
    let mut scene = Scene::new(1);
    scene.limits = UploadLimits { concurrency: 1, ..UploadLimits::default() };
    let replicator = start(&scene).await;
    scene.store.fail_next([Fault::Panic; 3]);
    scene.commit(0);
    wait_until("all panics", || scene.store.faults_left() == 0).await;
    all_up_to_date(&scene, &replicator).await;
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b10_a_database_at_its_rate_limit_holds_up_nobody_else() {
    let mut scene = Scene::new(2);
    shut_down(scene.start().await).await;
    scene.limits = UploadLimits {
        concurrency: 1,
        requests_per_second_per_database: 1,
        ..UploadLimits::default()
    };
    let replicator = start(&scene).await;
    let mut overtook = false;
    // A busy machine may need longer for one commit than the limit holds up the other.
    for _ in 0..10 {
        let began = Instant::now();
        stored_after(&scene, 0).await;
        let stored = scene.store.uploads("a").len();
        scene.commit(0);
        wait_for_uploads(&replicator, |status| {
            let waits = (status.queued, status.under_way) == (1, 0);
            waits || scene.store.uploads("a").len() > stored
        })
        .await;
        stored_after(&scene, 1).await;
        all_up_to_date(&scene, &replicator).await;
        let uploads = scene.store.uploads("a");
        let [.., first, second] = &uploads[..] else { panic!("two commits: {uploads:?}") };
        // The first may have taken long, but did not begin before its commit.
        assert!(*first >= began);
        assert!(*second - began > Duration::from_millis(900), "{:?}", *second - began);
        overtook = scene.store.uploads("b").last() < Some(second);
        if overtook {
            break;
        }
    }
    assert!(overtook, "the other database waits as well");
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_of_all_uploads_together_is_limited() {
    let mut scene = Scene::new(6);
    shut_down(scene.start().await).await;
    scene.limits =
        UploadLimits { concurrency: 8, requests_per_second: 4, ..UploadLimits::default() };
    let replicator = start(&scene).await;
    let began = Instant::now();
    let requests = scene.store.requests();
    while began.elapsed() < Duration::from_secs(3) || scene.store.requests() < requests + 6 {
        assert!(began.elapsed() < PATIENCE, "it does not keep shipping");
        for index in 0..6 {
            scene.commit(index);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sent = scene.store.requests() - requests;
    let most = 4 + 4 * (began.elapsed().as_secs_f64().ceil() as usize);
    assert!(sent <= most, "{sent} requests, where {most} are allowed");
    shut_down(replicator).await;
    scene.assert_restorable().await;
}
