//! The control socket: what the running daemon says and does when it is asked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use walrust_testkit::{TestDatabase, assert_same_database, wait_for};

use crate::daemon::Daemon;
use crate::host::{Host, all_stored};
use crate::storage::Storage;
use crate::walrust::{PATIENCE, QUICK, Walrust};

/// Nothing is shipped without being asked, but the first commit after an hour.
const SLOW: [&str; 2] = ["--wal-sync-interval", "1h"];

fn database(seed: u64) -> (TempDir, PathBuf) {
    TestDatabase::with_history(4096, seed, 20).close()
}

/// A daemon that has stored one database.
struct Watched {
    _directory: TempDir,
    app: PathBuf,
    storage: Storage,
    walrust: Walrust,
    daemon: Daemon,
}

/// Starts a daemon on a database, with more arguments.
fn watched(more: &[&str]) -> Watched {
    let (_directory, app) = database(1);
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let path = app.display().to_string();
    let mut daemon = walrust.watch_with([&[path.as_str()], more].concat());
    wait_until(&walrust, &mut daemon, 0, |it| it["txid"].is_string());
    Watched { _directory, app, storage, walrust, daemon }
}

fn commit(path: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(path).expect("the database opens");
    connection.execute_batch(sql).expect("the statement is valid");
}

#[track_caller]
fn status(walrust: &Walrust) -> Value {
    walrust.ask(["status", "--json"]).succeeded().json()
}

fn wait_until(walrust: &Walrust, daemon: &mut Daemon, index: usize, wanted: fn(&Value) -> bool) {
    daemon.wait_until("the wanted status", |_| {
        let outcome = walrust.ask(["status", "--json"]);
        outcome.code == Some(0) && wanted(&outcome.json()["databases"][index])
    });
}

fn up_to_date(database: &Value) -> bool {
    database["up_to_date"] == true
}

#[test]
fn status_names_each_database_its_state_and_what_is_wrong_in_words() {
    let (_one, app) = database(1);
    let (_two, other) = database(2);
    let broken = other.with_file_name("broken.db");
    fs::write(&broken, "this is no database, but it is long enough for a header of one".repeat(40))
        .unwrap();
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let mut daemon = walrust.watch(&[&app, &broken]);
    // One report with both: what is behind for a moment is looked at, what fails is opened again.
    let mut report = Value::Null;
    daemon.wait_until("both are known", |_| {
        let outcome = walrust.ask(["status", "--json"]);
        let answers = outcome.code == Some(0);
        report = if answers { outcome.json() } else { Value::Null };
        let databases = &report["databases"];
        up_to_date(&databases[0]) && databases[1]["state"] == "degraded"
    });
    assert_eq!(report["storage"], storage.url());
    assert_eq!(report["pid"], daemon.id());
    let [app_report, broken_report] = report["databases"].as_array().unwrap().as_slice() else {
        panic!("two databases: {report}");
    };
    assert_eq!(app_report["name"], "app");
    assert_eq!(app_report["state"], "replicating");
    assert_eq!(app_report["lag_seconds"], 0.0);
    assert_eq!(app_report["txid"], "0000000000000001");
    assert_eq!(app_report["error"], Value::Null);
    assert!(broken_report["error"].as_str().unwrap().contains("SQLite"), "{broken_report}");

    let phrases = ["app", "replicating", "broken", "degraded", "SQLite", &storage.url()];
    daemon.wait_until(&format!("{phrases:?} in the status"), |_| {
        let text = walrust.ask(["status"]).succeeded().stdout;
        phrases.iter().all(|phrase| text.contains(phrase))
    });
    daemon.terminate();
    walrust.ask(["status"]).failed(1, &["no daemon listens on", "walrust watch"]);
}

