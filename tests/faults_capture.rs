//! Faults that replicators of this kind have had while they captured commits. The number in the
//! name of a test is that of the fault.
//!
//! Each test brings the fault about with a real application: connections of this process, which is
//! not that of the daemon, or processes on the SQLite of the system, which is not the version that
//! is linked into walrust. What counts is the restored database, page for page.
//!
//! Invariant: nothing here opens a database or its `-shm` file except through SQLite. Closing such
//! a descriptor would drop the locks of the connections of this process.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tempfile::TempDir;
use walrust_testkit::{TestDatabase, assert_same_database, connect, image, sidecar};

use crate::daemon::Daemon;
use crate::storage::Storage;
use crate::walrust::{QUICK, Walrust};

mod checkpoints;
mod files;
mod layouts;
mod pages;
mod pin;
mod wal;
mod writers;

/// Flags with which walrust leaves the WAL to the application.
const NO_CHECKPOINTS: [&str; 6] =
    ["--min-checkpoint-pages", "0", "--checkpoint-interval", "0", "--wal-truncate-threshold", "0"];

/// One small commit of the application.
const COMMIT: &str = "INSERT INTO audit (account, change) VALUES (NULL, 1)";

/// The bytes of a frame of a database with pages of 4096 bytes.
const FRAME: u64 = 24 + 4096;

/// A database, a bucket, and a user who replicates the one into the other.
struct Scene {
    directory: TempDir,
    source: PathBuf,
    storage: Storage,
    walrust: Walrust,
}

impl Scene {
    /// A database with some history that nobody has open.
    fn new() -> Self {
        Self::of(TestDatabase::with_history(4096, 1, 20))
    }

    fn of(database: TestDatabase) -> Self {
        let (directory, source) = database.close();
        Self::at(directory, source)
    }

    fn at(directory: TempDir, source: PathBuf) -> Self {
        let storage = Storage::directory();
        let walrust = Walrust::on(&storage);
        Self { directory, source, storage, walrust }
    }

    /// A connection of the application that never checkpoints unasked.
    fn application(&self) -> Connection {
        let application = connect(&self.source, 4096);
        run(&application, "PRAGMA wal_autocheckpoint = 0");
        application
    }

    /// Replicates at the pace of the tests, with further flags; what was there is shipped then.
    fn replicate(&self, flags: &[&str]) -> Daemon {
        self.replicate_all(&[&self.source], &[&QUICK, flags].concat())
    }

    /// Replicates so slowly that after the first commit nothing is shipped until the end.
    fn replicate_slowly(&self, flags: &[&str]) -> Daemon {
        self.replicate_all(&[&self.source], &[&["--wal-sync-interval", "1h"], flags].concat())
    }

    fn replicate_all(&self, databases: &[&Path], flags: &[&str]) -> Daemon {
        let paths = databases.iter().map(|path| path.as_os_str());
        let mut daemon = self.walrust.watch_with(paths.chain(flags.iter().map(AsRef::as_ref)));
        daemon.wait_until("it replicates", |log| {
            let ready =
                |line: &str| line.contains("begins a new chain") || line.contains("continues");
            log.lines().filter(|line| ready(line)).count() >= databases.len()
        });
        self.storage.wait_for_manifest(&mut daemon, self.name());
        daemon
    }

    /// The name in the bucket.
    fn name(&self) -> &str {
        self.source.file_stem().and_then(|stem| stem.to_str()).expect("a name in UTF-8")
    }

    fn head(&self) -> u64 {
        self.storage.head(self.name())
    }

    #[track_caller]
    fn wait_for_head(&self, daemon: &mut Daemon, txid: u64) {
        self.storage.wait_for_txid(daemon, self.name(), txid);
    }

    fn wal_size(&self) -> u64 {
        fs::metadata(sidecar(&self.source, "-wal")).map_or(0, |wal| wal.len())
    }

    /// The salts of the WAL, which change when it begins anew. Locks are not held on the WAL.
    fn salts(&self) -> [u8; 8] {
        let mut header = [0; 32];
        fs::File::open(sidecar(&self.source, "-wal"))
            .and_then(|mut wal| wal.read_exact(&mut header))
            .map_or([0; 8], |()| header[16..24].try_into().expect("eight bytes"))
    }

