//! A database in WAL mode in a directory of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tempfile::TempDir;

use crate::Workload;

/// How long an application waits for locks.
const PATIENCE: Duration = Duration::from_secs(30);

/// A database that the test writes to, open in this process; its directory goes with it.
#[derive(Debug)]
pub struct TestDatabase {
    // Fields drop in order: SQLite must close its files before the directory goes.
    connection: Connection,
    path: PathBuf,
    directory: TempDir,
}

impl TestDatabase {
    /// A new database with the schema of [`Workload`].
    ///
    /// # Panics
    /// If SQLite cannot create it.
    #[must_use]
    pub fn new(page_size: u32) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("app.db");
        let connection = connect(&path, page_size);
        Workload::create_schema(&connection).expect("the schema of a new database");
        Self { connection, path, directory }
    }

    /// A new database that has taken `steps` steps of the workload with that seed.
    ///
    /// # Panics
    /// If SQLite fails.
    #[must_use]
    pub fn with_history(page_size: u32, seed: u64, steps: u32) -> Self {
        let mut database = Self::new(page_size);
        let mut workload = Workload::new(seed);
        for _ in 0..steps {
            database.step(&mut workload);
        }
        database
    }

    /// A copy of the database as it is now, in a directory of its own.
    ///
    /// # Panics
    /// If the files cannot be copied.
    #[must_use]
    pub fn copied(&self) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("app.db");
        std::fs::write(&path, self.image()).expect("the directory is writable");
        let connection = connect(&path, 4096);
        Self { connection, path, directory }
    }

    /// Takes the next step of a workload.
    ///
    /// # Panics
    /// If SQLite fails.
    pub fn step(&mut self, workload: &mut Workload) {
        workload
            .step(&mut self.connection)
            .unwrap_or_else(|error| panic!("{workload:?} on {}: {error}", self.path.display()));
    }

    /// Runs SQL on the connection of this database.
    ///
    /// # Panics
    /// If SQLite refuses it.
    pub fn run(&self, sql: &str) {
        self.connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Path of the database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that holds the database and nothing else, for further files of the test.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The connection of this process.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// The database as it would be after a full checkpoint; see [`image`](crate::image).
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        crate::image(&self.path)
    }

    /// Closes the connection of this process and keeps the files, as an application that ends.
    #[must_use]
    pub fn close(self) -> (TempDir, PathBuf) {
        (self.directory, self.path)
    }
}

/// Opens a database in WAL mode as an application would; a new one gets the page size.
///
/// # Panics
/// If SQLite cannot open it.
#[must_use]
pub fn connect(path: &Path, page_size: u32) -> Connection {
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(PATIENCE)?;
        // The tests kill processes, not machines: nothing needs to reach the disk.
        connection.execute_batch(&format!(
            "PRAGMA page_size = {page_size}; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;"
        ))?;
        Ok(connection)
    };
    let begun = Instant::now();
    loop {
        match open() {
            Ok(connection) => return connection,
            // SQLite itself does not wait where others bring a new database into WAL mode as well.
            Err(error) if is_busy(&error) && begun.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("cannot open {}: {error}", path.display()),
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// The path of a `-wal` or `-shm` file: SQLite appends to the whole file name.
#[must_use]
pub fn sidecar(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
