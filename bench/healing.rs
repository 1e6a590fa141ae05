//! What it costs to heal a large database of which little changed while nobody watched.
//!
//! `cargo bench --bench healing` builds a database of 1 GB, stores it in a directory, stops the
//! daemon, changes 100 pages and truncates the WAL, and starts the daemon again. The time until the
//! repair is in storage stands beside that of reading the file once, in the same run.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;

/// Rows of the database; each takes a page.
const ROWS: u32 = 250_000;
/// Rows that change while the daemon is away.
const CHANGED: u32 = 100;
/// How long anything may take before the measurement has failed.
const PATIENCE: Duration = Duration::from_secs(120);
const ROUNDS: u32 = 3;

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = directory.path().join("app.db");
    let bucket = directory.path().join("bucket");
    create(&database);
    let mut files = 1;
    start_and_wait(&database, &bucket, files).0.stop();
    let size = database.metadata().expect("the database is there").len();
    println!("database of {:.2} GB, {CHANGED} rows changed while away", size as f64 / 1e9);
    for round in 0..ROUNDS {
        change(&database, round);
        let reading = read_once(&database);
        files += 1;
        let (daemon, healing, uploaded) = start_and_wait(&database, &bucket, files);
        daemon.stop();
        println!(
            "reading once {:.0} ms, healing {:.0} ms, ratio {:.1}; uploaded {:.2} MB",
            reading.as_secs_f64() * 1e3,
            healing.as_secs_f64() * 1e3,
            healing.as_secs_f64() / reading.as_secs_f64(),
            uploaded as f64 / 1e6,
        );
    }
}

fn create(path: &Path) {
    let connection = Connection::open(path).expect("the database opens");
    let rows = format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
         CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO t (v) SELECT randomblob(4000) FROM n;
         PRAGMA wal_checkpoint(TRUNCATE);"
    );
    connection.execute_batch(&rows).expect("the rows are written");
}

/// Changes rows all over the file and leaves nothing of it in the WAL.
fn change(path: &Path, round: u32) {
    let connection = Connection::open(path).expect("the database opens");
    let step = ROWS / CHANGED;
    let update = format!(
        "UPDATE t SET v = randomblob(4000) WHERE id % {step} = {round};
         PRAGMA wal_checkpoint(TRUNCATE);"
    );
    connection.execute_batch(&update).expect("the rows are changed");
}

fn read_once(path: &Path) -> Duration {
    let began = Instant::now();
    let mut file = File::open(path).expect("the database is there");
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer).expect("the database can be read") > 0 {}
    began.elapsed()
}

/// Starts the daemon and waits until storage has so many files; the time that took, and the size of
/// the newest.
fn start_and_wait(database: &Path, bucket: &Path, files: usize) -> (Daemon, Duration, u64) {
    let began = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_walrust"));
    let url = format!("file://{}", bucket.display());
    command.arg("watch").arg(database).args(["-b", &url, "--log-level", "warn"]);
    let daemon = Daemon(command.stdout(Stdio::null()).spawn().expect("the daemon starts"));
    loop {
        let stored = stored(&bucket.join("app"));
        if stored.len() >= files {
            return (daemon, began.elapsed(), stored.last().map_or(0, |(_, size)| *size));
        }
        assert!(began.elapsed() < PATIENCE, "the daemon did not ship in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The LTX files in storage with their sizes, in the order of their names.
fn stored(directory: &Path) -> Vec<(String, u64)> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let describe = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().ok()?;
        name.ends_with(".ltx").then_some((name, entry.metadata().ok()?.len()))
    };
    let mut files: Vec<_> = entries.filter_map(describe).collect();
    files.sort();
    files
}

struct Daemon(Child);

impl Daemon {
    /// Ends the daemon, which saves its position first.
    fn stop(mut self) {
        let id = i32::try_from(self.0.id()).expect("process identifiers are small numbers");
        kill(Pid::from_raw(id), Signal::SIGTERM).expect("the daemon runs");
        assert!(self.0.wait().expect("the daemon is a child").success(), "the daemon failed");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A measurement that failed must not leave a daemon behind.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
