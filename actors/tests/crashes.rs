//! Actors that crash, at every message, alone and in bursts.
//!
//! Crash points are global to the process: nextest gives every test its own.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use walrust_actors::{DatabasePhase, Replicator, Settings, WebhookSettings};
use walrust_engine::{RestartSettings, RetentionPolicy};
use walrust_testkit::{Prng, WebhookReceiver};

use crate::fault_store::Fault;
use crate::scene::{PATIENCE, Scene, shut_down, wait_for_phase, wait_for_status};

/// Every message of every actor, but those of the root, which is the process, and those after which
/// nothing goes on: a conflict, the end. That storage loses a state is in `healing`.
const MESSAGES: &[(&str, &[&str])] = &[
    (
        "database",
        &[
            "open",
            "opened",
            "wal_changed",
            "due",
            "job_ended",
            "snapshot_read",
            "uploaded",
            "upload_failed",
            "manifest_due",
            "manifest_written",
            "overtaken",
            "uploader_restarted",
            "scheduler_restarted",
            "retention_restarted",
            "validation_restarted",
            "rest",
            "snapshot_due",
            "snapshot",
            "snapshot_checked",
            "sync",
            "reconfigured",
            "drain",
            "resume",
            "status",
        ],
    ),
    ("snapshots", &["replicated", "confirmed", "taken", "ended", "forget", "due"]),
    ("retention", &["replicated", "indexed", "snapshot_taken", "due", "ended", "forget"]),
    ("validation", &["replicated", "snapshot_taken", "due", "ended", "forget"]),
    ("uploader", &["offer", "forget", "ended", "due", "admit", "asked", "status"]),
    ("watcher", &["watch", "unwatch"]),
    ("webhook", &["raise", "reconfigure", "ended", "heartbeat_due"]),
];

/// Gets the events of every tree.
static RECEIVER: LazyLock<WebhookReceiver> = LazyLock::new(WebhookReceiver::that_accepts);

/// What leads to a message is done so often at most; some depend on a race.
const ROUNDS: usize = 8;

/// Counts the deaths that the root reports.
struct Deaths(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Deaths {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        struct IsDeath(bool);
        impl tracing::field::Visit for IsDeath {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 |= field.name() == "message" && format!("{value:?}") == "an actor died";
            }
        }
        let mut visitor = IsDeath(false);
        event.record(&mut visitor);
        self.0.fetch_add(usize::from(visitor.0), Ordering::SeqCst);
    }
}

pub(crate) fn count_deaths() -> Arc<AtomicUsize> {
    let deaths = Arc::new(AtomicUsize::new(0));
    tracing_subscriber::registry().with(Deaths(Arc::clone(&deaths))).init();
    deaths
}

/// A tree that restarts what dies at once and never gives up on it.
async fn start(scene: &Scene) -> Replicator {
    scene.start_with(settings(scene)).await
}

fn settings(scene: &Scene) -> Settings {
    let mut settings = scene.settings();
    settings.restart = RestartSettings {
        intensity: usize::MAX,
        base_delay: Duration::from_millis(1),
        max_delay: Duration::from_millis(20),
        ..RestartSettings::default()
    };
    settings.manifest_interval = Duration::from_millis(20);
    settings.webhooks = vec![WebhookSettings {
        url: RECEIVER.url("/"),
        events: Vec::new(),
        secret: None,
        heartbeat_interval: Duration::ZERO,
    }];
    for database in &mut settings.databases {
        database.snapshot.max_changes = 3;
        database.checkpoint.interval = Duration::from_millis(10);
        database.snapshot.on_idle = Duration::from_millis(30);
        database.compaction.after_snapshot = true;
        database.validation.interval = Duration::from_millis(30);
        database.compaction.interval = Duration::from_millis(50);
        // Everything but the newest states is merged or removed all the time.
        database.compaction.policy = RetentionPolicy { hourly: 0, daily: 0, weekly: 0, monthly: 0 };
    }
    settings
}

