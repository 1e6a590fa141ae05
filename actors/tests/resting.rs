//! Databases that nothing happens to have no actor, and nobody notices.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use walrust_actors::{DatabasePhase, DatabaseStatus, Replicator, Settings};
use walrust_ltx::Txid;
use walrust_sqlite::sidecar;
use walrust_testkit::Prng;

use crate::scene::{PATIENCE, Scene, shut_down, status_of, wait_for_phase, wait_for_status};

/// Called in the moment in which an actor gives its database up, before anybody hears of it.
struct OnRest<F>(F);

impl<S: tracing::Subscriber, F: Fn(&str) + 'static> Layer<S> for OnRest<F> {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        #[derive(Default)]
        struct Message {
            is_rest: bool,
            database: String,
        }
        impl tracing::field::Visit for Message {
            fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
                if field.name() == "db" {
                    value.clone_into(&mut self.database);
                }
            }

            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.is_rest |= field.name() == "message" && format!("{value:?}") == "rests";
            }
        }
        let mut message = Message::default();
        event.record(&mut message);
        if message.is_rest {
            (self.0)(&message.database);
        }
    }
}

/// How often each database has come to rest. One that was looked at for nothing rests again: how often
/// all of them have says nothing of any of them.
#[derive(Default)]
pub(crate) struct Rests(Mutex<BTreeMap<String, usize>>);

impl Rests {
    pub(crate) fn of(&self, name: &str) -> usize {
        self.0.lock().unwrap().get(name).copied().unwrap_or_default()
    }

    fn all(&self) -> usize {
        self.0.lock().unwrap().values().sum()
    }
}

/// Each test is a process of its own.
pub(crate) fn count_rests() -> Arc<Rests> {
    let rests = Arc::new(Rests::default());
    let counter = Arc::clone(&rests);
    let count = move |name: &str| {
        *counter.0.lock().unwrap().entry(name.to_owned()).or_default() += 1;
    };
    tracing_subscriber::registry().with(OnRest(count)).init();
    rests
}

pub(crate) async fn wait_for_rests(rests: &Rests, name: &str, at_least: usize) {
    let began = Instant::now();
    while rests.of(name) < at_least {
        let rests = rests.of(name);
        assert!(began.elapsed() < PATIENCE, "{rests} of {at_least} rests of {name}");
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

/// Waits until nobody has come to rest between two looks, and everybody said that there is nothing to
/// do: the watcher has each database looked at now and then while its files are young.
async fn wait_for_undisturbed_answers(replicator: &Replicator, rests: &Rests) {
    let began = Instant::now();
    loop {
        let before = rests.all();
        let databases = replicator.overview().await.unwrap().databases;
        let is_busy = |status: &DatabaseStatus| {
            let at_rest = status.phase == DatabasePhase::Replicating && status.up_to_date;
            !(at_rest && status.lag.is_zero())
        };
        let busy: Vec<_> = databases.iter().filter(|status| is_busy(status)).collect();
        // A question wakes nobody.
        if busy.is_empty() && rests.all() == before {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{busy:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_rests_wakes_for_whatever_comes() {
    let rests = count_rests();
    let mut scene = Scene::new(3);
    let replicator = scene.start_with(settings(&scene)).await;
    for name in ["a", "b", "c"] {
        wait_for_rests(&rests, name, 1).await;
    }
    wait_for_undisturbed_answers(&replicator, &rests).await;
    let requests = scene.store.requests();
    assert_eq!(incarnations(&replicator).await, [1, 1, 1]);

    // A commit that nothing but the watcher sees.
    let txid = status_of(&replicator, "a").await.txid.unwrap();
    let before = rests.of("a");
    scene.commit(0);
    wait_for_status(&replicator, "a", |status| status.txid > Some(txid)).await;
    wait_for_rests(&rests, "a", before + 1).await;
    assert!(scene.store.requests() > requests);

    // A question that storage has to answer.
    scene.write(2);
    let before = ["a", "b", "c"].map(|name| (name, rests.of(name)));
    for (name, _) in before {
        replicator.sync(name).await.unwrap();
    }
    scene.assert_restorable().await;
    for (name, before) in before {
        wait_for_rests(&rests, name, before + 1).await;
    }
    let before = rests.of("b");
    replicator.snapshot("b").await.unwrap();
    wait_for_rests(&rests, "b", before + 1).await;

    // Other settings, for one.
    let mut changed = settings(&scene);
    changed.databases[2].sync_interval += Duration::from_millis(1);
    let before = rests.of("c");
    let applied = replicator.reconfigure(changed, None).await.unwrap();
    assert_eq!(applied.changed, ["c"]);
    wait_for_status(&replicator, "c", |status| status.revision == 2).await;
    wait_for_rests(&rests, "c", before + 1).await;
    assert_eq!(incarnations(&replicator).await, [1, 1, 1], "nobody was opened again");

    // Pausing lets go of the files.
    assert_eq!(replicator.pause("a").await.unwrap(), None);
    wait_for_phase(&replicator, "a", DatabasePhase::Paused).await;
    scene.commit(0);
    let before = rests.of("a");
    replicator.resume("a").await.unwrap();
    wait_for_rests(&rests, "a", before + 1).await;
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
        expected.push(status_of(&replicator, name).await.txid.unwrap().get());
    }
    let mut prng = Prng::new(1);
    for _ in 0..400 {
        let index = prng.between(0, 3) as usize;
        let name = &scene.databases[index].0;
        let before = rests.of(name);
        scene.commit(index);
        expected[index] += 1;
        // On a slow machine short pauses alone would let none of them rest.
        if prng.between(0, 5) == 0 {
            wait_for_rests(&rests, name, before + 1).await;
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
    assert!(rests.all() > 50, "{} rests", rests.all());
    assert_eq!(incarnations(&replicator).await, [1; 4]);
    shut_down(replicator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_meet_an_actor_on_its_way_to_rest_are_answered() {
    let (rests, mut rested) = tokio::sync::mpsc::unbounded_channel();
    let tell = move |_: &str| {
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
    wait_for_rests(&rests, "a", 1).await;
    for _ in 0..3 {
        let before = rests.of("a");
        touch_wal(&scene.path(0));
        wait_for_rests(&rests, "a", before + 1).await;
    }
    wait_for_status(&replicator, "a", |status| status.up_to_date && status.lag.is_zero()).await;
    shut_down(replicator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pace_of_uploads_outlives_a_rest() {
    let rests = count_rests();
    let mut scene = Scene::new(1);
    scene.sync_interval = Duration::from_secs(2);
    let began = Instant::now();
    let replicator = scene.start_with(settings(&scene)).await;
    wait_for_rests(&rests, "a", 1).await;
    // The snapshot was one; each of the others comes an interval after the one before at the earliest.
    // How long an upload takes tells nothing, so all are measured from the beginning.
    for intervals in 1..=2 {
        let before = (status_of(&replicator, "a").await.txid, rests.of("a"));
        scene.commit(0);
        wait_for_status(&replicator, "a", |status| status.txid > before.0).await;
        let shipped = *scene.store.uploads("a").last().unwrap() - began;
        let least = intervals * scene.sync_interval;
        assert!(shipped >= least, "{intervals} and the snapshot within {shipped:?}");
        wait_for_rests(&rests, "a", before.1 + 1).await;
    }
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
    let hold = move |_: &str| {
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
