//! `walrust snapshot`, without a daemon, with one, and beside one that cannot be asked.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tempfile::TempDir;
use walrust_storage::Metadata;
use walrust_testkit::{TestDatabase, WebhookReceiver, assert_same_database};

use crate::daemon::Daemon;
use crate::fault_proxy::{Fault, FaultProxy};
use crate::storage::{Storage, on_both_storages};
use crate::walrust::{QUICK, Walrust};

/// A database under a path, which nobody has open.
fn database(path: PathBuf, seed: u64) -> PathBuf {
    let (_directory, source) = TestDatabase::with_history(1024, seed, 10).close();
    fs::create_dir_all(path.parent().expect("it has one")).expect("a new directory");
    fs::copy(source, &path).expect("nobody has it open");
    path
}

/// A configuration with a pattern for a directory, below a prefix.
fn tenants_in(directory: &Path) -> String {
    let pattern = directory.join("*.db").display().to_string();
    format!(
        "[sync]\nwal_sync_interval = \"20ms\"\n\
         [[databases]]\npath = {pattern:?}\nprefix = \"tenants\"\nmax_changes = 1000\n"
    )
}

#[test]
fn a_match_of_a_pattern_is_stored_where_the_daemon_stores_it() {
    let directory = tempfile::tempdir().unwrap();
    let tenant = database(directory.path().join("a.db"), 1);
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    walrust.configure(&tenants_in(directory.path()));
    // Without a daemon, once by a way around.
    let around = directory.path().join("../").join(directory.path().file_name().unwrap());
    for path in [tenant.clone(), around.join("a.db")] {
        let result = walrust.snapshot(&path, &["--json"]).succeeded().json();
        assert_eq!(result["name"], "tenants/a");
    }
    // The name that local state keeps is that of the pattern as well.
    let mut daemon = walrust.watch_with([""; 0]);
    daemon.wait_for_line(&["continues", "tenants/a"]);
    let outcome = walrust.snapshot(&tenant, &["--json"]).succeeded();
    assert_eq!(outcome.json()["name"], "tenants/a");
    let told = walrust.snapshot(&tenant, &[]).succeeded().stdout;
    assert!(told.contains("snapshot of tenants/a at TXID"), "{told}");
    daemon.stop();
    // Nor does it depend on who has the configuration.
    let result = Walrust::on(&storage).snapshot(&tenant, &["--json"]).succeeded().json();
    assert_eq!(result["name"], "tenants/a");
    assert!(storage.keys("").iter().all(|key| key.starts_with("tenants/a/")));
    assert_same_database(&tenant, &walrust.restored("tenants/a", &[]));
}

#[test]
fn what_the_daemon_calls_a_database_is_what_the_snapshot_is_called() {
    let directory = tempfile::tempdir().unwrap();
    let source = database(directory.path().join("app.db"), 2);
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    // Only the daemon reads this file.
    let file = walrust.file("daemon.toml");
    let path = source.display().to_string();
    fs::write(&file, format!("[[databases]]\npath = {path:?}\nprefix = \"production\"\n")).unwrap();
    let file = file.display().to_string();
    let mut daemon = walrust.watch_with([&["--config", file.as_str()][..], &QUICK].concat());
    storage.wait_for_txid(&mut daemon, "production", 1);
    let result = walrust.snapshot(&source, &["--json"]).succeeded().json();
    assert_eq!(result["name"], "production");
    daemon.stop();
}

#[test]
fn a_snapshot_without_a_daemon_feeds_no_dead_man_switch() {
    let (_directory, source) = TestDatabase::with_history(1024, 5, 10).close();
    let receiver = WebhookReceiver::that_accepts();
    let walrust = Walrust::on(&Storage::directory());
    let url = receiver.url("/hook");
    walrust.configure(&format!(
        "[[webhooks]]\nurl = {url:?}\nevents = [\"heartbeat\", \"snapshot_completed\"]\n"
    ));
    walrust.snapshot(&source, &[]).succeeded();
    let events = receiver.received().into_iter().map(|it| it.headers["x-walrust-event"].clone());
    assert_eq!(events.collect::<Vec<_>>(), ["snapshot_completed"]);
}