#[test]
fn sync_returns_when_storage_has_everything() {
    let Watched { _directory, app, storage, walrust, daemon } = watched(&SLOW);
    commit(&app, "CREATE TABLE extra (x)");
    for number in 1..4 {
        commit(&app, &format!("INSERT INTO extra VALUES ({number})"));
        walrust.ask(["sync", "app"]).succeeded();
        assert_same_database(&app, &walrust.restored("app", &[]));
    }
    let report = walrust.ask(["sync", "--json"]).succeeded().json();
    assert_eq!(report["databases"][0]["name"], "app");
    let txid = format!("{:016x}", storage.head("app"));
    assert_eq!(report["databases"][0]["txid"], txid);
    walrust.ask(["sync", "nobody"]).failed(1, &["nobody", "no such database"]);
    daemon.stop();
}

#[test]
fn b18_a_sync_that_storage_does_not_answer_ends_and_says_why() {
    let Watched { _directory, app, storage, walrust, daemon } = watched(&QUICK);
    let bucket = PathBuf::from(storage.url().strip_prefix("file://").unwrap());
    let aside = bucket.with_extension("aside");
    // It would make the directory anew.
    daemon.while_suspended(|| {
        fs::rename(&bucket, &aside).unwrap();
        fs::write(&bucket, "a file where the directory was").unwrap();
    });
    commit(&app, "CREATE TABLE extra (x)");
    let outcome = walrust.ask(["sync", "--timeout", "1s"]);
    outcome.failed(4, &["not everything is in storage", "app"]);
    daemon.kill();
}

#[test]
fn a_paused_database_is_not_replicated_until_it_is_resumed() {
    let Watched { _directory, app, storage, walrust, mut daemon } = watched(&QUICK);
    walrust.ask(["pause", "app"]).succeeded();
    assert_eq!(status(&walrust)["databases"][0]["state"], "paused");
    let before = storage.head("app");
    // Somebody replaces the file meanwhile, which is what a pause is for.
    commit(&app, "CREATE TABLE extra (x); INSERT INTO extra VALUES (1)");
    walrust.ask(["sync", "app"]).failed(1, &["app is paused; `walrust resume app`"]);
    assert_eq!(storage.head("app"), before);
    walrust.ask(["resume", "app"]).succeeded();
    wait_until(&walrust, &mut daemon, 0, up_to_date);
    assert!(storage.head("app") > before);
    assert_same_database(&app, &walrust.restored("app", &[]));
    daemon.stop();
}

#[test]
fn a_status_that_is_watched_follows_the_databases_until_it_is_interrupted() {
    let host = Host::new();
    host.create("one.db");
    let pattern = host.path("*.db").display().to_string();
    let mut daemon = host.walrust.watch_with([&[pattern.as_str()][..], &QUICK].concat());
    host.wait_until(&mut daemon, "it is stored", |it| it.len() == 1 && all_stored(it));
    for (json, signal) in [(false, Signal::SIGINT), (true, Signal::SIGTERM)] {
        let flags: &[&str] = if json { &["--json"] } else { &[] };
        let watching = Daemon::start(host.walrust.asking([&["status", "--watch"], flags].concat()));
        let mut seen = 0;
        // Whole reports that it has printed since the last one that was waited for.
        let mut wait_for = |what: &str, wanted: fn(&str) -> bool| {
            wait_for(PATIENCE, what, || {
                let printed = watching.printed();
                let begins = if json { "{\n" } else { "walrust " };
                let reports: Vec<_> = printed.split(&format!("\n{begins}")).collect();
                // The last one may not be whole yet.
                let found = (seen..reports.len() - 1).find(|report| wanted(reports[*report]));
                found.inspect(|found| seen = *found).is_some()
            });
        };
        wait_for("one database", |it| it.contains("replicating") && !it.contains("two"));
        host.create("two.db");
        wait_for("a second one", |it| it.matches("replicating").count() == 2);
        host.walrust.ask(["pause", "two"]).succeeded();
        wait_for("it is paused", |it| it.contains("two") && it.contains("paused"));
        fs::remove_file(host.path("two.db")).unwrap();
        wait_for("it is gone", |it| it.contains("replicating") && !it.contains("two"));
        watching.signal(signal);
        let outcome = watching.wait().succeeded();
        assert_eq!(outcome.stderr, "", "there is nothing to complain about");
        daemon.assert_running();
    }
    daemon.terminate();
}

