//! What readers in other processes see while a replica moves on.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use walrust_testkit::{SqlProcess, SqliteLibrary, assert_same_database};

use super::ledger::{Ledger, check, look};
use super::{Replica, replica_at};
use crate::small_history::{HEAD, SmallHistory};
use crate::storage::{Storage, on_both_storages};
use crate::walrust::Walrust;

on_both_storages!(c12_readers_see_whole_states_that_never_go_back);

fn c12_readers_see_whole_states_that_never_go_back(storage: &Storage) {
    readers_beside_a_follower(storage, 4096, "", 100);
}

/// How long a reader waits that has seen the newest state.
const PAUSE: Duration = Duration::from_millis(1);
/// Commits after which the replica is waited for.
const ROUND: u32 = 10;

/// A writer, a daemon, a follower, and readers of both SQLite libraries.
fn readers_beside_a_follower(storage: &Storage, page_size: u32, pragmas: &str, commits: u32) {
    let mut ledger = Ledger::new(page_size, pragmas);
    let walrust = Walrust::on(storage);
    let mut daemon = walrust.watch(&[ledger.path()]);
    storage.wait_for_txid(&mut daemon, "app", 1);
    let replica = Replica::of(storage, "app");
    let mut follower = replica.follow();
    replica.wait_for_txid(&mut follower, 1);

    let done = AtomicBool::new(false);
    // States that each reader has seen.
    let seen = [SqliteLibrary::System, SqliteLibrary::Bundled].map(|it| (it, AtomicU32::new(0)));
    thread::scope(|scope| {
        let readers = seen.each_ref().map(|(library, states)| {
            let (replica, done) = (&replica, &done);
            scope.spawn(move || {
                let mut reader = replica.reader(*library);
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let number = look(&mut reader);
                    assert!(number >= last, "from {last} back to {number}");
                    if number > last {
                        check(&mut reader);
                        states.fetch_add(1, Ordering::Relaxed);
                    } else {
                        // Others need the processor to bring the next state.
                        thread::sleep(PAUSE);
                    }
                    last = number;
                }
                reader.close();
            })
        });
        let states = || seen.each_ref().map(|(_, states)| states.load(Ordering::Relaxed));
        let mut before = states();
        for number in 0..commits {
            ledger.commit();
            if number % ROUND == ROUND - 1 {
                // Not everything in one state, and no reader comes too late for it.
                let txid = replica.txid() + 1;
                replica.wait_for_txid(&mut follower, txid);
                follower.wait_until("every reader sees another state", |_| {
                    let more = states().iter().zip(before).all(|(now, before)| *now > before);
                    more || readers.iter().any(|reader| reader.is_finished())
                });
                before = states();
            }
        }
        daemon.stop();
        replica.wait_for_txid(&mut follower, storage.head("app"));
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().expect("a reader that found no fault");
        }
    });
    let enough = commits / ROUND;
    let few = seen.iter().find(|(_, states)| states.load(Ordering::Relaxed) < enough);
    assert!(few.is_none(), "states that readers saw: {seen:?}");
    assert_same_database(ledger.path(), &replica.path);
    follower.signal(Signal::SIGTERM);
    follower.wait().succeeded();
    assert_eq!(replica.walrust.files(), [".replica.db-walrust-replica", "replica.db"]);
    assert_same_database(ledger.path(), &replica.path);
}

macro_rules! databases {
    ($($test:ident: $page_size:literal, $pragmas:literal),* $(,)?) => {
        $(#[test] fn $test() {
            readers_beside_a_follower(&Storage::directory(), $page_size, $pragmas, 50);
        })*
    };
}

databases!(
    pages_of_512: 512, "",
    pages_of_65536: 65536, "",
    auto_vacuum: 1024, "PRAGMA auto_vacuum = FULL",
    incremental_vacuum: 1024, "PRAGMA auto_vacuum = INCREMENTAL",
);

#[test]
fn c17_a_reader_that_stays_holds_nobody_up_and_keeps_its_state() {
    let mut ledger = Ledger::new(1024, "");
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    ledger.commit();
    let mut daemon = walrust.watch(&[ledger.path()]);
    storage.wait_for_txid(&mut daemon, "app", 1);
    let replica = Replica::of(&storage, "app");
    let mut follower = replica.follow();
    replica.wait_for_txid(&mut follower, 1);

    let mut stays = replica.reader(SqliteLibrary::System);
    stays.run("BEGIN");
    assert_eq!(look(&mut stays), 1);
    // More than a WAL is allowed to grow to without readers.
    let mut comes_and_goes = replica.reader(SqliteLibrary::Bundled);
    for _ in 0..12 {
        (0..25).for_each(|_| ledger.commit());
        let number = ledger.number();
        follower.wait_until("the replica moves on", |_| look(&mut comes_and_goes) == number);
        assert_eq!(look(&mut stays), 1);
    }
    check(&mut stays);
    stays.run("COMMIT");
    assert_eq!(look(&mut stays), ledger.number());
    stays.close();
    comes_and_goes.close();
    daemon.stop();
    follower.signal(Signal::SIGTERM);
    follower.wait().succeeded();
    assert_same_database(ledger.path(), &replica.path);
}

#[test]
fn c17_the_lock_of_another_writer_is_waited_for() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 4);
    let mut writer = SqlProcess::open(SqliteLibrary::System, &replica.path);
    writer.run("BEGIN IMMEDIATE");
    let mut follower = replica.follow();
    follower.wait_for_line(&["cannot be updated", "locked"]);
    let mut reader = replica.reader(SqliteLibrary::Bundled);
    assert_eq!(reader.run("SELECT count(*) FROM t"), [["3"]]);
    writer.run("ROLLBACK");
    replica.wait_for_txid(&mut follower, HEAD);
    assert_eq!(reader.run("SELECT count(*) FROM t"), [["5"]]);
    reader.close();
    writer.close();
    follower.signal(Signal::SIGTERM);
    follower.wait().succeeded();
    assert_same_database(&history.source, &replica.path);
}

#[test]
fn the_wal_of_a_replica_is_copied_into_its_file_while_it_follows() {
    let mut ledger = Ledger::new(1024, "");
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let mut daemon = walrust.watch(&[ledger.path()]);
    storage.wait_for_txid(&mut daemon, "app", 1);
    let replica = Replica::of(&storage, "app");
    let mut follower = replica.follow();
    replica.wait_for_txid(&mut follower, 1);
    let mut reader = replica.reader(SqliteLibrary::System);
    let wal = walrust_testkit::sidecar(&replica.path, "-wal");
    let mut sizes = Vec::new();
    for _ in 0..12 {
        (0..25).for_each(|_| ledger.commit());
        let number = ledger.number();
        follower.wait_until("the replica moves on", |_| look(&mut reader) == number);
        sizes.push(std::fs::metadata(&wal).unwrap().len());
    }
    assert!(sizes.windows(2).any(|pair| pair[1] < pair[0]), "it only grows: {sizes:?}");
    daemon.stop();
    follower.kill();
}
