//! Databases that were let go of for a while: what the operator is told of them until they are resumed.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use walrust_testkit::{TestDatabase, assert_same_database};

use crate::daemon::Daemon;
use crate::host::{Host, all_stored};
use crate::storage::Storage;
use crate::walrust::{QUICK, Walrust};

/// A daemon on a pattern for the databases of a host, which has stored all of them.
fn watch(host: &Host, names: &[&str]) -> Daemon {
    for name in names.iter().filter(|name| !host.path(&format!("{name}.db")).exists()) {
        host.create(&format!("{name}.db"));
    }
    let pattern = host.path("*.db").display().to_string();
    let mut daemon = host.walrust.watch_with([&[pattern.as_str()][..], &QUICK].concat());
    let count = names.len();
    host.wait_until(&mut daemon, "all are stored", |it| it.len() == count && all_stored(it));
    daemon
}

fn commit(path: &Path) {
    let connection = rusqlite::Connection::open(path).expect("the database opens");
    connection.execute_batch("INSERT INTO t VALUES (1)").expect("the statement is valid");
}

/// Where the objects of a bucket in a directory are.
fn directory_of(storage: &Storage) -> PathBuf {
    PathBuf::from(storage.url().strip_prefix("file://").expect("it is in a directory"))
}

#[test]
fn sync_leaves_out_what_is_paused_unless_it_is_named() {
    let host = Host::new();
    let daemon = watch(&host, &["a", "b"]);
    host.walrust.ask(["pause", "a"]).succeeded();
    host.walrust.ask(["sync", "a"]).failed(1, &["a is paused; `walrust resume a`"]);
    let outcome = host.walrust.ask(["sync"]).succeeded();
    assert!(outcome.stdout.contains("b is in storage") && !outcome.stdout.contains("a is"));
    assert!(outcome.stderr.contains("a is paused and was left out"), "{}", outcome.stderr);
    let report = host.walrust.ask(["sync", "--json"]).succeeded().json();
    let [a, b] = report["databases"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((&a["paused"], &a["error"]), (&Value::Bool(true), &Value::Null));
    assert_eq!((&b["paused"], &b["error"]), (&Value::Bool(false), &Value::Null));

    let outcome = host.walrust.ask(["resume", "b"]).succeeded();
    assert_eq!(outcome.stdout, "b was not paused, it is replicating\n");
    let answer = host.walrust.ask(["resume", "b", "--json"]).succeeded().json();
    assert_eq!(answer["state"], "replicating");
    let outcome = host.walrust.ask(["resume", "a"]).succeeded();
    assert_eq!(outcome.stdout, "a is replicated\n");
    host.walrust.ask(["sync", "a"]).succeeded();
    daemon.stop();
}

#[test]
fn a_pause_before_everything_is_in_storage_fails_and_is_told_of_until_the_end() {
    let host = Host::new();
    let mut daemon = watch(&host, &["app", "other"]);
    let bucket = directory_of(&host.storage);
    let aside = bucket.with_extension("aside");
    // It would make the directory anew.
    daemon.while_suspended(|| {
        fs::rename(&bucket, &aside).unwrap();
        fs::write(&bucket, "a file where the directory was").unwrap();
    });
    let before = host.databases()["app"]["txid"].clone();
    commit(&host.path("app.db"));
    host.wait_until(&mut daemon, "a failure", |it| it["app"]["error"].is_string());
    let failure = host.databases()["app"]["error"].as_str().unwrap().to_owned();
    let words = ["app is paused", &failure, "its WAL stays as it is", "`walrust resume app`"];
    host.walrust.ask(["pause", "app"]).failed(1, &words);
    // As often as it is asked.
    let outcome = host.walrust.ask(["pause", "app", "--json"]).reported(1, &words);
    assert!(outcome.json()["warning"].as_str().unwrap().contains(&failure));
    let status = &host.databases()["app"];
    assert_eq!((&status["state"], &status["txid"]), (&Value::from("paused"), &before));
    assert_eq!(status["staged_files"], 1);
    assert!(status["error"].as_str().unwrap().contains(&failure), "{status}");
    let text = host.walrust.ask(["status"]).succeeded().stdout;
    let row = text.lines().find(|line| line.contains("paused")).unwrap_or_default();
    assert!(row.contains(before.as_str().unwrap()) && row.contains("1 ("), "{text}");

    let words = ["app: it was paused", &failure, "1 staged file", "the next start uploads"];
    let outcome = daemon.terminate().failed(1, &words);
    assert!(!outcome.stderr.contains("  other: "), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("everything is in storage\""), "{}", outcome.stderr);
    fs::remove_file(&bucket).unwrap();
    fs::rename(&aside, &bucket).unwrap();
    watch(&host, &["app", "other"]).stop();
    host.assert_restorable("app", &host.path("app.db"));
}

#[test]
fn resume_takes_the_name_back_from_a_writer_that_has_stopped() {
    let ours = TestDatabase::with_history(4096, 601, 20);
    let theirs = ours.copied();
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let mut earlier = walrust.watch(&[ours.path()]);
    storage.wait_for_manifest(&mut earlier, "app");
    let elsewhere = Walrust::on(&storage);
    let mut later = elsewhere.watch(&[theirs.path()]);
    later.wait_for_line(&["takes the name over"]);
    theirs.run("CREATE TABLE theirs (x)");
    storage.wait_for_txid(&mut later, "app", 2);
    ours.run("CREATE TABLE ours (x)");
    let phrases = ["another writer owns this name", "then run `walrust resume app` here"];
    earlier.wait_for_line(&phrases);
    later.stop();
    walrust.snapshot(ours.path(), &[]).failed(1, &["`walrust resume app`"]);
    let outcome = walrust.ask(["resume", "app"]).succeeded();
    assert!(outcome.stdout.starts_with("app claims its name anew"), "{}", outcome.stdout);
    walrust.ask(["sync", "app"]).succeeded();
    earlier.stop();
    assert_same_database(ours.path(), &walrust.restored("app", &[]));
}
