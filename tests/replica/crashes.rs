//! Kills of a follower at any moment.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use walrust_testkit::{Prng, SqlProcess, SqliteLibrary, assert_same_database};

use super::ledger::{Ledger, check, look};
use super::{Replica, replica_at};
use crate::killer::killed_at;
use crate::small_history::{HEAD, SmallHistory};
use crate::storage::Storage;
use crate::walrust::{Walrust, copy_files};

#[test]
fn c17_a_follower_that_is_killed_at_any_moment_goes_on_where_it_was() {
    let mut ledger = Ledger::new(1024, "");
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let mut daemon = walrust.watch(&[ledger.path()]);
    storage.wait_for_txid(&mut daemon, "app", 1);
    let replica = Replica::of(&storage, "app");
    let begun = Instant::now();
    replica.catch_up().succeeded();
    // Long enough for a follower to come to something, on a busy machine too.
    let whole = u64::try_from(begun.elapsed().as_micros()).expect("not an age");
    let longest = whole.max(60_000);
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
        std::thread::sleep(Duration::from_micros(prng.between(500, longest)));
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

/// Kills a follower before each change of a file in turn, each time from the same start. Readers
/// must see a whole state, one of those between, and the next run must bring the newest. With
/// `stays` a reader has the replica open all the time, so that the wal-index survives the kill.
fn kill_at_every_change(history: &SmallHistory, replica: &Replica, stays: bool) {
    let restored = history.walrust.restored("app", &[]);
    let newest = std::fs::read(restored).expect("a restored database");
    let saved = tempfile::tempdir().expect("a temporary directory");
    copy_files(&replica.walrust.file(""), saved.path());
    let open = || replica.path.exists().then(|| replica.writable_reader());
    let begin = open().map(|mut reader| rows(&mut reader));
    for kills in 0.. {
        let mut reader = if stays { open() } else { None };
        reader.iter_mut().for_each(|reader| drop(rows(reader)));
        if !killed_at(&replica.command(&["--once"]), kills) {
            assert!(kills > 20, "only {kills} changes");
            return;
        }
        reader = reader.or_else(open);
        if let Some(reader) = &mut reader {
            let rows = rows(reader);
            let least = begin.as_ref().map_or(HEAD as usize - 1, Vec::len);
            let continues = begin.iter().all(|begin| rows.starts_with(begin));
            assert!(rows.len() >= least && continues, "kill {kills}: {rows:?}");
        }
        replica.catch_up().succeeded();
        assert_eq!(replica.txid(), HEAD, "kill {kills}");
        // Who closes last leaves one file.
        reader.into_iter().for_each(SqlProcess::close);
        let bytes = std::fs::read(&replica.path).expect("the replica");
        assert!(bytes == newest, "kill {kills} left another database");
        copy_files(saved.path(), &replica.walrust.file(""));
    }
}

/// The rows that a reader sees, of a database without fault.
fn rows(reader: &mut SqlProcess) -> Vec<Vec<String>> {
    check(reader);
    reader.run("SELECT id, x FROM t ORDER BY id")
}

#[test]
fn c17_a_first_run_that_is_killed_at_any_call_leaves_no_half_replica() {
    let history = SmallHistory::new();
    kill_at_every_change(&history, &Replica::of(&history.storage, "app"), false);
}

fn kill_followers(stays: bool) {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 4);
    kill_at_every_change(&history, &replica, stays);
}

#[test]
fn c17_a_follower_that_is_killed_at_any_call_leaves_a_whole_state() {
    kill_followers(false);
}

#[test]
fn c17_a_follower_that_is_killed_at_any_call_beside_a_reader_leaves_a_whole_state() {
    kill_followers(true);
}

fn kill_rebuilds(stays: bool) {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 2);
    history.storage.delete(&history.key(3, 3));
    kill_at_every_change(&history, &replica, stays);
}

#[test]
fn c17_a_rebuild_that_is_killed_at_any_call_is_finished_or_was_never_begun() {
    kill_rebuilds(false);
}

#[test]
fn c17_a_rebuild_that_is_killed_at_any_call_beside_a_reader_is_finished_or_was_never_begun() {
    kill_rebuilds(true);
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