#[test]
fn snapshot_asks_the_daemon() {
    let Watched { _directory, app, storage: _storage, walrust, daemon } = watched(&SLOW);
    commit(&app, "CREATE TABLE extra (x)");
    commit(&app, "INSERT INTO extra VALUES (1)");
    // Only the daemon can ship the second commit within an hour.
    walrust.snapshot(&app, &[]).succeeded();
    assert_same_database(&app, &walrust.restored("app", &[]));
    daemon.stop();
}

#[test]
fn e05_the_socket_is_for_its_owner_alone_and_goes_with_the_daemon() {
    let (_directory, app) = database(1);
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let socket = walrust.control_socket();
    // What a crash left behind is in nobody's way.
    drop(UnixListener::bind(&socket).unwrap());
    let mut daemon = walrust.watch(&[&app]);
    wait_until(&walrust, &mut daemon, 0, up_to_date);
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    daemon.stop();
    assert!(!socket.exists());
}

#[test]
fn e05_a_directory_that_others_can_write_to_is_not_trusted_for_the_default_socket() {
    let (_directory, app) = database(1);
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let runtime = walrust.control_socket().parent().unwrap().to_owned();
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o777)).unwrap();
    // Somebody else listens there already.
    let foreign = UnixListener::bind(walrust.control_socket()).unwrap();
    let phrases = ["mode 777", "--control-socket"];
    walrust.ask(["status"]).failed(1, &phrases);
    walrust.ask(["pause", "app"]).failed(1, &phrases);
    let mut daemon = walrust.watch(&[&app]);
    daemon.wait_for_line(&["without a control socket", "mode 777"]);
    storage.wait_for_txid(&mut daemon, "app", 1);
    // Who names a socket knows where it is.
    let named = walrust.control_socket().display().to_string();
    foreign.set_nonblocking(true).unwrap();
    assert!(foreign.accept().is_err(), "nobody has talked to it");
    drop(foreign);
    walrust.ask(["status", "--control-socket", &named]).failed(1, &["no daemon listens"]);
    daemon.stop();
}

#[test]
fn a_second_daemon_leaves_the_socket_of_the_first_alone() {
    let (_one, app) = database(1);
    let (_two, other) = database(2);
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let mut first = walrust.watch(&[&app]);
    wait_until(&walrust, &mut first, 0, up_to_date);
    let other = other.display().to_string();
    let arguments = [other.as_str(), "--wal-sync-interval", "20ms"];
    let mut second = walrust.watch_with(arguments);
    second.wait_for_line(&["without a control socket", "another running daemon"]);
    second.terminate();
    assert_eq!(status(&walrust)["pid"], first.id());

    let named = walrust.control_socket().display().to_string();
    let outcome =
        walrust.run([&["watch"][..], &arguments, &["--control-socket", named.as_str()]].concat());
    outcome.failed(1, &["control socket", "another running daemon"]);
    first.stop();
}

#[test]
fn hostile_requests_are_answered_and_change_nothing() {
    use std::io::{Read, Write};
    let Watched { _directory, app: _, storage: _storage, walrust, daemon } = watched(&QUICK);
    let long = "x".repeat(2_000_000);
    let requests = [
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(),
        "POST /v1/sync HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1\r\n\r\n{"
            .to_owned(),
        "POST /v1/sync HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 34\r\n\r\n\
         {\"names\":[],\"timeout_seconds\":-1.0}"
            .to_owned(),
        format!(
            "POST /v1/pause HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n\
             {long}",
            long.len()
        ),
        "this is not HTTP\r\n\r\n".to_owned(),
    ];
    for request in requests {
        let mut stream = std::os::unix::net::UnixStream::connect(walrust.control_socket()).unwrap();
        // The answer may come before all of the request was read.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        let first = answer.lines().next().unwrap_or_default();
        assert!(first.contains(" 40"), "{first:?} to {}", &request[..30]);
    }
    assert_eq!(status(&walrust)["databases"][0]["state"], "replicating");
    daemon.stop();
}
