//! More than one daemon for one database or one name, and a database that moves (B3, B6).

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use walrust_testkit::{TestDatabase, WriterOptions, WriterProcess, assert_same_database, connect};

use super::{INSERT, assert_one_history, behind};
use crate::fault_proxy::FaultProxy;
use crate::storage::Storage;
use crate::walrust::{PATIENCE, QUICK, Walrust};

/// Replicates a database with some history, and returns what it left in storage.
pub(super) fn replicated(storage: &Storage, seed: u64) -> TestDatabase {
    let database = TestDatabase::with_history(4096, seed, 60);
    let walrust = Walrust::on(storage);
    let mut daemon = walrust.watch(&[database.path()]);
    storage.wait_for_manifest(&mut daemon, "app");
    for txid in 2..6 {
        database.run(INSERT);
        storage.wait_for_txid(&mut daemon, "app", txid);
    }
    daemon.stop();
    database
}

/// Restores `app` to where another host would have it.
fn restored_elsewhere(storage: &Storage, more: &[&str]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("app.db");
    Walrust::on(storage).restore("app", &path, more).succeeded();
    (directory, path)
}

#[test]
fn b03_a_restored_database_goes_on_under_its_name_without_a_new_upload() {
    let storage = Storage::s3();
    replicated(&storage, 301);
    let before = storage.ltx_files("app");
    let (_directory, path) = restored_elsewhere(&storage, &[]);
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    let mut daemon = walrust.watch(&[&path]);
    daemon.wait_for_line(&["continues"]);
    let application = connect(&path, 4096);
    application.execute_batch(INSERT).expect("the table is there");
    storage.wait_for_txid(&mut daemon, "app", 6);
    daemon.stop();
    let uploads: Vec<_> = proxy.uploads("app").iter().filter_map(|one| one.uploads()).collect();
    let [only] = &uploads[..] else { panic!("one commit is one upload: {uploads:?}") };
    assert_eq!((only.min.get(), only.max.get()), (6, 6), "it is the next state");
    assert_eq!(storage.ltx_files("app")[..before.len()], before);
    assert_one_history(&storage, "app");
    drop(application);
    assert_same_database(&path, &walrust.restored("app", &[]));
}

#[test]
fn b03_a_database_restored_to_an_older_state_goes_on_behind_the_newest() {
    let storage = Storage::s3();
    let original = replicated(&storage, 302);
    let newest = walrust_testkit::dump(original.path());
    let (_directory, path) = restored_elsewhere(&storage, &["--txid", "3"]);
    let walrust = Walrust::on(&storage);
    let mut daemon = walrust.watch(&[&path]);
    storage.wait_for_txid(&mut daemon, "app", 6);
    daemon.stop();
    assert_same_database(&path, &walrust.restored("app", &[]));
    // What was stored before can still be restored.
    let before = walrust.restored("app", &["--txid", "5"]);
    assert!(walrust_testkit::dump(&before) == newest, "the states before are as they were");
}

#[test]
fn b06_a_second_daemon_on_one_database_waits_and_takes_over() {
    let database = TestDatabase::with_history(4096, 303, 20);
    let storage = Storage::s3();
    let walrust = Walrust::on(&storage);
    let mut first = walrust.watch(&[database.path()]);
    storage.wait_for_manifest(&mut first, "app");
    let mut second = walrust.watch(&[database.path()]);
    let line = second.wait_for_line(&["ERROR", "another walrust process", "app.db"]);
    assert!(line.contains("lock"), "{line}");
    database.run(INSERT);
    storage.wait_for_txid(&mut first, "app", 2);
    second.assert_running();
    first.stop();
    // The lock is free now, and the second goes on where the first was.
    second.wait_for_line(&["continues"]);
    database.run(INSERT);
    storage.wait_for_txid(&mut second, "app", 3);
    second.stop();
    assert_one_history(&storage, "app");
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}

#[test]
fn b06_of_two_hosts_under_one_name_the_later_wins() {
    let ours = TestDatabase::with_history(4096, 304, 20);
    let theirs = ours.copied();
    let other = TestDatabase::with_history(4096, 305, 20);
    let other_path = ours.directory().join("other.db");
    std::fs::write(&other_path, other.image()).expect("the directory is writable");
    let other = connect(&other_path, 4096);
    let storage = Storage::s3();
    let walrust = Walrust::on(&storage);
    let mut earlier = walrust.watch(&[ours.path(), &other_path]);
    storage.wait_for_manifest(&mut earlier, "app");
    storage.wait_for_manifest(&mut earlier, "other");
    let elsewhere = Walrust::on(&storage);
    let mut later = elsewhere.watch(&[theirs.path()]);
    later.wait_for_line(&["takes the name over", "\"epoch\":2"]);
    later.wait_for_line(&["continues"]);
    theirs.run(INSERT);
    storage.wait_for_txid(&mut later, "app", 2);

    ours.run(INSERT);
    let line = earlier.wait_for_line(&["ERROR", "another writer owns this name", "\"app\""]);
    assert!(line.contains("give this database another prefix"), "it says what to do: {line}");
    // A snapshot would take the name back, for a moment, from the one that replicates.
    walrust.snapshot(ours.path(), &[]).failed(1, &["give this database another prefix"]);
    // Nothing else of that daemon is stopped, and the later one is not disturbed.
    other.execute_batch(INSERT).expect("the table is there");
    storage.wait_for_txid(&mut earlier, "other", 2);
    theirs.run(INSERT);
    storage.wait_for_txid(&mut later, "app", 3);
    ours.run(INSERT);
    earlier.assert_running();
    let outcome = earlier.terminate().failed(1, &["app: "]);
    assert!(!outcome.stderr.contains("  other: "), "{}", outcome.stderr);
    later.stop();
    assert_one_history(&storage, "app");
    assert_same_database(theirs.path(), &walrust.restored("app", &[]));
    drop(other);
    assert_same_database(&other_path, &walrust.restored("other", &[]));
}

