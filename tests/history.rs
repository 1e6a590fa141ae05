//! The states that storage holds: each TXID of the listing is one, and they come at a pace.

use std::collections::BTreeMap;

use serde_json::Value;
use walrust_testkit::{
    Step, TestDatabase, Workload, WriterOptions, WriterProcess, assert_same_database, image,
};

use crate::storage::{Storage, on_both_storages};
use crate::walrust::{PATIENCE, Walrust};

on_both_storages!(every_txid_of_the_listing_is_a_state, snapshots_without_a_daemon);

fn every_txid_of_the_listing_is_a_state(storage: &Storage) {
    let mut database = TestDatabase::with_history(4096, 1, 20);
    let mut workload = Workload::new(2);
    let walrust = Walrust::on(storage);
    let mut daemon = walrust.watch(&[database.path()]);
    storage.wait_for_txid(&mut daemon, "app", 1);
    let mut states = BTreeMap::from([(1, database.image())]);
    for round in 0..8 {
        commit(&mut database, &mut workload);
        let txid = states.len() as u64 + 1;
        storage.wait_for_txid(&mut daemon, "app", txid);
        states.insert(txid, database.image());
        if round % 4 == 2 {
            let snapshot = walrust.snapshot(database.path(), &["--json"]).succeeded().json();
            assert_eq!(snapshot["txid"], hex(txid), "beside the daemon: {snapshot}");
        }
    }
    daemon.stop();
    assert_states(&walrust, storage, &states);
    let snapshots = storage.ltx_files("app").iter().filter(|file| file.is_snapshot()).count();
    assert_eq!(snapshots, 3, "the first and the two that were asked for");
}

fn snapshots_without_a_daemon(storage: &Storage) {
    let mut database = TestDatabase::with_history(4096, 3, 20);
    let mut workload = Workload::new(4);
    let walrust = Walrust::on(storage);
    let mut states = BTreeMap::new();
    for _ in 0..2 {
        commit(&mut database, &mut workload);
        let outcome = walrust.snapshot(database.path(), &[]).succeeded();
        let txid = storage.head("app");
        assert!(outcome.stdout.contains(&hex(txid)), "{}", outcome.stdout);
        states.insert(txid, database.image());
    }
    assert_states(&walrust, storage, &states);
    assert_eq!(storage.ltx_files("app").iter().filter(|file| file.is_snapshot()).count(), 2);

    // A third of the same state is that state again.
    let before = storage.keys("");
    walrust.snapshot(database.path(), &[]).succeeded();
    assert_eq!(storage.keys(""), before);
}

/// Takes steps up to the next commit.
fn commit(database: &mut TestDatabase, workload: &mut Workload) {
    while workload.step(database.connection()).expect("nobody else writes") == Step::Unchanged {}
}

fn hex(txid: u64) -> String {
    format!("{txid:016x}")
}

/// Asserts that the listing has these states and no others, and restores each of them.
fn assert_states(walrust: &Walrust, storage: &Storage, states: &BTreeMap<u64, Vec<u8>>) {
    let listing = walrust.list("app");
    let files = listing["files"].as_array().expect("a list of files");
    let listed: BTreeMap<&str, ()> =
        files.iter().map(|file| (file["max_txid"].as_str().expect("text"), ())).collect();
    let expected: Vec<String> = states.keys().map(|txid| hex(*txid)).collect();
    assert!(listed.into_keys().eq(expected.iter()), "{expected:?} in {listing:#}");
    assert_eq!(listing["states"], states.len());
    assert_eq!(listing["newest_txid"], Value::from(hex(storage.head("app"))));
    for (txid, state) in states {
        let by_number = walrust.restored("app", &["--txid", &txid.to_string()]);
        assert!(image(&by_number) == *state, "TXID {txid} is another state");
        let by_name = walrust.restored("app", &["--txid", &hex(*txid)]);
        assert!(image(&by_name) == *state, "TXID {txid} is another state");
    }
}

#[test]
fn steady_writes_cost_one_file_each_interval() {
    let (_directory, source) = TestDatabase::with_history(4096, 5, 20).close();
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let mut daemon =
        walrust.watch_with([source.as_os_str(), "--wal-sync-interval".as_ref(), "1s".as_ref()]);
    storage.wait_for_txid(&mut daemon, "app", 1);
    let options = WriterOptions { commits_per_second: Some(50), ..WriterOptions::default() };
    let begun = std::time::Instant::now();
    let mut writer = WriterProcess::spawn(&source, &options);
    daemon.wait_until("five files", |_| storage.incrementals("app").len() >= 5);
    let elapsed = begun.elapsed();
    let commits = writer.wait_for_commit(100, PATIENCE);
    writer.stop();
    daemon.stop();
    let whole = begun.elapsed().as_secs_f64();

    // The first goes at once, the other four after an interval each.
    let seconds = elapsed.as_secs_f64();
    assert!(seconds >= 3.9, "five files in {seconds} s, {commits} commits");
    // The last one is what was left when the daemon was stopped. How far apart any two of them are
    // depends on when the daemon gets a processor, but not how many there can be.
    let files = storage.incrementals("app").len();
    assert!(files as f64 <= whole + 2.0, "{files} files in {whole} s, {commits} commits");
    assert_same_database(&source, &walrust.restored("app", &[]));
}