/// Has the tree do everything that leads to a message.
async fn provoke(replicator: &Replicator, scene: &mut Scene) {
    scene.store.fail_next([
        Fault::Refused(walrust_engine::ErrorClass::Transient),
        Fault::LostReply,
        Fault::Overtaken,
    ]);
    scene.write(4);
    for (name, ..) in &scene.databases {
        // Refusals are fine: their actor may be the one that crashes.
        let _ = replicator.snapshot(name).await;
        let _ = replicator.sync(name).await;
        let _ = replicator.status(name).await;
    }
    let _ = replicator.uploader_status().await;
    // One is let go of and taken up again, another comes to rest.
    let _ = replicator.pause("a").await;
    let _ = replicator.resume("a").await;
    scene.commit(1);
    let _ = replicator.sync("b").await;
    // It is not paused, and says so itself.
    let _ = replicator.resume("b").await;
    // The second is of a state that has one.
    for _ in 0..2 {
        let _ = replicator.snapshot("b").await;
    }
    tokio::time::sleep(Duration::from_millis(60)).await;
    let mut settings = settings(scene);
    // Other retries are another uploader, another bound another scheduler.
    settings.retry.max_retries += 1;
    settings.snapshots_at_once += 1;
    settings.webhooks.pop();
    for database in &mut settings.databases {
        database.sync_interval += Duration::from_millis(1);
    }
    replicator.reconfigure(settings, None).await.unwrap();
    replicator.reconfigure(self::settings(scene), None).await.unwrap();
}

async fn assert_whole(replicator: Replicator, scene: &mut Scene) {
    scene.store.heal();
    scene.write(1);
    for (name, ..) in &scene.databases {
        let began = Instant::now();
        while replicator.sync(name).await.is_err() {
            assert!(began.elapsed() < PATIENCE, "{name} is not replicated any more");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        wait_for_phase(&replicator, name, DatabasePhase::Replicating).await;
    }
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_every_actor_may_be_its_last() {
    let deaths = count_deaths();
    let mut never = Vec::new();
    for (actor, messages) in MESSAGES {
        for message in *messages {
            let point = format!("{actor}::{message}");
            let mut reached = false;
            for action in ["1*return", "1*panic", "3*return"] {
                let mut scene = Scene::new(2);
                let before = deaths.load(Ordering::SeqCst);
                // Before the first messages, of which some come once.
                fail::cfg(&point, action).unwrap();
                let replicator = start(&scene).await;
                for _ in 0..ROUNDS {
                    let round = tokio::time::timeout(PATIENCE, provoke(&replicator, &mut scene));
                    round.await.unwrap_or_else(|_| panic!("{point} {action}: the tree hangs"));
                    // The root hears of a death a moment later.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    if deaths.load(Ordering::SeqCst) > before {
                        break;
                    }
                }
                fail::remove(&point);
                // Some messages come only if a race goes one way: one of three times is enough.
                reached |= deaths.load(Ordering::SeqCst) > before;
                assert_whole(replicator, &mut scene).await;
            }
            if !reached {
                never.push(point);
            }
        }
    }
    // Only the death of another actor leads to these, and nothing to a change of what is known.
    let of_others = ["database::retention_restarted", "database::validation_restarted"];
    never.retain(|point| !of_others.iter().any(|it| point.starts_with(it)));
    assert_eq!(never, Vec::<String>::new(), "crash points that were never reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_crashes_under_load_lose_nothing_and_delay_nobody_else() {
    const CRASHES: usize = 500;
    let deaths = count_deaths();
    let mut scene = Scene::new(6);
    let replicator = start(&scene).await;
    for (name, ..) in &scene.databases {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    let done = Arc::new(AtomicBool::new(false));
    let watched = tokio::spawn(longest_lag(replicator.clone(), Arc::clone(&done)));
    let points: Vec<String> = MESSAGES
        .iter()
        .flat_map(|(actor, messages)| messages.iter().map(move |it| format!("{actor}::{it}")))
        .collect();
    let mut random = Prng::new(7);
    while deaths.load(Ordering::SeqCst) < CRASHES {
        let point = &points[random.below(points.len() as u64) as usize];
        let action = ["1*return", "1*panic", "4*return"][random.below(3) as usize];
        fail::cfg(point, action).unwrap();
        scene.write(1);
        tokio::time::sleep(Duration::from_millis(random.below(15))).await;
        fail::remove(point);
    }
    done.store(true, Ordering::SeqCst);
    let (name, lag) = watched.await.unwrap();
    println!("the longest lag of all, of {name}: {lag:?}");
    assert!(lag < Duration::from_secs(2), "{name} was {lag:?} behind");
    assert_whole(replicator, &mut scene).await;
}

/// The longest lag of a database between two crashes of its own.
async fn longest_lag(replicator: Replicator, done: Arc<AtomicBool>) -> (String, Duration) {
    let mut longest = (String::new(), Duration::ZERO);
    while !done.load(Ordering::SeqCst) {
        for status in replicator.overview().await.unwrap().databases {
            if status.phase == DatabasePhase::Replicating && status.lag > longest.1 {
                longest = (status.name, status.lag);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    longest
}