/// A writer that commits some twenty times a second.
fn steady_writer(path: &Path) -> WriterProcess {
    let options = WriterOptions { commits_per_second: Some(20), ..WriterOptions::default() };
    WriterProcess::spawn(path, &options)
}

#[test]
fn b06_the_later_host_wins_although_the_earlier_one_writes() {
    let ours = TestDatabase::with_history(4096, 307, 20);
    let theirs = ours.copied();
    let storage = Storage::s3();
    let (walrust, elsewhere) = (Walrust::on(&storage), Walrust::on(&storage));
    let mut earlier = walrust.watch(&[ours.path()]);
    storage.wait_for_manifest(&mut earlier, "app");
    let our_writer = steady_writer(ours.path());
    storage.wait_for_txid(&mut earlier, "app", 5);
    let mut their_writer = steady_writer(theirs.path());
    let mut later = elsewhere.watch(&[theirs.path()]);
    later.wait_for_line(&["takes the name over"]);
    // The earlier one knows when it has to write its manifest, and stores files until then.
    // Unless it is the one that comes upon a file of the other.
    later.wait_until("one finds a file of the other in its way", |log| {
        log.contains("/app/00000") || earlier.log().contains("another writer owns this name")
    });
    let stopped = earlier.terminate().failed(1, &["app: "]).stderr;
    let reasons = ["has taken the name over", "another writer owns this name"];
    assert!(reasons.iter().any(|reason| stopped.contains(reason)), "{stopped}");
    let head = storage.head("app");
    let commits = their_writer.commits();
    their_writer.wait_for_commit(commits + 10, PATIENCE);
    storage.wait_for_txid(&mut later, "app", head + 1);
    our_writer.stop();
    their_writer.stop();
    let log = later.stop().stderr;
    assert!(!log.contains("another writer owns this name"), "{log}");
    assert_same_database(theirs.path(), &walrust.restored("app", &["--integrity-check", "full"]));
}

#[test]
fn b06_two_hosts_that_write_at_once_leave_one_writer_and_a_sound_history() {
    let ours = TestDatabase::with_history(4096, 306, 20);
    let theirs = ours.copied();
    let storage = Storage::s3();
    let walrust = Walrust::on(&storage);
    let hosts = [ours, theirs].map(TestDatabase::close);
    let mut writers = hosts.each_ref().map(|(_, path)| steady_writer(path));
    let elsewhere = Walrust::on(&storage);
    let mut daemons = [walrust.watch(&[&hosts[0].1]), elsewhere.watch(&[&hosts[1].1])];
    let conflict = |log: &str| log.contains("another writer owns this name");
    let (one, other) = daemons.split_at_mut(1);
    one[0].wait_until("one of them stops", |log| conflict(log) || conflict(&other[0].log()));
    let winner = usize::from(conflict(&daemons[0].log()));
    let head = storage.head("app");
    let commits = writers[winner].commits();
    writers[winner].wait_for_commit(commits + 10, PATIENCE);
    storage.wait_for_txid(&mut daemons[winner], "app", head + 1);
    for writer in writers {
        writer.stop();
    }
    let outcomes = daemons.map(|daemon| daemon.terminate());
    assert_eq!(outcomes[winner].code, Some(0), "{}", outcomes[winner].stderr);
    assert_eq!(outcomes[1 - winner].code, Some(1), "{}", outcomes[1 - winner].stderr);
    assert_same_database(&hosts[winner].1, &walrust.restored("app", &[]));
}

#[test]
fn two_hosts_share_a_bucket_under_different_prefixes() {
    let storage = Storage::s3();
    let hosts = ["left", "right"].map(|prefix| {
        let (directory, source) = TestDatabase::with_history(4096, prefix.len() as u64, 30).close();
        let walrust = Walrust::on(&storage);
        walrust
            .configure(&format!("[[databases]]\npath = {source:?}\nprefix = \"{prefix}/app\"\n"));
        let daemon = walrust.watch_with(QUICK);
        (prefix, directory, source, walrust, daemon)
    });
    for (prefix, _directory, source, walrust, mut daemon) in hosts {
        let name = format!("{prefix}/app");
        storage.wait_for_txid(&mut daemon, &name, 1);
        let connection = rusqlite::Connection::open(&source).unwrap();
        connection.execute_batch("CREATE TABLE extra (x)").unwrap();
        storage.wait_for_txid(&mut daemon, &name, 2);
        drop(connection);
        daemon.stop();
        assert_same_database(&source, &walrust.restored(&name, &[]));
    }
}
