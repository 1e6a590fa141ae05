//! Exports, restored and continued by the real Litestream; and the way back.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};
use walrust_ltx::{Decoder, Mode};
use walrust_storage::Metadata;
use walrust_testkit::{
    Step, TestDatabase, Workload, assert_same_content, assert_same_database, image,
};

use crate::litestream_program::Litestream;
use crate::small_history::{NAME, SmallHistory};
use crate::storage::{Storage, on_both_storages};
use crate::walrust::{Outcome, Walrust};

on_both_storages!(
    litestream_restores_an_export_and_goes_on,
    litestream_goes_on_behind_a_snapshot_alone,
    litestream_goes_on_behind_a_file_of_several_commits,
    litestream_goes_on_behind_the_first_state,
    litestream_compacts_an_export,
    every_state_of_a_whole_history_comes_back,
    an_export_of_damaged_files_restores_nothing,
    what_litestream_replicated_is_replicated_by_walrust,
);

fn export(walrust: &Walrust, name: &str, to: &Storage, more: &[&str]) -> Outcome {
    let url = format!("{}/db", to.url());
    walrust.run([&["export", name, "--to", &url], more].concat())
}

fn commit(database: &mut TestDatabase, workload: &mut Workload) {
    while workload.step(database.connection()).expect("nobody else writes") == Step::Unchanged {}
}

/// A database that grew and shrank, in storage with its states by TXID.
fn replicated(storage: &Storage) -> (Walrust, TestDatabase, BTreeMap<u64, Vec<u8>>) {
    let mut database = TestDatabase::with_history(4096, 11, 20);
    let mut workload = Workload::new(12);
    let walrust = Walrust::on(storage);
    let mut daemon = walrust.watch(&[database.path()]);
    storage.wait_for_txid(&mut daemon, NAME, 1);
    let mut states = BTreeMap::from([(1, database.image())]);
    for round in 0..7 {
        let txid = storage.head(NAME) + 1;
        match round {
            3 => database.run("CREATE TABLE big (x); INSERT INTO big VALUES (randomblob(90000))"),
            5 => database.run("DROP TABLE big; VACUUM"),
            _ => commit(&mut database, &mut workload),
        }
        let commits = if matches!(round, 3 | 5) { 2 } else { 1 };
        storage.wait_for_txid(&mut daemon, NAME, txid + commits - 1);
        states.insert(storage.head(NAME), database.image());
        if round == 2 {
            walrust.snapshot(database.path(), &[]).succeeded();
        }
    }
    daemon.stop();
    (walrust, database, states)
}

/// Restores with Litestream what it has, page for page.
#[track_caller]
fn assert_restores(litestream: &Litestream, walrust: &Walrust, more: &[&str], expected: &[u8]) {
    let output = walrust.file(&format!("litestream-{}.db", walrust.files().len()));
    litestream.restore(&output, more);
    assert!(image(&output) == expected, "{more:?} gives another state");
}

/// Commits more, and has Litestream ship and restore it.
fn go_on(litestream: &Litestream, walrust: &Walrust, database: &mut TestDatabase) {
    let mut workload = Workload::new(13);
    for _ in 0..3 {
        commit(database, &mut workload);
        litestream.replicate(&[]);
        assert_restores(litestream, walrust, &[], &database.image());
    }
}

fn litestream_restores_an_export_and_goes_on(storage: &Storage) {
    let (walrust, mut database, states) = replicated(storage);
    let head = storage.head(NAME);
    let target = storage.another();
    let result = export(&walrust, NAME, &target, &["--json"]).succeeded().json();
    let layout = if target.url().starts_with("file://") { "(file layout)" } else { "(S3 layout)" };
    assert_eq!(result["layout"], format!("litestream {layout}"));
    assert_eq!((&result["txid"], &result["snapshots"]), (&hex(head), &json!(1)));
    assert_eq!(result["files"], target.keys("").len(), "{result:#}");

    let litestream = Litestream::new(database.path(), &target);
    assert_restores(&litestream, &walrust, &[], &states[&head]);
    // Both programs see the same tree.
    let mut reader = Walrust::on(&target);
    reader.set_bucket(&target.url());
    assert!(image(&reader.restored("db", &[])) == states[&head]);
    go_on(&litestream, &walrust, &mut database);
    assert!(image(&reader.restored("db", &[])) == database.image());
}

fn hex(txid: u64) -> Value {
    json!(format!("{txid:016x}"))
}

