//! Kills of a follower at any moment.

use std::time::Duration;

use nix::sys::signal::Signal;
use walrust_testkit::{Prng, SqlProcess, SqliteLibrary, assert_same_database};

use super::ledger::{Ledger, check, look};
use super::{Replica, replica_at};
use crate::small_history::{HEAD, SmallHistory};
use crate::storage::Storage;
use crate::walrust::Walrust;

#[test]
fn c17_a_follower_that_is_killed_at_any_moment_goes_on_where_it_was() {
    let mut ledger = Ledger::new(1024, "");
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let mut daemon = walrust.watch(&[ledger.path()]);
    storage.wait_for_txid(&mut daemon, "app", 1);
    let replica = Replica::of(&storage, "app");
    replica.catch_up().succeeded();
    let mut stays = Some(replica.reader(SqliteLibrary::System));
    let mut prng = Prng::new(3);
    let mut last = 0;
    for round in 0..60 {
        (0..3).for_each(|_| ledger.commit());
        // Half of the time nobody else has the replica open, and the wal-index is lost as well.
        if round % 2 == 0 {
            stays.take().into_iter().for_each(SqlProcess::close);
        }
        let follower = replica.follow();
        std::thread::sleep(Duration::from_micros(prng.between(500, 60_000)));
        follower.kill();
        let mut reader = stays.unwrap_or_else(|| replica.reader(SqliteLibrary::System));
        let number = look(&mut reader);
        assert!(number >= last, "from {last} back to {number}");
        last = number;
        check(&mut reader);
        stays = Some(reader);
    }
    assert!(last > 0, "it never came to anything");
    daemon.stop();
    replica.catch_up().succeeded();
    stays.into_iter().for_each(SqlProcess::close);
    assert_same_database(ledger.path(), &replica.path);
}

#[test]
fn c17_a_first_run_that_is_killed_leaves_no_half_replica() {
    let history = SmallHistory::new();
    let mut prng = Prng::new(5);
    for _ in 0..25 {
        let replica = Replica::of(&history.storage, "app");
        let follower = replica.follow();
        std::thread::sleep(Duration::from_micros(prng.between(500, 40_000)));
        follower.kill();
        if replica.path.exists() {
            check(&mut replica.reader(SqliteLibrary::System));
        }
        replica.catch_up().succeeded();
        assert_eq!(replica.txid(), HEAD);
        assert_same_database(&history.source, &replica.path);
    }
}

#[test]
fn c17_a_rebuild_that_is_killed_is_finished_or_was_never_begun() {
    let history = SmallHistory::new();
    let mut prng = Prng::new(6);
    for _ in 0..25 {
        let replica = replica_at(&history, 2);
        history.storage.delete(&history.key(3, 3));
        let follower = replica.follow();
        std::thread::sleep(Duration::from_micros(prng.between(500, 40_000)));
        follower.kill();
        check(&mut replica.reader(SqliteLibrary::System));
        replica.catch_up().succeeded();
        assert_eq!(replica.txid(), HEAD);
        assert_same_database(&history.source, &replica.path);
    }
}

#[test]
fn c17_a_signal_ends_it_with_success() {
    let history = SmallHistory::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let replica = Replica::of(&history.storage, "app");
        let mut follower = replica.follow();
        replica.wait_for_txid(&mut follower, HEAD);
        follower.signal(signal);
        follower.wait().succeeded();
    }
}
