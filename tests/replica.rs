//! Read replicas: what readers see while `walrust replicate` follows, and what it survives.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use walrust_testkit::{SqlProcess, SqliteLibrary, sidecar};

use crate::daemon::Daemon;
use crate::small_history::{NAME, SmallHistory};
use crate::storage::Storage;
use crate::walrust::{Outcome, Walrust};

mod branches;
mod crashes;
mod histories;
mod ledger;
mod ownership;
mod readers;
mod requests;

/// A replica in the working directory of a user.
#[derive(Debug)]
pub(crate) struct Replica {
    walrust: Walrust,
    source: String,
    path: PathBuf,
}

impl Replica {
    /// A replica of a database in storage that does not exist yet.
    fn of(storage: &Storage, name: &str) -> Self {
        let walrust = Walrust::with_access_to(storage);
        let path = walrust.file("replica.db");
        Self { walrust, source: format!("{}/{name}", storage.url()), path }
    }

    fn command(&self, more: &[&str]) -> Command {
        let local = self.path.to_str().expect("a path of a test is UTF-8");
        let arguments = ["replicate", self.source.as_str(), "--local", local, "--json"];
        self.walrust.command([&arguments[..], more].concat())
    }

    /// Follows until it is stopped.
    fn follow(&self) -> Daemon {
        Daemon::start(self.command(&["--interval", "50ms"]))
    }

    /// Catches up with the newest state.
    fn catch_up(&self) -> Outcome {
        Daemon::start(self.command(&["--once"])).wait()
    }

    /// Catches up, which must succeed, and returns what happened: event and TXID of each line.
    #[track_caller]
    fn events(&self) -> Vec<(String, u64)> {
        events(&self.catch_up().succeeded())
    }

    /// The TXID that the replica is recorded to be in; 0 before it was made.
    fn txid(&self) -> u64 {
        let Ok(state) = fs::read(self.state_directory().join("replica.json")) else { return 0 };
        let state: Value = serde_json::from_slice(&state).expect("it is replaced as a whole");
        let txid = state["txid"].as_str().expect("a TXID");
        u64::from_str_radix(txid, 16).expect("16 hex digits")
    }

    fn state_directory(&self) -> PathBuf {
        self.walrust.file(".replica.db-walrust-replica")
    }

    /// Waits until the replica is in a state, or a later one.
    #[track_caller]
    fn wait_for_txid(&self, follower: &mut Daemon, txid: u64) {
        follower.wait_until(&format!("TXID {txid} in the replica"), |_| {
            // The state is there first.
            self.txid() >= txid && self.path.exists()
        });
    }

    /// A reader in another process, which waits for no lock. With the bundled library it opens
    /// the replica read-only; the one of the system may copy the WAL when it closes last.
    fn reader(&self, library: SqliteLibrary) -> SqlProcess {
        let read_only = format!("file:{}?mode=ro", self.path.display());
        let path = match library {
            SqliteLibrary::Bundled => PathBuf::from(read_only),
            SqliteLibrary::System => self.path.clone(),
        };
        let mut reader = SqlProcess::open(library, &path);
        reader.run("PRAGMA busy_timeout = 0");
        reader.run("PRAGMA query_only = 1");
        reader
    }

    /// A reader that starts quickly and, if it closes last, leaves one file.
    fn writable_reader(&self) -> SqlProcess {
        let mut reader = SqlProcess::open(SqliteLibrary::Bundled, &self.path);
        reader.run("PRAGMA query_only = 1");
        reader
    }

    /// What would be a reader's file if nobody had it open.
    fn bytes(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let wal = fs::read(sidecar(&self.path, "-wal")).ok();
        (fs::read(&self.path).expect("the replica"), wal)
    }
}

/// Event and TXID of each line that was printed.
fn events(outcome: &Outcome) -> Vec<(String, u64)> {
    let event = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("each line is a JSON document");
        let text = |key: &str| line[key].as_str().expect("text").to_owned();
        assert!(line["lag_seconds"].as_f64().expect("a number") >= 0.0, "{line}");
        (text("event"), u64::from_str_radix(&text("txid"), 16).expect("16 hex digits"))
    };
    outcome.stdout.lines().map(event).collect()
}

/// Removes from storage what is newer than a TXID, and brings a new replica to that.
fn replica_at(history: &SmallHistory, txid: u64) -> Replica {
    for key in history.keys() {
        let file =
            key.rsplit('/').next().and_then(|file| file.parse::<walrust_ltx::FileName>().ok());
        if file.is_none_or(|file| file.max.get() > txid) {
            history.storage.delete(&key);
        }
    }
    let replica = Replica::of(&history.storage, NAME);
    assert_eq!(replica.events(), [("created".to_owned(), txid)]);
    history.repair();
    replica
}

/// The rows of a small history, as a reader sees them.
fn rows(path: &Path) -> Vec<Vec<String>> {
    let mut reader = SqlProcess::open(SqliteLibrary::System, path);
    assert_eq!(reader.run("PRAGMA integrity_check"), [["ok"]]);
    reader.run("SELECT id, x FROM t ORDER BY id")
}
