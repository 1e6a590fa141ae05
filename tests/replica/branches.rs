//! A replica of a history that two hosts have continued behind one state.

use std::path::PathBuf;

use rusqlite::Connection;
use walrust_testkit::{assert_same_database, connect};

use super::{Replica, replica_at, rows};
use crate::daemon::Daemon;
use crate::small_history::{NAME, SmallHistory};
use crate::storage::Storage;
use crate::walrust::Walrust;

/// A host that goes on with a history behind one of its states, in a bucket of its own.
struct Host {
    bucket: Storage,
    walrust: Walrust,
    path: PathBuf,
    application: Connection,
    daemon: Daemon,
}

impl Host {
    fn behind(history: &SmallHistory, txid: u64) -> Self {
        let bucket = history.storage.another();
        for key in history.keys() {
            let file = key.rsplit('/').next().and_then(|file| file.parse().ok());
            if file.is_some_and(|file: walrust_ltx::FileName| file.max.get() <= txid) {
                bucket.write(&key, history.bytes(&key), history.metadata(&key));
            }
        }
        let walrust = Walrust::on(&bucket);
        let path = walrust.restored(NAME, &["--txid", &txid.to_string()]);
        let named = walrust.file("app.db");
        std::fs::rename(path, &named).expect("a restored database");
        let watched = named.display().to_string();
        let mut daemon = walrust.watch_with([&watched, "--wal-sync-interval", "1h"]);
        // From then on it sees every commit for itself.
        daemon.wait_until("it has looked at the database", |_| {
            let outcome = walrust.ask(["status", "--json"]);
            outcome.code == Some(0) && outcome.json()["databases"][0]["up_to_date"] == true
        });
        let application = connect(&named, 512);
        Self { bucket, walrust, path: named, application, daemon }
    }

    /// So many commits in one file, which it returns.
    fn commit(&self, commits: u64) -> String {
        let before = self.bucket.ltx_files(NAME);
        let row = || {
            // A table without an index: the same change of a row and of its index entry, at the same
            // place of two pages, would leave the rolling checksum as it is.
            let row = "BEGIN; CREATE TABLE IF NOT EXISTS u (y);
                       INSERT INTO u VALUES (randomblob(30)); COMMIT";
            self.application.execute_batch(row).expect("a commit");
        };
        // The first that it sees goes at once: it must see all of them together.
        self.daemon.while_suspended(|| (0..commits).for_each(|_| row()));
        self.walrust.ask(["sync"]).succeeded();
        let mut new = self.bucket.ltx_files(NAME);
        new.retain(|file| !before.contains(file));
        let [file] = new.as_slice() else { panic!("not one file: {new:?}") };
        assert_eq!(file.max.get() - file.min.get() + 1, commits);
        format!("{NAME}/{file}")
    }

    /// Brings an object to another bucket.
    fn sends(&self, key: &str, storage: &Storage) {
        storage.write(key, &self.bucket.read(key), &self.bucket.metadata(key));
    }

    /// Stops it; its directory stays for as long as the user.
    fn stop(self) -> (Walrust, PathBuf) {
        drop(self.application);
        self.daemon.stop();
        (self.walrust, self.path)
    }
}

fn step(event: &str, txid: u64) -> (String, u64) {
    (event.to_owned(), txid)
}

/// A replica at TXID 4 of a history that ends there.
fn replica_of_four() -> (SmallHistory, Replica) {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 4);
    for key in [history.key(5, 5), history.key(6, 6), history.manifest()] {
        history.storage.delete(&key);
    }
    (history, replica)
}

#[test]
fn c12_c17_a_replica_that_followed_a_late_upload_comes_to_the_branch_that_goes_on() {
    let (history, replica) = replica_of_four();
    let (lost, successor) = (Host::behind(&history, 4), Host::behind(&history, 4));
    let storage = &history.storage;
    let late = lost.commit(5);
    lost.sends(&late, storage);
    assert_eq!(replica.events(), [step("applied", 9)]);
    lost.stop();
    // The successor had looked before that, and stores its files only now.
    successor.sends(&successor.commit(1), storage);
    assert_eq!(replica.events(), [step("rebuilt", 5)]);
    assert_same_database(&successor.path, &replica.path);
    for txid in [6, 7] {
        successor.sends(&successor.commit(1), storage);
        assert_eq!(replica.events(), [step("applied", txid)]);
    }
    // Also across the TXIDs of the late upload, and with one that runs all the time.
    successor.sends(&successor.commit(3), storage);
    assert_eq!(replica.events(), [step("applied", 10)]);
    assert_eq!(replica.events(), [step("current", 10)]);
    let (_directory, path) = successor.stop();
    assert_same_database(&path, &replica.path);
}

#[test]
fn c12_a_branch_whose_newest_state_is_older_does_not_take_the_replica_back() {
    let (history, replica) = replica_of_four();
    let (lost, successor) = (Host::behind(&history, 4), Host::behind(&history, 4));
    let storage = &history.storage;
    let late = [lost.commit(2), lost.commit(4)];
    let own = [successor.commit(1), successor.commit(1), successor.commit(1)];
    own[..2].iter().for_each(|key| successor.sends(key, storage));
    assert_eq!(replica.events(), [step("applied", 5), step("applied", 6)]);
    let before = rows(&replica.path);
    // For a moment the history seems to go on with these, which are older.
    late.iter().for_each(|key| lost.sends(key, storage));
    replica.catch_up().failed(6, &["TXID 000000000000000a", "does not go back"]);
    assert_eq!(rows(&replica.path), before);
    successor.sends(&own[2], storage);
    assert_eq!(replica.events(), [step("applied", 7)]);
    assert_eq!(replica.events(), [step("current", 7)]);
    lost.stop();
    let (_directory, path) = successor.stop();
    assert_same_database(&path, &replica.path);
}
