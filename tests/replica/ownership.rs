//! What a replica may be written over: nothing but itself.

use std::fs;

use nix::sys::signal::Signal;
use walrust_testkit::{assert_same_database, connect};

use super::{Replica, replica_at};
use crate::small_history::{HEAD, NAME, SmallHistory};
use crate::storage::Storage;
use crate::walrust::Walrust;

#[test]
fn the_first_run_makes_the_replica_and_the_next_finds_it() {
    let history = SmallHistory::new();
    let replica = Replica::of(&history.storage, NAME);
    assert_eq!(replica.events(), [("created".to_owned(), HEAD)]);
    assert_same_database(&history.source, &replica.path);
    assert_eq!(replica.walrust.files(), [".replica.db-walrust-replica", "replica.db"]);
    assert_eq!(replica.events(), [("current".to_owned(), HEAD)]);
    let text =
        replica.walrust.run(["replicate", &replica.source, "--once", "--local", "replica.db"]);
    assert!(text.succeeded().stdout.contains("TXID 0000000000000006"));
}

#[test]
fn a_replica_is_in_wal_mode_as_its_source_is() {
    let history = SmallHistory::new();
    let replica = Replica::of(&history.storage, NAME);
    replica.catch_up().succeeded();
    assert_eq!(fs::read(&replica.path).unwrap()[18..20], [2, 2]);
}

#[test]
fn c12_a_file_that_is_no_replica_is_left_alone() {
    let history = SmallHistory::new();
    let replica = Replica::of(&history.storage, NAME);
    fs::write(&replica.path, "precious").unwrap();
    replica.catch_up().failed(6, &["replica.db", "not a replica", "choose another"]);
    assert_eq!(fs::read(&replica.path).unwrap(), b"precious");
    fs::remove_file(&replica.path).unwrap();

    // SQLite would replay it into the replica.
    fs::write(replica.walrust.file("replica.db-wal"), "precious").unwrap();
    replica.catch_up().failed(6, &["replica.db-wal", "not a replica"]);
    assert_eq!(replica.walrust.files(), ["replica.db-wal"], "nothing is left behind");
}

#[test]
fn c12_a_replica_of_another_source_is_left_alone() {
    let history = SmallHistory::new();
    let mut replica = replica_at(&history, 2);
    let before = replica.bytes();
    let own = replica.source.clone();
    replica.source = format!("{}/other", history.storage.url());
    replica.catch_up().failed(6, &["replica.db", &own, &replica.source]);
    assert!(before == replica.bytes());
}

#[test]
fn c12_a_replica_that_somebody_wrote_to_is_left_alone() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 4);
    let application = connect(&replica.path, 4096);
    application.execute_batch("INSERT INTO t (x) VALUES ('mine')").unwrap();
    drop(application);
    let before = fs::read(&replica.path).unwrap();
    let phrases = ["replica.db", "another program has written", ".replica.db-walrust-replica"];
    replica.catch_up().failed(3, &phrases);
    assert!(before == fs::read(&replica.path).unwrap());
}

#[test]
fn c12_a_replica_that_somebody_writes_to_while_it_follows_is_left_alone() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 4);
    let newer = [history.key(5, 5), history.key(6, 6)];
    newer.iter().for_each(|key| history.storage.delete(key));
    history.storage.delete(&history.manifest());
    let mut follower = replica.follow();
    // SQLite makes the wal-index when the follower opens the replica.
    follower.wait_until("the replica is open", |_| replica.walrust.file("replica.db-shm").exists());
    let application = connect(&replica.path, 4096);
    application.execute_batch("INSERT INTO t (x) VALUES ('mine')").unwrap();
    history.repair();
    follower.wait().failed(3, &["another program has written"]);
    let rows: u32 = application
        .query_row("SELECT count(*) FROM t WHERE x = 'mine'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 1);
}

#[test]
fn one_process_follows_into_one_file() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 4);
    let mut follower = replica.follow();
    replica.wait_for_txid(&mut follower, HEAD);
    replica.catch_up().failed(1, &["another walrust process", "lock"]);
    follower.signal(Signal::SIGTERM);
    follower.wait().succeeded();
}

#[test]
fn a_replica_that_was_removed_is_made_anew() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 4);
    fs::remove_file(&replica.path).unwrap();
    assert_eq!(replica.events(), [("created".to_owned(), HEAD)]);
    assert_same_database(&history.source, &replica.path);
}

#[test]
fn a_lost_table_of_checksums_is_made_anew_from_the_replica() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 4);
    fs::remove_file(replica.state_directory().join("pages.crc64")).unwrap();
    assert_eq!(replica.events(), [("applied".to_owned(), 5), ("applied".to_owned(), HEAD)]);
    assert_same_database(&history.source, &replica.path);
}

#[test]
fn what_cannot_be_followed_is_told_and_leaves_nothing_behind() {
    let storage = Storage::directory();
    let walrust = Walrust::with_access_to(&storage);
    let local = ["--local", "replica.db", "--once"];
    let run = |source: &str, more: &[&str]| {
        walrust.run([&["replicate", source], &local[..], more].concat())
    };
    for source in ["s3://bucket", "name", "s3://", "file:///", ""] {
        run(source, &[]).failed(2, &["does not name a database", "s3://bucket/prefix/name"]);
    }
    run("file:///somewhere/app", &["--interval", "0"]).failed(2, &["interval"]);
    let missing = format!("{}/app", storage.url());
    run(&missing, &[]).failed(6, &["app", "walrust list"]);
    assert_eq!(walrust.files(), [""; 0]);
}