fn litestream_goes_on_behind_a_snapshot_alone(storage: &Storage) {
    let (walrust, mut database, _) = replicated(storage);
    walrust.snapshot(database.path(), &[]).succeeded();
    let head = storage.head(NAME);
    assert!(head > 5, "Litestream would need some syncs to overtake it");
    let target = storage.another();
    let result = export(&walrust, NAME, &target, &["--json"]).succeeded().json();
    assert_eq!((&result["txid"], &result["snapshots"]), (&hex(head), &json!(1)));
    let litestream = Litestream::new(database.path(), &target);
    assert_restores(&litestream, &walrust, &[], &database.image());
    go_on(&litestream, &walrust, &mut database);
}

fn litestream_goes_on_behind_a_file_of_several_commits(storage: &Storage) {
    let (walrust, mut database, _) = replicated(storage);
    let mut daemon =
        walrust.watch_with([database.path().as_os_str(), "--wal-sync-interval=1h".as_ref()]);
    let head = storage.head(NAME);
    daemon.wait_for_line(&["continues"]);
    // The first goes at once, the others in one file when the daemon stops.
    database.run("CREATE TABLE more (x)");
    storage.wait_for_txid(&mut daemon, NAME, head + 1);
    database.run("INSERT INTO more VALUES (1)");
    database.run("INSERT INTO more VALUES (randomblob(9000))");
    daemon.stop();
    let last = storage.incrementals(NAME).pop().expect("there are some");
    assert_eq!((last.min.get(), last.max.get()), (head + 2, head + 3));
    let target = storage.another();
    export(&walrust, NAME, &target, &[]).succeeded();
    let litestream = Litestream::new(database.path(), &target);
    assert_restores(&litestream, &walrust, &[], &database.image());
    let mut reader = Walrust::on(&target);
    reader.set_bucket(&target.url());
    assert!(image(&reader.restored("db", &[])) == database.image());
    go_on(&litestream, &walrust, &mut database);
}

fn litestream_goes_on_behind_the_first_state(storage: &Storage) {
    let mut database = TestDatabase::with_history(4096, 17, 20);
    let walrust = Walrust::on(storage);
    walrust.snapshot(database.path(), &[]).succeeded();
    assert_eq!(storage.head(NAME), 1);
    let target = storage.another();
    export(&walrust, NAME, &target, &[]).succeeded();
    let litestream = Litestream::new(database.path(), &target);
    assert_restores(&litestream, &walrust, &[], &database.image());
    go_on(&litestream, &walrust, &mut database);
}

fn litestream_compacts_an_export(storage: &Storage) {
    let (walrust, mut database, _) = replicated(storage);
    let target = storage.another();
    export(&walrust, NAME, &target, &["--all"]).succeeded();
    let litestream = Litestream::new(database.path(), &target);
    commit(&mut database, &mut Workload::new(14));
    let head = storage.head(NAME);
    // It merges what was exported with what it captured itself.
    litestream.replicate_until("a merged file with a new state", || {
        let merged = target.ltx_files("db/ltx/1").into_iter().chain(target.ltx_files("db/0001"));
        merged.map(|file| file.max.get()).max().is_some_and(|max| max > head)
    });
    let output = walrust.file("merged.db");
    litestream.restore(&output, &[]);
    assert_same_content(database.path(), &output);
}

fn every_state_of_a_whole_history_comes_back(storage: &Storage) {
    let (walrust, mut database, states) = replicated(storage);
    let target = storage.another();
    let result = export(&walrust, NAME, &target, &["--all", "--json"]).succeeded().json();
    assert_eq!(result["snapshots"], 2);
    let litestream = Litestream::new(database.path(), &target);
    for (txid, state) in &states {
        assert_restores(&litestream, &walrust, &["-txid", &format!("{txid:016x}")], state);
    }
    let again = export(&walrust, NAME, &target, &["--all"]);
    again.failed(6, &["is not empty", "Choose another place"]);
    if target.url().starts_with("file://") {
        // Its files have the times of the states; the state before this time is meant.
        for file in storage.incrementals(NAME) {
            let time = storage.header(NAME, file).timestamp_ms + 1;
            let time = Timestamp::from_millisecond(time).expect("a time of this century");
            // Of two commits in a row the first may have a file of its own.
            let state = states.get(&file.max.get());
            if let Some(state) = state.filter(|_| file.max.get() < storage.head(NAME)) {
                let more = ["-timestamp", &time.to_string()];
                assert_restores(&litestream, &walrust, &more, state);
            }
        }
    }
    go_on(&litestream, &walrust, &mut database);
}

