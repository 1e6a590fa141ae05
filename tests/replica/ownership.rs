//! What a replica may be written over: nothing but itself.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::libc;
use nix::sys::signal::Signal;
use walrust_testkit::{SqlProcess, SqliteLibrary, assert_same_database, connect, sidecar};

use super::{Replica, replica_at};
use crate::killer::{failed_at, failed_look_at, met_at};
use crate::small_history::{HEAD, NAME, SmallHistory};
use crate::storage::Storage;
use crate::walrust::{Walrust, copy_files};

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

/// An application makes a database of the name right before each change of a first run in turn.
fn make_before_every_change() {
    let history = SmallHistory::new();
    let replica = Replica::of(&history.storage, NAME);
    let mut refused = 0;
    for nth in 0.. {
        let mut application = None;
        let wal = sidecar(&replica.path, "-wal");
        let state_of_wal = || {
            let found = fs::metadata(&wal).expect("a WAL");
            (found.ctime(), found.ctime_nsec(), fs::read(&wal).expect("a WAL"))
        };
        let mut make = || {
            if replica.path.exists() {
                return;
            }
            let mut process = SqlProcess::open(SqliteLibrary::Bundled, &replica.path);
            process.run("PRAGMA journal_mode = WAL");
            process.run("CREATE TABLE mine (x)");
            process.run("INSERT INTO mine VALUES (1)");
            application = Some((process, state_of_wal()));
        };
        let met = met_at(&replica.command(&["--once"]), nth, &mut make, None);
        if let Some((application, before)) = application {
            let after = state_of_wal();
            assert!(before.2 == after.2, "change {nth}: its WAL was touched");
            // It was there before the last look: then not even its name was touched.
            assert!(nth > 0 || before == after);
            assert_eq!(met.code, 6, "change {nth}: {}", met.stderr);
            assert!(met.stderr.contains("not a replica"), "change {nth}: {}", met.stderr);
            // Its commits are in its WAL only.
            application.kill();
            assert_eq!(rows_of(&replica.path, "mine"), [["1"]], "change {nth}");
            let state = replica.walrust.files();
            assert!(!state.iter().any(|name| name.contains("walrust")), "change {nth}: {state:?}");
            refused += 1;
        }
        for name in replica.walrust.files() {
            let path = replica.walrust.file(&name);
            let removed = if path.is_dir() { fs::remove_dir_all } else { fs::remove_file }(path);
            removed.expect("it is there");
        }
        if met.call.is_none() {
            break;
        }
    }
    assert!(refused > 5, "{refused}");
}

/// What a table has.
fn rows_of(database: &Path, table: &str) -> Vec<Vec<String>> {
    let mut reader = SqlProcess::open(SqliteLibrary::System, database);
    let rows = reader.run(&format!("SELECT * FROM {table}"));
    reader.close();
    rows
}

#[test]
fn c12_a_database_that_is_made_during_the_first_run_is_left_alone() {
    make_before_every_change();
}

#[test]
fn c12_a_database_that_is_made_during_the_first_run_is_left_alone_without_links() {
    let history = SmallHistory::new();
    let replica = Replica::of(&history.storage, NAME);
    // Which of its changes is the link?
    let link = (0..).find(|nth| {
        let met = failed_at(&replica.command(&["--once"]), *nth, libc::EPERM);
        let found = met.call.expect("a link") == libc::SYS_linkat;
        assert!(!found || met.code == 0, "another call takes its place: {}", met.stderr);
        fs::remove_dir_all(replica.state_directory()).ok();
        fs::remove_file(&replica.path).ok();
        found
    });
    let mut application = None;
    let mut make = || {
        let mut process = SqlProcess::open(SqliteLibrary::Bundled, &replica.path);
        process.run("PRAGMA journal_mode = WAL");
        process.run("CREATE TABLE mine (x)");
        application = Some(process);
    };
    let met = met_at(&replica.command(&["--once"]), link.unwrap(), &mut make, Some(libc::EPERM));
    assert_eq!(met.code, 6, "{}", met.stderr);
    application.unwrap().kill();
    assert_eq!(rows_of(&replica.path, "mine"), [[""; 0]; 0]);
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
fn a_file_that_cannot_be_looked_at_is_not_taken_for_another_one() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 4);
    let saved = tempfile::tempdir().unwrap();
    copy_files(&replica.walrust.file(""), saved.path());
    let mut failed = 0;
    for nth in 0.. {
        let met = failed_look_at(&replica.command(&["--once"]), &replica.path, nth, libc::EIO);
        if met.call.is_none() {
            break;
        }
        if met.code != 0 {
            assert_eq!(met.code, 3, "look {nth}: {}", met.stderr);
            assert!(met.stderr.contains("os error 5"), "look {nth}: {}", met.stderr);
            failed += 1;
        }
        replica.catch_up().succeeded();
        assert_same_database(&history.source, &replica.path);
        copy_files(saved.path(), &replica.walrust.file(""));
    }
    assert!(failed > 1, "only {failed} looks matter");
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
