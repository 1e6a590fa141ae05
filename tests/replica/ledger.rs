//! A database whose every state tells whether it is one: tables that must agree, and a number that
//! only grows.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};
use tempfile::TempDir;
use walrust_testkit::{Prng, SqlProcess, connect};

/// The application that writes it.
#[derive(Debug)]
pub(super) struct Ledger {
    // Fields drop in order: SQLite must close its files before the directory goes.
    connection: Connection,
    path: PathBuf,
    _directory: TempDir,
    prng: Prng,
    number: i64,
}

/// One row: the number in each table, then counts and sums that are equal in pairs.
const LOOK: &str = "SELECT (SELECT number FROM counter), (SELECT number FROM totals), \
                    (SELECT entries FROM totals), (SELECT count(*) FROM entries NOT INDEXED), \
                    (SELECT count(*) FROM entries INDEXED BY by_number WHERE number > 0), \
                    (SELECT bytes FROM totals), \
                    (SELECT ifnull(sum(length(body)), 0) FROM entries)";

impl Ledger {
    pub(super) fn new(page_size: u32, pragmas: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("app.db");
        let connection = Connection::open(&path).expect("a new database");
        connection.execute_batch(pragmas).expect("settings of a new database");
        drop(connection);
        let connection = connect(&path, page_size);
        connection
            .execute_batch(
                "CREATE TABLE counter (number INTEGER NOT NULL);
                 CREATE TABLE totals (number INTEGER, entries INTEGER, bytes INTEGER);
                 CREATE TABLE entries (id INTEGER PRIMARY KEY, number INTEGER, body BLOB);
                 CREATE INDEX by_number ON entries (number, body);
                 INSERT INTO counter VALUES (0);
                 INSERT INTO totals VALUES (0, 0, 0);",
            )
            .expect("the schema of a new database");
        Self { connection, path, _directory: directory, prng: Prng::new(7), number: 0 }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the last commit.
    pub(super) fn number(&self) -> i64 {
        self.number
    }

    /// Commits once: inserts, at times deletes most of it, at times makes the file smaller.
    pub(super) fn commit(&mut self) {
        self.try_commit().expect("nobody else writes");
        if self.number % 40 == 0 {
            self.connection.execute_batch("VACUUM").expect("nobody else writes");
        }
    }

    fn try_commit(&mut self) -> rusqlite::Result<()> {
        self.number += 1;
        let transaction = self.connection.transaction()?;
        transaction.execute("UPDATE counter SET number = ?1", [self.number])?;
        for _ in 0..self.prng.between(1, 6) {
            let length = self.prng.between(1, 3_000) as usize;
            let body = self.prng.bytes(length);
            transaction.execute(
                "INSERT INTO entries (number, body) VALUES (?1, ?2)",
                params![self.number, body],
            )?;
        }
        if self.prng.chance(10) {
            transaction.execute("DELETE FROM entries WHERE id % 5 > 0", [])?;
        }
        transaction.execute(
            "UPDATE totals SET number = ?1, entries = (SELECT count(*) FROM entries),
                 bytes = (SELECT ifnull(sum(length(body)), 0) FROM entries)",
            [self.number],
        )?;
        transaction.commit()
    }
}

/// Looks at a copy of the ledger and returns the number of its state.
#[track_caller]
pub(super) fn look(reader: &mut SqlProcess) -> i64 {
    let [counter, number, entries, counted, indexed, bytes, summed] = reader.numbers(LOOK);
    let state = (counter, entries, entries, bytes);
    assert_eq!((number, counted, indexed, summed), state, "a state that never was");
    counter
}

/// Asserts that SQLite finds no fault in what a reader sees.
#[track_caller]
pub(super) fn check(reader: &mut SqlProcess) {
    assert_eq!(reader.run("PRAGMA integrity_check"), [["ok"]]);
}
