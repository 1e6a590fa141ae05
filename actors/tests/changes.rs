//! What is replicated changes while the tree runs.

use std::sync::Arc;
use std::time::Duration;

use walrust_actors::{Applied, DatabasePhase, Replicator, ReplicatorError};
use walrust_storage::ObjectStore;

use crate::fault_store::{Fault, FaultStore};
use crate::scene::{Scene, shut_down, status_of, wait_for_phase, wait_for_status, wait_until};

async fn all_stored(replicator: &Replicator, scene: &Scene) {
    for (name, ..) in &scene.databases {
        wait_for_status(replicator, name, |status| status.up_to_date).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_touches_the_databases_it_concerns_and_no_other() {
    let mut scene = Scene::new(20);
    let replicator = scene.start().await;
    all_stored(&replicator, &scene).await;

    let mut settings = scene.settings();
    settings.databases.retain(|database| database.name != "c");
    for database in &mut settings.databases {
        match database.name.as_str() {
            "d" => database.sync_interval = Duration::from_millis(20),
            "e" => database.wal_pin = walrust_sqlite::WalPin::Connection,
            _ => {}
        }
    }
    let applied = replicator.reconfigure(settings, None).await.unwrap();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let expected =
        Applied { added: names(&[]), removed: names(&["c"]), changed: names(&["d", "e"]) };
    assert_eq!(applied, expected);
    // A pin of another kind needs another opening; a pace does not.
    wait_for_status(&replicator, "e", |status| status.incarnation == 2 && status.up_to_date).await;
    wait_for_status(&replicator, "d", |status| status.revision == 2).await;
    let overview = replicator.overview().await.unwrap();
    for status in &overview.databases {
        let touched = match status.name.as_str() {
            "d" => (1, 2),
            "e" => (2, 2),
            _ => (1, 1),
        };
        assert_eq!((status.incarnation, status.revision), touched, "{}", status.name);
    }
    wait_for_removal(&replicator, "c").await;

    // It comes back and is continued.
    let applied = replicator.reconfigure(scene.settings(), None).await.unwrap();
    assert_eq!(applied.added, ["c"]);
    scene.write(3);
    all_stored(&replicator, &scene).await;
    shut_down(replicator).await;
    scene.assert_restorable().await;
    let snapshots = scene.tree("c").await.files;
    let snapshots = snapshots.iter().filter(|file| file.name.is_snapshot());
    assert_eq!(snapshots.count(), 1, "the history of c goes on");
}

/// Descriptors of this process on a database or its wal-index.
fn descriptors(path: &std::path::Path) -> usize {
    let path = path.display().to_string();
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = links.filter_map(|link| std::fs::read_link(link.unwrap().path()).ok());
    targets.filter(|target| target.display().to_string().starts_with(&path)).count()
}

pub(crate) async fn wait_for_removal(replicator: &Replicator, name: &str) {
    let removed = async {
        while !matches!(replicator.status(name).await, Err(ReplicatorError::NotRunning { .. })) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), removed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_ships_what_it_has_first() {
    let scene = Scene::new(2);
    let replicator = scene.start().await;
    all_stored(&replicator, &scene).await;
    scene.commit(0);
    let mut settings = scene.settings();
    settings.databases.remove(0);
    replicator.reconfigure(settings, None).await.unwrap();
    wait_for_removal(&replicator, "a").await;
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_database_is_let_go_of_and_resumed_where_it_was() {
    let scene = Scene::new(2);
    let replicator = scene.start().await;
    all_stored(&replicator, &scene).await;
    scene.commit(0);
    let open = descriptors(&scene.path(0));
    assert_eq!(replicator.pause("a").await.unwrap(), None);
    let status = status_of(&replicator, "a").await;
    assert_eq!(status.phase, DatabasePhase::Paused);
    scene.assert_restorable().await;

    // What is left is what this test has open itself.
    assert!(descriptors(&scene.path(0)) < open);
    scene.commit(0);
    let uploads = scene.store.uploads("a").len();
    assert!(matches!(replicator.sync("a").await, Err(ReplicatorError::Paused { .. })));
    assert!(matches!(replicator.snapshot("a").await, Err(ReplicatorError::Paused { .. })));
    assert_eq!(scene.store.uploads("a").len(), uploads);

    // A change that needs another opening does not end the pause, and counts afterwards.
    let mut settings = scene.settings();
    settings.databases[0].wal_pin = walrust_sqlite::WalPin::Connection;
    assert_eq!(replicator.reconfigure(settings, None).await.unwrap().changed, ["a"]);
    assert_eq!(status_of(&replicator, "a").await.phase, DatabasePhase::Paused);

    replicator.resume("a").await.unwrap();
    wait_for_status(&replicator, "a", |status| status.up_to_date).await;
    assert_eq!(status_of(&replicator, "b").await.incarnation, 1);
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_ship_does_not_hold_up_its_pause_for_ever() {
    let scene = Scene::new(1);
    let replicator = scene.start().await;
    all_stored(&replicator, &scene).await;
    scene.store.fail_next([Fault::Silence]);
    scene.commit(0);
    let problem = replicator.pause("a").await.unwrap();
    assert!(problem.is_some_and(|problem| problem.contains("not everything")));
    wait_for_phase(&replicator, "a", DatabasePhase::Paused).await;
    replicator.resume("a").await.unwrap();
    wait_for_status(&replicator, "a", |status| status.incarnation == 2).await;
    replicator.shut_down(Duration::from_millis(100)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_ends_when_storage_has_everything_or_says_why_not() {
    let mut scene = Scene::new(2);
    // Nobody would ship for an hour without being asked.
    scene.sync_interval = Duration::from_secs(3600);
    let replicator = scene.start().await;
    all_stored(&replicator, &scene).await;
    scene.write(3);
    // The first commit after a quiet spell goes at once; what comes after it waits.
    replicator.sync("a").await.unwrap();
    let before = scene.tree("a").await.files.iter().map(|file| file.name.max).max().unwrap();
    scene.commit(0);
    let txid = replicator.sync("a").await.unwrap().unwrap();
    assert_eq!(txid, before.next());
    let after = scene.tree("a").await.files.iter().map(|file| file.name.max).max();
    assert_eq!(after, Some(txid));

    let missing = replicator.sync("nobody").await;
    assert!(matches!(missing, Err(ReplicatorError::NotRunning { .. })), "{missing:?}");
    shut_down(replicator).await;
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_store_gets_a_history_of_its_own() {
    let mut scene = Scene::new(3);
    let replicator = scene.start().await;
    all_stored(&replicator, &scene).await;
    scene.write(3);

    let old = Arc::clone(&scene.store);
    scene.store = Arc::new(FaultStore::default());
    let store: Arc<dyn ObjectStore> = scene.store.clone();
    replicator.reconfigure(scene.settings(), Some(store)).await.unwrap();
    for (name, ..) in &scene.databases {
        let moved =
            |status: &walrust_actors::DatabaseStatus| status.incarnation == 2 && status.up_to_date;
        wait_for_status(&replicator, name, moved).await;
    }
    // An upload that was under way goes on for as long as there is somebody who has the old store.
    wait_until("nobody but us", || Arc::strong_count(&old) == 1).await;
    let uploads = old.uploads("a").len();
    scene.write(3);
    shut_down(replicator).await;
    assert_eq!(old.uploads("a").len(), uploads, "the old store gets nothing any more");
    scene.assert_restorable().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_configuration_is_shown_until_a_valid_one_comes() {
    let scene = Scene::new(1);
    let replicator = scene.start().await;
    replicator.config_rejected("walrust.toml:3: unknown key".to_owned()).unwrap();
    let status = replicator.overview().await.unwrap();
    assert_eq!(status.config_error.as_deref(), Some("walrust.toml:3: unknown key"));
    replicator.reconfigure(scene.settings(), None).await.unwrap();
    assert_eq!(replicator.overview().await.unwrap().config_error, None);
    shut_down(replicator).await;
}