on_both_storages!(what_is_stored_beside_a_daemon_is_what_the_daemon_would_store);

/// A daemon that has stored more than its first snapshot, and somebody who cannot ask it.
struct Beside {
    _directory: TempDir,
    source: PathBuf,
    owner: Walrust,
    daemon: Daemon,
    other: Walrust,
}

impl Beside {
    fn new(storage: &Storage) -> Self {
        let (directory, source) = TestDatabase::with_history(1024, 4, 10).close();
        let (owner, other) = (Walrust::on(storage), Walrust::on(storage));
        let mut daemon = owner.watch(&[&source]);
        storage.wait_for_manifest(&mut daemon, "app");
        let application = rusqlite::Connection::open(&source).expect("the database opens");
        application.execute_batch("CREATE TABLE extra (x)").expect("a commit");
        storage.wait_for_txid(&mut daemon, "app", 2);
        // What the daemon knows of it comes after.
        let position = source.with_file_name(".app.db-walrust/position.json");
        daemon.wait_until("the position is saved", |_| {
            fs::read_to_string(&position).is_ok_and(|it| it.contains("\"0000000000000002\""))
        });
        Self { _directory: directory, source, owner, daemon, other }
    }

    fn state(&self, file: &str) -> PathBuf {
        self.source.with_file_name(".app.db-walrust").join(file)
    }
}

/// The key of the snapshot that is asked for.
const SNAPSHOT: &str = "app/0000000000000001-0000000000000002.ltx";

fn manifest(storage: &Storage) -> Value {
    serde_json::from_slice(&storage.read("app/manifest.json")).expect("a manifest")
}