fn an_export_of_damaged_files_restores_nothing(storage: &Storage) {
    let (walrust, database, _) = replicated(storage);
    let files = walrust.run(["restore", NAME, "--plan", "--json"]).succeeded().json();
    let keys = files["files"].as_array().expect("a list of files").iter();
    for key in keys.map(|file| file["key"].as_str().expect("text")) {
        let (original, metadata) = (storage.read(key), storage.metadata(key));
        let mut damaged = original.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x10;
        // With and without the hash beside it.
        for metadata in [&metadata, &Metadata::new()] {
            let target = storage.another();
            storage.write(key, &damaged, metadata);
            export(&walrust, NAME, &target, &[]).failed(5, &[key]);
            let litestream = Litestream::new(database.path(), &target);
            litestream.restore_fails(&walrust.file("none.db"));
        }
        storage.write(key, &original, &metadata);
    }
    export(&walrust, NAME, &storage.another(), &[]).succeeded();
}

#[test]
fn c05_a_file_of_another_chain_is_not_exported() {
    let mut history = SmallHistory::new();
    let other = SmallHistory::of("the other", Storage::directory());
    let key = history.key(5, 5);
    history.forget_metadata();
    // What the manifest knows of the file would tell as well.
    history.storage.delete(&history.manifest());
    history.storage.write(&key, other.bytes(&key), &Metadata::new());
    let target = Storage::directory();
    let outcome = export(&history.walrust, NAME, &target, &[]);
    outcome.failed(5, &["does not continue the file before it", "its checksum of TXID"]);
    assert!(target.ltx_files("db/ltx/9").is_empty(), "without a snapshot nothing restores");
}

#[test]
fn exported_files_are_those_of_the_history_without_checksums() {
    let history = SmallHistory::new();
    let target = Storage::directory();
    let text = export(&history.walrust, NAME, &target, &["--all"]).succeeded().stdout;
    assert!(text.contains("litestream restore -o FILE") && text.contains("7 files"), "{text}");
    for key in target.keys("") {
        let bytes = target.read(&key);
        let decoder = Decoder::new(bytes.as_slice(), Mode::Strict).unwrap();
        let header = decoder.header().clone();
        let before = history.storage.header(NAME, header.file_name());
        assert!(!header.tracking, "{key}");
        assert_eq!((header.wal_offset, header.wal_size), (32, 0), "{key}");
        assert_eq!((header.commit, header.timestamp_ms), (before.commit, before.timestamp_ms));
        let time = Timestamp::from_millisecond(header.timestamp_ms).unwrap();
        assert_eq!(target.metadata(&key)["litestream-timestamp"], time.to_string());
    }
}

#[test]
fn what_cannot_be_exported_is_refused() {
    let history = SmallHistory::new();
    let walrust = &history.walrust;
    let target = Storage::directory();
    export(walrust, "nobody", &target, &[]).failed(6, &["no backup named \"nobody\""]);
    let top = walrust.run(["export", NAME, "--to", "s3://bucket/"]);
    top.failed(2, &["root of a bucket", "add a path"]);
    walrust.run(["export", NAME, "--to", "/relative"]).failed(2, &["is not a storage URL"]);
    // Its own place has files already.
    let own = format!("{}/{NAME}", history.storage.url());
    walrust.run(["export", NAME, "--to", &own]).failed(6, &["is not empty"]);
    assert_eq!(history.storage.keys(""), history.keys());

    export(walrust, NAME, &target, &[]).succeeded();
    let mut reader = Walrust::alone();
    reader.set_bucket(&target.url());
    let again = export(&reader, "db", &Storage::directory(), &[]);
    again.failed(1, &["a tree of Litestream already"]);
}

/// The way back: what Litestream has is restored by walrust, and replicated from then on.
fn what_litestream_replicated_is_replicated_by_walrust(storage: &Storage) {
    let mut database = TestDatabase::with_history(4096, 15, 20);
    let litestream = Litestream::new(database.path(), storage);
    litestream.replicate(&[]);
    commit(&mut database, &mut Workload::new(16));
    litestream.replicate(&[]);
    let expected = database.image();

    let walrust = Walrust::on(storage);
    let moved = walrust.file("moved.db");
    walrust.restore("db", &moved, &[]).succeeded();
    assert!(image(&moved) == expected);
    let mut daemon = walrust.watch(&[Path::new(&moved)]);
    storage.wait_for_txid(&mut daemon, "moved", 1);
    daemon.stop();
    assert_same_database(&moved, &walrust.restored("moved", &[]));
}
