//! What the application does to the database, as SQL.

use std::cell::RefCell;
use std::path::PathBuf;

use walrust_testkit::{Application, sidecar};

use crate::image::{Files, Image};
use crate::step::{Mode, Setup, Write};

/// The connection that writes.
const WRITER: u32 = 0;
/// The connection that reads.
const READER: u32 = 1;
/// The connection that runs checkpoints.
const CHECKPOINTER: u32 = 2;

thread_local! {
    /// Processes that no sequence uses at the moment.
    static IDLE: RefCell<Vec<Application>> = const { RefCell::new(Vec::new()) };
}

/// The application beside the replicator, and whoever looks at the files.
#[derive(Debug)]
pub(crate) struct User {
    application: Application,
    observer: Application,
    database: PathBuf,
    open: [bool; 3],
    on_open: String,
    /// Makes each state a new one.
    writes: u32,
}

impl User {
    /// Creates the database.
    pub(crate) fn new(database: PathBuf, setup: &Setup) -> Self {
        let idle = || IDLE.with_borrow_mut(Vec::pop).unwrap_or_default();
        let on_open = format!(
            "PRAGMA busy_timeout = 0; PRAGMA synchronous = OFF; PRAGMA cache_size = {}; PRAGMA wal_autocheckpoint = {}",
            setup.cache, setup.autocheckpoint
        );
        let (application, observer) = (idle(), idle());
        let mut user =
            Self { application, observer, database, open: [false; 3], on_open, writes: 0 };
        let created = user.application.run(
            WRITER,
            &user.database,
            &format!(
                "PRAGMA page_size = {}; PRAGMA auto_vacuum = {}; PRAGMA journal_mode = WAL; {}; \
                 CREATE TABLE counter (n); INSERT INTO counter VALUES (1); \
                 CREATE TABLE a (id INTEGER PRIMARY KEY, text TEXT, filler TEXT); \
                 CREATE INDEX a_by_text ON a (text); CREATE TABLE blobs (n, blob)",
                setup.page_size, setup.auto_vacuum, user.on_open
            ),
        );
        created.expect("a new database");
        user.open[WRITER as usize] = true;
        user
    }

    fn run(&mut self, slot: u32, sql: &str) -> Result<(), String> {
        if !std::mem::replace(&mut self.open[slot as usize], true) {
            self.application.run(slot, &self.database, &self.on_open)?;
        }
        self.application.run(slot, &self.database, sql)
    }

    fn must_run(&mut self, slot: u32, sql: &str) {
        self.run(slot, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Writes in the open transaction, or in one of its own.
    pub(crate) fn write(&mut self, write: Write, in_transaction: bool) {
        self.writes += 1;
        let number = self.writes;
        let change = match write {
            Write::Insert { rows } => format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
                 INSERT INTO a (text, filler) \
                 SELECT 'row ' || i || ' of {number}', printf('%0200d', {number}000 + i) FROM n"
            ),
            Write::Update { modulus } => {
                format!("UPDATE a SET text = 'updated by {number}' WHERE id % {modulus} = 0")
            }
            Write::Delete { modulus } => format!("DELETE FROM a WHERE id % {modulus} = 0"),
            Write::Blob { bytes } => format!(
                "REPLACE INTO blobs (rowid, n, blob) VALUES ({number} % 3, {number}, zeroblob({bytes}))"
            ),
            Write::Churn { bytes } => format!(
                "REPLACE INTO blobs (rowid, blob) VALUES (9, zeroblob({bytes})); \
                 DELETE FROM blobs WHERE rowid = 9"
            ),
        };
        let counted = format!("{change}; {}", count(&number.to_string()));
        match in_transaction {
            true => self.must_run(WRITER, &counted),
            false => self.must_run(WRITER, &format!("BEGIN; {counted}; COMMIT")),
        }
    }

    pub(crate) fn begin(&mut self) {
        self.must_run(WRITER, "BEGIN");
    }

    pub(crate) fn commit(&mut self) {
        self.must_run(WRITER, "COMMIT");
    }

    pub(crate) fn roll_back(&mut self) {
        self.must_run(WRITER, "ROLLBACK");
    }

    pub(crate) fn vacuum(&mut self) {
        self.must_run(WRITER, "VACUUM");
    }

    pub(crate) fn incremental_vacuum(&mut self) {
        self.must_run(WRITER, "PRAGMA incremental_vacuum(5)");
    }

    pub(crate) fn begin_read(&mut self) {
        self.must_run(READER, "BEGIN; SELECT count(*) FROM a");
    }

    pub(crate) fn end_read(&mut self) {
        self.must_run(READER, "ROLLBACK");
    }

    /// That locks of others stand in the way is no failure.
    pub(crate) fn checkpoint(&mut self, mode: Mode) {
        let _ = self.run(CHECKPOINTER, &format!("PRAGMA wal_checkpoint({mode:?})"));
    }

    pub(crate) fn close(&mut self) {
        self.application.close();
        self.open = [false; 3];
    }

    pub(crate) fn kill(&mut self) {
        self.application.kill();
        self.open = [false; 3];
    }

    /// Begins to write while somebody else is at work.
    pub(crate) fn begin_race(&mut self, transactions: u8) {
        self.writes += 1;
        let number = self.writes;
        // Whoever races waits for the other.
        self.must_run(WRITER, "PRAGMA busy_timeout = 10000");
        let sql = format!(
            "BEGIN IMMEDIATE; {}; \
             REPLACE INTO blobs (rowid, n, blob) VALUES ({{i}}, {number}, zeroblob(2000 * {{i}})); \
             COMMIT; PRAGMA wal_checkpoint(PASSIVE)",
            count(&format!("{number}000 + {{i}}"))
        );
        self.application.begin_race(WRITER, &self.database, transactions, &sql);
    }

    /// The states that the race led through.
    pub(crate) fn end_race(&mut self, page_size: u32) -> Vec<Image> {
        let states = self.application.end_race();
        self.must_run(WRITER, "PRAGMA busy_timeout = 0");
        states.into_iter().map(|bytes| Image::new(bytes, page_size)).collect()
    }

    /// The files of the database as they are now.
    pub(crate) fn look(&mut self) -> Files {
        let database = self.observer.read(&self.database);
        Files { database, wal: self.observer.read(&sidecar(&self.database, "-wal")) }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.close();
        let processes = [&mut self.application, &mut self.observer].map(std::mem::take);
        IDLE.with_borrow_mut(|idle| idle.extend(processes));
    }
}

/// Counts a transaction with a number that looks like none of the others. Rolling checksums are
/// sums of checksums that are linear: of a database in which the same bytes of two pages change by
/// the same difference they remain what they were.
fn count(number: &str) -> String {
    format!("UPDATE counter SET n = ({number}) * 2654435761 % 4294967296")
}