fn is_entered(storage: &Storage) -> bool {
    let manifest = manifest(storage);
    let files = manifest["files"].as_array().expect("a list of files");
    let name = |file: &Value| format!("app/{}-{}.ltx", text(&file["min"]), text(&file["max"]));
    files.iter().any(|file| name(file) == SNAPSHOT)
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn what_is_stored_beside_a_daemon_is_what_the_daemon_would_store(storage: &Storage) {
    let storage = storage.another();
    let Beside { _directory, source, owner: _owner, daemon, other } = Beside::new(&storage);
    let result = other.snapshot(&source, &["--json"]).succeeded().json();
    assert_eq!((text(&result["name"]), text(&result["txid"])), ("app", "0000000000000002"));
    let metadata = storage.metadata(SNAPSHOT);
    assert_eq!(metadata["writer"], text(&manifest(&storage)["writer"]["id"]));
    assert!(metadata.contains_key("sha256") && is_entered(&storage));
    daemon.stop();
    other.run(["verify", "app"]).succeeded();
    assert_same_database(&source, &other.restored("app", &[]));
}

#[test]
fn nothing_is_stored_under_a_name_that_a_newer_program_or_another_host_has_taken_over() {
    let storage = Storage::directory();
    let beside = Beside::new(&storage);
    let ours = manifest(&storage);
    let change = |change: &dyn Fn(&mut Value)| {
        let mut changed = ours.clone();
        change(&mut changed);
        let bytes = changed.to_string();
        storage.write("app/manifest.json", bytes.as_bytes(), &Metadata::new());
        beside.other.snapshot(&beside.source, &[])
    };
    change(&|it| it["format"] = 99.into()).failed(1, &["format 99", "newer walrust"]);
    change(&|it| {
        it["writer"] = serde_json::json!({ "id": "0".repeat(32), "host": "elsewhere", "epoch": 7 });
    })
    .failed(1, &["another writer", "elsewhere"]);
    assert!(!storage.keys("").contains(&SNAPSHOT.to_owned()));
    beside.daemon.kill();
}

#[test]
fn a_daemon_that_cannot_be_asked_is_not_taken_for_none() {
    let storage = Storage::directory();
    let beside = Beside::new(&storage);
    let listener = UnixListener::bind(beside.other.control_socket()).unwrap();
    let hangs_up = std::thread::spawn(move || drop(listener.accept()));
    beside.other.snapshot(&beside.source, &[]).failed(1, &["cannot talk to the daemon"]);
    hangs_up.join().unwrap();
    beside.daemon.stop();
}

#[test]
fn what_the_daemon_has_not_shipped_is_not_called_stored() {
    let storage = Storage::directory();
    let beside = Beside::new(&storage);
    // Storage has a snapshot of its head.
    beside.other.snapshot(&beside.source, &[]).succeeded();
    let application = rusqlite::Connection::open(&beside.source).unwrap();
    beside.daemon.while_suspended(|| {
        application.execute_batch("INSERT INTO extra VALUES (1)").unwrap();
        let outcome = beside.other.snapshot(&beside.source, &[]);
        outcome.failed(1, &["uploaded nothing", "after TXID 0000000000000002"]);
    });
    drop(application);
    beside.daemon.stop();
}

#[test]
fn a_daemon_that_stores_nothing_under_the_name_is_told_from_a_busy_database() {
    let storage = Storage::directory();
    let beside = Beside::new(&storage);
    for key in storage.keys("") {
        storage.delete(&key);
    }
    beside
        .other
        .snapshot(&beside.source, &[])
        .failed(1, &["there are no files of app", "--config"]);
    beside.daemon.kill();
}

#[test]
fn a_daemon_that_hangs_is_not_waited_for() {
    let storage = Storage::directory();
    let beside = Beside::new(&storage);
    beside.daemon.while_suspended(|| {
        let outcome = beside.owner.ask(["sync", "--timeout", "1s"]);
        outcome.failed(1, &["cannot talk to the daemon", "no answer within", "does it hang?"]);
    });
    beside.daemon.stop();
}

#[test]
fn a_position_that_cannot_be_read_is_an_error_at_once() {
    let storage = Storage::directory();
    let beside = Beside::new(&storage);
    fs::write(beside.state("position.json"), "{").unwrap();
    beside.other.snapshot(&beside.source, &[]).failed(3, &["position.json", "damaged"]);
    fs::remove_file(beside.state("position.json")).unwrap();
    fs::create_dir(beside.state("position.json")).unwrap();
    beside.other.snapshot(&beside.source, &[]).failed(3, &["position.json", "cannot read"]);
    beside.daemon.kill();
}

/// Somebody whose requests go through a proxy.
fn behind(proxy: &FaultProxy, storage: &Storage) -> Walrust {
    let mut walrust = Walrust::on(storage);
    walrust.set("AWS_ENDPOINT_URL_S3", &proxy.url());
    walrust
}

#[test]
fn an_upload_beside_a_daemon_is_tried_again_and_recognised() {
    for fault in [Fault::Answer(503, "SlowDown"), Fault::LostReply] {
        let storage = Storage::s3();
        let beside = Beside::new(&storage);
        let proxy = FaultProxy::start();
        let failures = AtomicUsize::new(0);
        proxy.set(move |exchange| match exchange.uploads() {
            Some(_) if failures.fetch_add(1, Ordering::Relaxed) < 1 => fault,
            _ => Fault::Pass,
        });
        behind(&proxy, &storage).snapshot(&beside.source, &[]).succeeded();
        assert!(proxy.uploads("app").len() > 1, "{fault:?}");
        assert!(is_entered(&storage), "{fault:?}");
        beside.daemon.stop();
        beside.other.run(["verify", "app"]).succeeded();
    }
}

#[test]
fn another_snapshot_under_the_key_is_never_taken_for_ours() {
    let storage = Arc::new(Storage::s3());
    let beside = Beside::new(&storage);
    let proxy = FaultProxy::start();
    let theirs = Arc::clone(&storage);
    proxy.set(move |exchange| {
        if exchange.uploads().is_some() {
            theirs.write(SNAPSHOT, b"something else", &Metadata::new());
        }
        Fault::Pass
    });
    let outcome = behind(&proxy, &storage).snapshot(&beside.source, &[]);
    outcome.failed(1, &[SNAPSHOT, "exists with other content"]);
    assert_eq!(storage.read(SNAPSHOT), b"something else");
    beside.daemon.kill();
}
