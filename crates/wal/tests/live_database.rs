//! A database in WAL mode that SQLite has open and that nobody checkpoints unasked.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tempfile::TempDir;
use walrust_wal::{WalIndex, WalIndexError};

use crate::snapshot::Snapshot;

/// Every page size that SQLite knows.
pub(crate) const PAGE_SIZES: [u32; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

pub(crate) struct LiveDatabase {
    pub(crate) connection: Connection,
    path: PathBuf,
    _directory: TempDir,
}

impl LiveDatabase {
    /// An empty database with the given page size.
    pub(crate) fn new(page_size: u32) -> Self {
        Self::with_pragmas(page_size, "")
    }

    /// An empty database; `pragmas` run before it gets its first page.
    pub(crate) fn with_pragmas(page_size: u32, pragmas: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("live.db");
        let connection = connect(&path);
        connection
            .execute_batch(&format!(
                "PRAGMA page_size = {page_size}; {pragmas}; PRAGMA journal_mode = WAL;"
            ))
            .expect("a new database");
        Self { connection, path, _directory: directory }
    }

    /// Continues a database from the files of a snapshot.
    pub(crate) fn from_snapshot(snapshot: &Snapshot) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("live.db");
        snapshot.write_to(&path);
        Self { connection: connect(&path), path, _directory: directory }
    }

    /// A database with two tables, an index and some rows, all of it in the WAL.
    pub(crate) fn with_tables(page_size: u32) -> Self {
        let database = Self::new(page_size);
        database.run(
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, body BLOB);
             CREATE TABLE tags (name TEXT PRIMARY KEY, note INTEGER) WITHOUT ROWID;
             CREATE INDEX tags_by_note ON tags (note);",
        );
        database.insert(20, 300);
        database
    }

    /// Another connection to the same database.
    pub(crate) fn connect(&self) -> Connection {
        connect(&self.path)
    }

    /// Runs SQL that must succeed.
    pub(crate) fn run(&self, sql: &str) {
        self.connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Inserts rows into both tables: one transaction, or part of the open one.
    pub(crate) fn insert(&self, rows: u32, bytes: u32) {
        self.run(&format!(
            "SAVEPOINT rows;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO notes (body) SELECT randomblob({bytes}) FROM n;
             INSERT OR IGNORE INTO tags SELECT 'tag ' || id, id FROM notes WHERE id % 3 = 0;
             RELEASE rows;"
        ));
    }

    /// Runs a checkpoint and returns SQLite's answer: busy, frames in the WAL, frames backfilled.
    pub(crate) fn checkpoint(&self, mode: &str) -> (u32, u32, u32) {
        self.connection
            .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .expect("a checkpoint")
    }

    /// The files as they are now; nobody may write meanwhile.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::read(&self.path)
    }

    /// The bytes of the `-shm` file.
    pub(crate) fn shm(&self) -> Vec<u8> {
        fs::read(sidecar(&self.path, "-shm")).expect("the wal-index")
    }

    /// The wal-index as it is now.
    pub(crate) fn wal_index(&self) -> Result<WalIndex, WalIndexError> {
        WalIndex::parse(&self.shm())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn connect(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("a connection");
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .expect("SQLite knows the option since 3.16");
    connection
        .execute_batch("PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = OFF;")
        .expect("settings of a connection");
    connection
}

/// The path of a sidecar: SQLite appends to the whole file name.
pub(crate) fn sidecar(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
