//! Databases that nothing happens to have no actor, and nobody notices.

use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use walrust_actors::{DatabasePhase, Replicator, Settings};
use walrust_ltx::Txid;
use walrust_sqlite::sidecar;
use walrust_testkit::Prng;

use crate::scene::{PATIENCE, Scene, shut_down, wait_for_phase, wait_for_status};

/// Called in the moment in which an actor gives its database up, before anybody hears of it.
struct OnRest<F>(F);

impl<S: tracing::Subscriber, F: Fn() + 'static> Layer<S> for OnRest<F> {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Message(bool);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 |= field.name() == "message" && format!("{value:?}") == "rests";
            }
        }
        let mut message = Message(false);
        event.record(&mut message);
        if message.0 {
            (self.0)();
        }
    }
}

/// Each test is a process of its own.
pub(crate) fn count_rests() -> Arc<AtomicUsize> {
    let rests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&rests);
    let count = move || {
        counter.fetch_add(1, Ordering::SeqCst);
    };
    tracing_subscriber::registry().with(OnRest(count)).init();
    rests
}

pub(crate) async fn wait_for_rests(rests: &AtomicUsize, at_least: usize) {
    let began = Instant::now();
    while rests.load(Ordering::SeqCst) < at_least {
        assert!(began.elapsed() < PATIENCE, "{} of {at_least} rests", rests.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn settings(scene: &Scene) -> Settings {
    let quick = Duration::from_millis(10);
    let mut settings = Settings { rest_after: quick, manifest_interval: quick, ..scene.settings() };
    for database in &mut settings.databases {
        // A WAL that is not in the database file yet is something to do.
        database.checkpoint.interval = quick;
    }
    settings
}

/// Something that looks like a write to a database: whoever wakes for it has nothing to do.
pub(crate) fn touch_wal(database: &Path) {
    let wal = std::fs::File::options().write(true).open(sidecar(database, "-wal"));
    wal.unwrap().set_modified(std::time::SystemTime::now()).unwrap();
}

async fn incarnations(replicator: &Replicator) -> Vec<u64> {
    let status = replicator.overview().await.unwrap();
    status.databases.iter().map(|database| database.incarnation).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_rests_wakes_for_whatever_comes() {
    let rests = count_rests();
    let mut scene = Scene::new(3);
    let replicator = scene.start_with(settings(&scene)).await;
    wait_for_rests(&rests, 3).await;
    for (name, ..) in &scene.databases {
        let status = replicator.status(name).await.unwrap();
        assert_eq!((status.phase, status.up_to_date), (DatabasePhase::Replicating, true));
        assert_eq!(status.lag, Duration::ZERO);
    }
    let requests = scene.store.requests();
    let before = rests.load(Ordering::SeqCst);
    assert_eq!(incarnations(&replicator).await, [1, 1, 1]);
    assert_eq!(rests.load(Ordering::SeqCst), before, "a question wakes nobody");

    // A commit that nothing but the watcher sees.
    let txid = replicator.status("a").await.unwrap().txid.unwrap();
    scene.commit(0);
    wait_for_status(&replicator, "a", |status| status.txid > Some(txid)).await;
    wait_for_rests(&rests, before + 1).await;
    assert!(scene.store.requests() > requests);

    // A question that storage has to answer.
    scene.write(2);
    for (name, ..) in &scene.databases {
        replicator.sync(name).await.unwrap();
    }
    scene.assert_restorable().await;
    wait_for_rests(&rests, before + 4).await;
    replicator.snapshot("b").await.unwrap();
    wait_for_rests(&rests, before + 5).await;

    // Other settings, for one.
    let mut changed = settings(&scene);
    changed.databases[2].sync_interval += Duration::from_millis(1);
    let applied = replicator.reconfigure(changed, None).await.unwrap();
    assert_eq!(applied.changed, ["c"]);
    wait_for_status(&replicator, "c", |status| status.revision == 2).await;
    wait_for_rests(&rests, before + 6).await;
    assert_eq!(incarnations(&replicator).await, [1, 1, 1], "nobody was opened again");

    // Pausing lets go of the files.
    assert_eq!(replicator.pause("a").await.unwrap(), None);
    wait_for_phase(&replicator, "a", DatabasePhase::Paused).await;
    scene.commit(0);
    replicator.resume("a").await.unwrap();
    wait_for_rests(&rests, before + 7).await;
    // The last commits come while all rest.
    scene.write(1);
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_at_random_moments_are_shipped_whether_a_database_rests_or_not() {
    let rests = count_rests();
    let scene = Scene::new(4);
    let replicator = scene.start_with(settings(&scene)).await;
    for (name, ..) in &scene.databases {
        wait_for_status(&replicator, name, |status| status.up_to_date).await;
    }
    let mut expected = Vec::new();
    for (name, ..) in &scene.databases {
        expected.push(replicator.status(name).await.unwrap().txid.unwrap().get());
    }
    let mut prng = Prng::new(1);
    for _ in 0..400 {
        let (index, before) = (prng.between(0, 3) as usize, rests.load(Ordering::SeqCst));
        scene.commit(index);
        expected[index] += 1;
        // On a slow machine short pauses alone would let none of them rest.
        if prng.between(0, 5) == 0 {
            wait_for_rests(&rests, before + 1).await;
        }
        // About as long as it takes to come to rest.
        tokio::time::sleep(Duration::from_millis(prng.between(0, 30))).await;
    }
    // Nobody asks: what was committed last is found by the watcher alone.
    for ((name, ..), expected) in scene.databases.iter().zip(expected) {
        let has_all = |txid: Txid| txid.get() == expected;
        wait_for_status(&replicator, name, |status| {
            status.up_to_date && status.lag.is_zero() && status.txid.is_some_and(has_all)
        })
        .await;
    }
    scene.assert_restorable().await;
    assert!(rests.load(Ordering::SeqCst) > 50, "{} rests", rests.load(Ordering::SeqCst));
    assert_eq!(incarnations(&replicator).await, [1; 4]);
    shut_down(replicator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_meet_an_actor_on_its_way_to_rest_are_answered() {
    let (rests, mut rested) = tokio::sync::mpsc::unbounded_channel();
    let tell = move || {
        let _ = rests.send(());
    };
    tracing_subscriber::registry().with(OnRest(tell)).init();
    let mut scene = Scene::new(1);
    let settings = Settings { rest_after: Duration::from_millis(1), ..settings(&scene) };
    let replicator = scene.start_with(settings).await;
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    let mut prng = Prng::new(2);
    for round in 0..60 {
        if round % 3 == 0 {
            // About when the last look of the round before has shown nothing.
            tokio::time::sleep(Duration::from_millis(prng.between(145, 175))).await;
        } else {
            // In the moment in which it is given up, and the root has not heard of it.
            while rested.try_recv().is_ok() {}
            replicator.sync("a").await.unwrap();
            tokio::time::timeout(PATIENCE, rested.recv()).await.unwrap().unwrap();
        }
        let (sync, status) = tokio::join!(replicator.sync("a"), replicator.status("a"));
        assert!(sync.is_ok() && status.is_ok(), "{sync:?} {status:?}");
        if round % 10 == 0 {
            scene.write(1);
            replicator.snapshot("a").await.unwrap();
        }
        let overview = replicator.overview().await.unwrap();
        assert_eq!(overview.databases.len(), 1, "it is there all the time");
    }
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e02_a_hint_about_nothing_leaves_no_database_behind() {
    let rests = count_rests();
    let mut scene = Scene::new(1);
    // Nothing is shipped before this is over.
    scene.sync_interval = Duration::from_secs(3600);
    let replicator = scene.start_with(settings(&scene)).await;
    wait_for_rests(&rests, 1).await;
    for _ in 0..3 {
        let before = rests.load(Ordering::SeqCst);
        touch_wal(&scene.path(0));
        wait_for_rests(&rests, before + 1).await;
    }
    wait_for_status(&replicator, "a", |status| status.up_to_date && status.lag.is_zero()).await;
    shut_down(replicator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pace_of_uploads_outlives_a_rest() {
    let rests = count_rests();
    let mut scene = Scene::new(1);
    scene.sync_interval = Duration::from_secs(2);
    let replicator = scene.start_with(settings(&scene)).await;
    wait_for_rests(&rests, 1).await;
    let mut shipped = Vec::new();
    for _ in 0..2 {
        let before = (replicator.status("a").await.unwrap().txid, rests.load(Ordering::SeqCst));
        scene.commit(0);
        wait_for_status(&replicator, "a", |status| status.txid > before.0).await;
        shipped.extend(scene.store.uploads("a").last().copied());
        wait_for_rests(&rests, before.1 + 1).await;
    }
    let apart = shipped[1] - shipped[0];
    assert!(apart > Duration::from_millis(1500), "two uploads within {apart:?}");
    shut_down(replicator).await;
}

/// How often this process has the wal-index of a database open. The database file itself tells less:
/// SQLite keeps descriptors of it that other connections of the process have closed.
fn open_indexes(database: &Path) -> usize {
    let index = sidecar(database, "-shm");
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    targets.filter(|target| *target == index).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_answered_when_nothing_is_open_even_in_the_moment_of_a_rest() {
    let (begins, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let (go, goes) = std::sync::mpsc::channel::<()>();
    let goes = Mutex::new(goes);
    let hold = move || {
        let _ = begins.send(());
        // Nobody holds it when the test has ended.
        let _ = goes.lock().unwrap().recv();
    };
    tracing_subscriber::registry().with(OnRest(hold)).init();
    let scene = Scene::new(1);
    let path = scene.databases[0].1.path().to_owned();
    let before = open_indexes(&path);
    let replicator = Arc::new(scene.start_with(settings(&scene)).await);
    for _ in 0..40 {
        begun.recv().await.unwrap();
        let pause = || {
            let (replicator, path) = (Arc::clone(&replicator), path.clone());
            async move {
                let paused = replicator.pause("a").await;
                assert_eq!((paused.unwrap(), open_indexes(&path)), (None, before));
            }
        };
        let mut first = pin!(pause());
        tokio::select! {
            biased;
            () = &mut first => panic!("it is open"),
            () = std::future::ready(()) => {}
        }
        // Answered behind the pause, which the actor is told while it gives its database up.
        assert!(replicator.resume("nobody").await.is_err());
        go.send(()).unwrap();
        // Some of these come while the database rests and is to be woken again, for the first one.
        let mut pauses = JoinSet::new();
        for _ in 0..50 {
            pauses.spawn(pause());
            tokio::task::yield_now().await;
        }
        first.await;
        while let Some(paused) = pauses.join_next().await {
            paused.unwrap();
        }
        replicator.resume("a").await.unwrap();
    }
    begun.recv().await.unwrap();
    drop(go);
    shut_down(Arc::into_inner(replicator).unwrap()).await;
}
