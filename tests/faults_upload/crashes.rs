//! Kills at any moment, and what a restart makes of what they left (B1, B2, B5).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use walrust_testkit::{
    Prng, TestDatabase, WriterOptions, WriterProcess, assert_same_database, check_integrity,
};

use super::{INSERT, SMALL_WAL, assert_one_history, assert_whole, behind, watch_with};
use crate::fault_proxy::{Exchange, Fault, FaultProxy};
use crate::storage::Storage;
use crate::walrust::{PATIENCE, Walrust};

/// More than enough kills to meet every step between two of them.
const KILLS: u64 = 16;

fn killed_at_random_moments(seed: u64, arguments: &[&str]) {
    let (_directory, source) = TestDatabase::with_history(4096, seed, 20).close();
    let storage = Storage::s3();
    let walrust = Walrust::on(&storage);
    let mut writer = WriterProcess::spawn(
        &source,
        &WriterOptions {
            seed,
            commits_per_second: Some(150),
            checkpoints: true,
            vacuums: true,
            ..WriterOptions::default()
        },
    );
    let mut random = Prng::new(seed);
    for round in 1..=KILLS {
        let daemon = watch_with(&walrust, &source, arguments);
        // A random moment is what this is about; nothing is waited for.
        thread::sleep(Duration::from_millis(random.between(20, 500)));
        daemon.kill();
        if round % 5 == 0 && storage.head("app") > 0 {
            let restored = walrust.restored("app", &["--integrity-check", "full"]);
            check_integrity(&restored);
        }
    }
    let before = storage.head("app");
    let mut daemon = watch_with(&walrust, &source, arguments);
    daemon.wait_until("it goes on", |_| storage.head("app") > before);
    let commits = writer.commits();
    writer.wait_for_commit(commits + 10, PATIENCE);
    writer.stop();
    let log = daemon.stop().stderr;
    assert!(!log.contains("another writer"), "{log}");
    assert_same_database(&source, &walrust.restored("app", &["--integrity-check", "full"]));
    assert_one_history(&storage, "app");
}

#[test]
fn b01_kills_at_random_moments_under_load_lose_nothing() {
    killed_at_random_moments(101, &[]);
}

#[test]
fn b01_kills_between_checkpoints_of_our_own_lose_nothing() {
    let eager = ["--checkpoint-interval", "50ms"];
    killed_at_random_moments(102, &[&SMALL_WAL[..], &eager].concat());
}

#[test]
fn b02_a_restart_never_stores_a_txid_again() {
    let database = TestDatabase::with_history(4096, 103, 20);
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    let mut stored: Vec<(String, Vec<u8>)> = Vec::new();
    for round in 0..6 {
        let mut daemon = walrust.watch(&[database.path()]);
        storage.wait_for_manifest(&mut daemon, "app");
        for _ in 0..3 {
            let head = storage.head("app");
            database.run(INSERT);
            storage.wait_for_txid(&mut daemon, "app", head + 1);
        }
        match round % 2 {
            0 => drop(daemon.stop()),
            _ => daemon.kill(),
        }
        for (key, bytes) in &stored {
            assert!(storage.read(key) == *bytes, "{key} was replaced");
        }
        let keys = storage.ltx_files("app").into_iter().map(|file| format!("app/{file}"));
        stored = keys.map(|key| (key.clone(), storage.read(&key))).collect();
    }
    // Commits that a stop or a kill met are shipped by the next run, and by nobody twice.
    let uploads: Vec<_> = proxy.uploads("app").iter().filter_map(Exchange::uploads).collect();
    let keys: BTreeSet<_> = uploads.iter().map(ToString::to_string).collect();
    assert_eq!(keys.len(), uploads.len(), "nothing is sent again: {uploads:?}");
    assert_one_history(&storage, "app");
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}

/// A daemon is killed when storage has taken a file and the answer has not arrived. What `lose`
/// takes from the local state must not matter to what is stored.
fn killed_between_upload_and_position(seed: u64, first: bool, lose: impl Fn(&Path)) {
    let database = TestDatabase::with_history(4096, seed, 20);
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    let hold = |exchange: &Exchange| match exchange.uploads() {
        Some(_) => Fault::HeldReply,
        None => Fault::Pass,
    };
    if first {
        proxy.set(hold);
    }
    let mut daemon = walrust.watch(&[database.path()]);
    if !first {
        storage.wait_for_manifest(&mut daemon, "app");
        proxy.set(hold);
        database.run(INSERT);
    }
    daemon.wait_until("storage has taken a file", |_| {
        proxy.uploads("app").last().is_some_and(|last| last.status == Some(200)) && {
            first || storage.head("app") == 2
        }
    });
    daemon.kill();
    proxy.pass();
    let key = format!("app/{}", storage.ltx_files("app").last().expect("a file was taken"));
    let taken = storage.read(&key);
    database.run(INSERT);
    database.run(INSERT);
    lose(&database.directory().join(".app.db-walrust"));

    let before = storage.head("app");
    let mut daemon = walrust.watch(&[database.path()]);
    daemon.wait_until("it goes on", |_| storage.head("app") > before);
    let log = daemon.stop().stderr;
    assert!(!log.contains("another writer"), "our own file is no conflict: {log}");
    assert!(storage.read(&key) == taken, "{key} was replaced");
    assert_one_history(&storage, "app");
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}

#[test]
fn b05_a_kill_between_upload_and_position_overwrites_nothing() {
    killed_between_upload_and_position(104, false, |_| {});
}

#[test]
fn b05_the_first_snapshot_is_not_stored_twice_either() {
    killed_between_upload_and_position(105, true, |_| {});
}

#[test]
fn b05_the_staging_directory_may_be_lost_as_well() {
    let lose = |state: &Path| fs::remove_dir_all(state.join("staging")).expect("it was staged");
    killed_between_upload_and_position(106, false, lose);
    killed_between_upload_and_position(107, true, lose);
}

#[test]
fn b05_the_whole_local_state_may_be_lost_as_well() {
    let lose = |state: &Path| fs::remove_dir_all(state).expect("there was local state");
    killed_between_upload_and_position(108, false, lose);
    killed_between_upload_and_position(109, true, lose);
}

#[test]
fn b05_a_lost_reply_is_recognised_as_our_own_upload() {
    let database = TestDatabase::with_history(4096, 110, 20);
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    let mut daemon = walrust.watch(&[database.path()]);
    storage.wait_for_manifest(&mut daemon, "app");
    proxy.set(|exchange| match exchange.uploads() {
        Some(_) => Fault::LostReply,
        None => Fault::Pass,
    });
    database.run(INSERT);
    // Every attempt is lost, until one is told that the object exists.
    daemon.wait_until("another attempt", |_| {
        proxy.uploads("app").iter().any(|upload| upload.status == Some(412))
    });
    proxy.pass();
    database.run(INSERT);
    storage.wait_for_txid(&mut daemon, "app", 3);
    let log = daemon.stop().stderr;
    assert!(!log.contains("another writer"), "{log}");
    assert_one_history(&storage, "app");
    for file in storage.ltx_files("app") {
        assert_whole(&storage, "app", file);
    }
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}
