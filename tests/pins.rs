//! What keeps the application from reusing its WAL too early, as the configuration says, and where
//! local state lives.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;
use walrust_testkit::{TestDatabase, assert_same_database, sidecar};

use crate::daemon::Daemon;
use crate::storage::Storage;
use crate::walrust::{Walrust, names_in};

struct Scene {
    _directory: TempDir,
    source: PathBuf,
    storage: Storage,
    walrust: Walrust,
}

impl Scene {
    /// A database that is watched with this configuration, and in storage.
    fn watched(configuration: &str) -> (Self, Daemon) {
        let (directory, source) = TestDatabase::with_history(4096, 1, 10).close();
        let storage = Storage::directory();
        let walrust = Walrust::on(&storage);
        walrust.configure(configuration);
        let mut daemon = walrust.watch(&[&source]);
        storage.wait_for_txid(&mut daemon, "app", 1);
        (Self { _directory: directory, source, storage, walrust }, daemon)
    }

    /// An application that gives up at once where it is locked out.
    fn application(&self) -> Connection {
        let connection = Connection::open(&self.source).expect("the database opens");
        connection.execute_batch("PRAGMA busy_timeout = 0").expect("a setting");
        connection
    }

    #[track_caller]
    fn assert_restorable(&self) {
        assert_same_database(&self.source, &self.walrust.restored("app", &[]));
    }
}

/// What `PRAGMA wal_checkpoint(TRUNCATE)` says of locks in its way.
fn truncate_is_refused(application: &Connection) -> bool {
    let busy: i64 = application
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .expect("a checkpoint answers with a row");
    busy != 0
}

/// How often a process has the files of a database open: the database, the WAL, the wal-index.
fn open_files(process: u32, database: &Path) -> [usize; 3] {
    let links = fs::read_dir(format!("/proc/{process}/fd")).expect("the process runs");
    let open: Vec<_> = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok()).collect();
    let count = |path: PathBuf| open.iter().filter(|link| **link == path).count();
    [database.to_owned(), sidecar(database, "-wal"), sidecar(database, "-shm")].map(count)
}

#[test]
fn an_idle_database_is_pinned_by_locks_and_no_connection() {
    for configuration in ["", "[sync]\nwal_pin = \"detached\"\n"] {
        let (scene, mut daemon) = Scene::watched(configuration);
        let id = daemon.id();
        daemon.wait_until("no connection is left", |_| open_files(id, &scene.source) == [1, 0, 1]);
        let application = scene.application();
        application.execute_batch("CREATE TABLE pinned (x)").expect("a commit");
        assert!(truncate_is_refused(&application));
        drop(application);
        assert!(sidecar(&scene.source, "-wal").exists(), "the last close does not remove it");
        daemon.stop();
        scene.assert_restorable();
    }
}

#[test]
fn a_database_can_be_pinned_by_connections() {
    let (scene, mut daemon) = Scene::watched("[sync]\nwal_pin = \"connection\"\n");
    let id = daemon.id();
    daemon.wait_until("two connections beside our own descriptor", |_| {
        open_files(id, &scene.source)[0] >= 3
    });
    let application = scene.application();
    application.execute_batch("CREATE TABLE pinned (x)").expect("a commit");
    assert!(truncate_is_refused(&application));
    drop(application);
    daemon.stop();
    scene.assert_restorable();
}

#[test]
fn without_a_pin_the_application_may_truncate_and_nothing_is_lost() {
    let (scene, mut daemon) = Scene::watched("[sync]\nwal_pin = \"none\"\n");
    let application = scene.application();
    daemon.wait_until("nothing is pinned", |_| {
        application.execute_batch("CREATE TABLE IF NOT EXISTS free (x)").expect("a commit");
        !truncate_is_refused(&application)
    });
    for number in 0..30 {
        let insert = format!("INSERT INTO free VALUES ({number}); PRAGMA wal_checkpoint(TRUNCATE)");
        application.execute_batch(&insert).expect("a commit");
    }
    drop(application);
    daemon.stop();
    scene.assert_restorable();
}

#[test]
fn a_pin_is_given_up_when_the_wal_is_over_its_limit_and_cannot_be_checkpointed() {
    let (scene, mut daemon) = Scene::watched(
        "[sync]\nwal_truncate_threshold_pages = 50\nwal_limit_pages = 200\n\
         min_checkpoint_page_count = 20\n",
    );
    let reader = scene.application();
    reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").expect("a read transaction");
    let application = scene.application();
    application
        .execute_batch("PRAGMA busy_timeout = 5000; CREATE TABLE grown (x)")
        .expect("a commit");
    daemon.wait_until("the pin is given up", |log| {
        let insert = "INSERT INTO grown VALUES (randomblob(40000))";
        application.execute_batch(insert).expect("a commit");
        log.contains("the pin is given up")
    });
    reader.execute_batch("COMMIT").expect("the reader ends");
    application.execute_batch("INSERT INTO grown VALUES (1)").expect("a commit");
    drop((reader, application));
    daemon.stop();
    scene.assert_restorable();
}

#[test]
fn local_state_lives_where_the_file_says() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let state = directory.path().join("state");
    let configuration = format!("[state]\ndir = {:?}\n", state.display().to_string());
    let (scene, daemon) = Scene::watched(&configuration);
    let beside = names_in(scene.source.parent().expect("a file has a directory"));
    assert!(!beside.iter().any(|name| name.contains("walrust")), "{beside:?}");
    let states = names_in(&state);
    assert_eq!(states.len(), 1, "{states:?}");
    assert!(states[0].starts_with("app.db-"), "{states:?}");
    daemon.stop();
    // It is found again: the second run needs no snapshot.
    let mut daemon = scene.walrust.watch(&[&scene.source]);
    daemon.wait_for_line(&["continues"]);
    scene.application().execute_batch("CREATE TABLE later (x)").expect("a commit");
    daemon.stop();
    scene.assert_restorable();
    assert_eq!(scene.storage.ltx_files("app").iter().filter(|file| file.is_snapshot()).count(), 1);
}