    fn snapshots(&self) -> usize {
        let files = self.storage.ltx_files(self.name());
        files.iter().filter(|file| file.is_snapshot()).count()
    }

    #[track_caller]
    fn assert_restorable(&self) {
        let restored = self.walrust.restored(self.name(), &["--integrity-check", "full"]);
        assert_same_database(&self.source, &restored);
    }

    /// Asserts that an earlier state comes back as it was.
    #[track_caller]
    fn assert_state(&self, txid: u64, expected: &[u8]) {
        let restored = self.walrust.restored(self.name(), &["--txid", &txid.to_string()]);
        assert!(image(&restored) == expected, "TXID {txid} is another state");
    }
}

#[track_caller]
fn run(application: &Connection, sql: &str) {
    application.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Makes so many small commits.
#[track_caller]
fn commit(application: &Connection, count: u64) {
    for _ in 0..count {
        run(application, COMMIT);
    }
}

/// Adds so many documents of so many random bytes each, in one commit.
#[track_caller]
fn add_documents(application: &Connection, count: u64, bytes: u64) {
    run(application, &documents(count, bytes));
}

fn documents(count: u64, bytes: u64) -> String {
    format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO documents (body) SELECT randomblob({bytes}) FROM n"
    )
}

/// Runs a checkpoint that waits for nobody; whether nobody stood in its way.
#[track_caller]
fn checkpoint(application: &Connection, mode: &str) -> bool {
    application.busy_timeout(Duration::ZERO).expect("a connection");
    let pragma = format!("PRAGMA wal_checkpoint({mode})");
    let busy = application.query_row(&pragma, [], |row| row.get::<_, bool>(0));
    application.busy_timeout(Duration::from_secs(30)).expect("a connection");
    match busy {
        Ok(busy) => !busy,
        Err(error) if is_busy(&error) => false,
        Err(error) => panic!("{pragma}: {error}"),
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn query<T: rusqlite::types::FromSql>(application: &Connection, sql: &str) -> T {
    application
        .query_row(sql, [], |row| row.get(0))
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// How often the log tells of a gap in the history.
fn gaps(log: &str) -> usize {
    log.lines().filter(|line| line.contains("history gap healed")).count()
}

/// Asserts that the daemon has seen all commits one by one.
#[track_caller]
fn assert_no_gaps(log: &str) {
    assert_eq!(gaps(log), 0, "no commit needs to be found by comparing pages:\n{log}");
}

/// A script on the SQLite of the system, in a process of its own. It may use `connect`, `path`, and
/// `stopped`, which is set when it has to end. It does not outlive the value.
struct SystemSqlite {
    child: Child,
}

impl SystemSqlite {
    fn spawn(script: &str, database: &Path) -> Self {
        const PRELUDE: &str = "
import os, sqlite3, sys, threading, time
path = sys.argv[1]
stopped = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()
def connect(timeout=5):
    return sqlite3.connect(path, timeout=timeout, isolation_level=None)
";
        let child = Command::new("python3")
            .arg("-c")
            .arg(format!("{PRELUDE}{script}"))
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the tests need python3 with its sqlite3 module");
        Self { child }
    }

    /// Tells the script to stop, and returns what it printed.
    #[track_caller]
    fn stop(mut self) -> String {
        drop(self.child.stdin.take());
        self.printed()
    }

    /// Waits for a script that ends by itself, and returns what it printed.
    #[track_caller]
    fn finish(mut self) -> String {
        self.printed()
    }

    /// Waits for a line of the script.
    #[track_caller]
    fn wait_for_line(&mut self) -> String {
        let stdout = self.child.stdout.as_mut().expect("stdout is a pipe");
        let mut line = Vec::new();
        let mut byte = [0];
        while stdout.read(&mut byte).expect("the script prints") == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8(line).expect("the script prints UTF-8")
    }

    #[track_caller]
    fn printed(&mut self) -> String {
        let mut printed = String::new();
        let stdout = self.child.stdout.as_mut().expect("stdout is a pipe");
        stdout.read_to_string(&mut printed).expect("the script prints UTF-8");
        let status = self.child.wait().expect("the script is a child of this process");
        assert!(status.success(), "the script failed: {status}: {printed}");
        printed
    }
}

impl Drop for SystemSqlite {
    fn drop(&mut self) {
        // It may have ended already, which is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
