//! A database, who writes to it, and who comes by.
//!
//! Invariant: writers are processes of their own, so killing one is what a crash is; what this
//! process does with a database it does through SQLite, whose locks a bare descriptor would drop.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use walrust_testkit::{WriterOptions, WriterProcess};

use crate::fault::Fault;
use crate::oracle::{self, Claim};
use crate::schedule::DatabasePlan;

/// A database with its writers.
pub(crate) struct Database {
    /// Its name in the bucket.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    page_size: u32,
    /// Seed and pace go with the writer that stays.
    writer: Option<(u64, u32, WriterProcess)>,
    guests: Vec<(u64, WriterProcess)>,
    /// Commits that SQLite has confirmed to writers that have ended, by their seeds.
    pub(crate) acknowledged: BTreeMap<u64, u64>,
    /// What was restored from its backup.
    pub(crate) claims: Vec<Claim>,
}

impl Database {
    /// A new database in a directory; its writer has begun.
    pub(crate) fn new(directory: &Path, index: usize, plan: &DatabasePlan) -> Self {
        let name = format!("db{index}");
        let path = directory.join(format!("{name}.db"));
        let DatabasePlan { page_size, auto_vacuum, .. } = plan;
        let create = || -> rusqlite::Result<()> {
            let connection = Connection::open(&path)?;
            connection.execute_batch(&format!(
                "PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {auto_vacuum};
                 PRAGMA journal_mode = WAL;"
            ))?;
            oracle::create(&connection)
        };
        create().expect("a new database");
        let mut database = Self {
            name,
            path,
            page_size: *page_size,
            writer: None,
            guests: Vec::new(),
            acknowledged: BTreeMap::new(),
            claims: Vec::new(),
        };
        database.writer =
            plan.writer.map(|(seed, pace)| (seed, pace, database.spawn(seed, None, pace)));
        database
    }

    fn spawn(&self, seed: u64, commits: Option<u64>, pace: u32) -> WriterProcess {
        let options = WriterOptions {
            seed,
            commits,
            commits_per_second: Some(pace),
            page_size: self.page_size,
            vacuums: true,
            checkpoints: true,
            ledger: true,
        };
        WriterProcess::spawn(&self.path, &options)
    }

    /// Somebody opens it, writes and closes.
    pub(crate) fn visit(&mut self, seed: u64, commits: u64) {
        self.guests.push((seed, self.spawn(seed, Some(commits), 1000)));
    }

    /// Kills the writer that stays, and starts another; `false` if there is none.
    pub(crate) fn replace_writer(&mut self, new_seed: u64) -> bool {
        let Some((seed, pace, writer)) = self.writer.take() else { return false };
        self.acknowledged.insert(seed, writer.kill());
        self.writer = Some((new_seed, pace, self.spawn(new_seed, None, pace)));
        true
    }

    /// Waits until nobody writes any more.
    pub(crate) fn stop_writers(&mut self) {
        if let Some((seed, _, writer)) = self.writer.take() {
            self.acknowledged.insert(seed, writer.stop());
        }
        for (seed, guest) in self.guests.drain(..) {
            self.acknowledged.insert(seed, guest.finish());
        }
    }

    /// Takes away the local state of a daemon that is not there.
    pub(crate) fn forget(&self) {
        let state = self.path.with_file_name(format!(".{}.db-walrust", self.name));
        // It may not have come so far as to have one.
        if state.exists() {
            fs::remove_dir_all(&state).expect("nobody uses the local state");
        }
    }
}

/// A checkpoint by somebody who opens, checkpoints and closes. How far it gets is no concern of his.
pub(crate) fn checkpoint(database: &Path, mode: Fault) {
    let mode = match mode {
        Fault::PassiveCheckpoint => "PASSIVE",
        Fault::FullCheckpoint => "FULL",
        Fault::RestartCheckpoint => "RESTART",
        Fault::TruncateCheckpoint => "TRUNCATE",
        other => panic!("{other:?} is no checkpoint"),
    };
    let connection = Connection::open(database).expect("the database is there");
    connection.busy_timeout(Duration::from_millis(50)).expect("SQLite takes any timeout");
    let result = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()));
    assert!(result.is_ok() || is_busy(&result), "a foreign checkpoint failed: {result:?}");
}

/// Somebody who reads for so long.
pub(crate) fn stay_reading(database: &Path, length: Duration) {
    let connection = Connection::open(database).expect("the database is there");
    connection.busy_timeout(Duration::from_secs(10)).expect("SQLite takes any timeout");
    let read = connection.execute_batch("BEGIN; SELECT count(*) FROM ledger;");
    assert!(read.is_ok() || is_busy(&read), "a reader failed: {read:?}");
    thread::sleep(length);
}

fn is_busy<T>(result: &rusqlite::Result<T>) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    let code = result.as_ref().err().and_then(rusqlite::Error::sqlite_error_code);
    matches!(code, Some(DatabaseBusy | DatabaseLocked))
}
