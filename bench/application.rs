//! What the application notices of walrust: the latency of its writes, and locks in its way.
//!
//! `python3 tests/servers.py -- cargo bench --bench application` writes at 500 commits a second from
//! a process of its own, in turn alone, beside a process that only holds a read transaction, and with
//! the daemon (S3, default settings), and prints the percentiles side by side, as ratios. The reader
//! shows what any lock on the WAL costs: SQLite tries a checkpoint at each commit, and the WAL grows.
//! Then one long run with a writer that waits for
//! nobody counts how often it was locked out; it is long enough for a checkpoint that stops the
//! writers.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use walrust_testkit::S3Server;

mod support;

use support::{Daemon, create_bucket};

/// Commits a second.
const RATE: u32 = 500;
/// Commits of one measurement, and pairs of measurements.
const COMMITS: u32 = 4_000;
const PAIRS: usize = 5;
/// Commits of the writer that waits for nobody.
const IMPATIENT: u32 = 40_000;
const PATIENT: Duration = Duration::from_secs(5);

/// What runs beside the writer.
#[derive(Clone, Copy)]
enum Beside<'a> {
    Nothing,
    /// A process that holds a read transaction.
    Reader,
    /// The daemon, with a server and the URL of a bucket.
    Daemon(&'a S3Server, &'a str),
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, path] = &arguments[..]
        && role == "reader"
    {
        return read(Path::new(path));
    }
    if let [_, role, path, commits, timeout] = &arguments[..]
        && role == "writer"
    {
        let number = |text: &str| text.parse().expect("a number");
        return write(
            Path::new(path),
            number(commits),
            Duration::from_millis(number(timeout).into()),
        );
    }
    let server = S3Server::from_env();
    let bucket = server.unique_bucket("application");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime for the bucket");
    runtime.block_on(create_bucket(&server, &bucket));
    let (mut ratios, mut control) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let alone = measure(Beside::Nothing, COMMITS, PATIENT);
        let reader = measure(Beside::Reader, COMMITS, PATIENT);
        let url = format!("s3://{bucket}/{pair}");
        let daemon = measure(Beside::Daemon(&server, &url), COMMITS, PATIENT);
        println!("alone   {alone}\nreader  {reader}\ndaemon  {daemon}");
        ratios.push(daemon.p99 / alone.p99);
        control.push(reader.p99 / alone.p99);
    }
    for (who, mut ratios) in [("daemon", ratios), ("reader", control)] {
        ratios.sort_by(f64::total_cmp);
        let median = ratios[PAIRS / 2];
        println!("ratio of the p99, {who}, median of {PAIRS}: {median:.2} {ratios:.2?}");
    }
    let url = format!("s3://{bucket}/impatient");
    let impatient = measure(Beside::Daemon(&server, &url), IMPATIENT, Duration::ZERO);
    println!("without a busy timeout: {impatient}");
}

/// The latency of some writes.
struct Latency {
    p50: f64,
    p99: f64,
    max: f64,
    /// Writes that were refused with `SQLITE_BUSY`.
    busy: u32,
    commits: u32,
}

impl std::fmt::Display for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { p50, p99, max, busy, commits } = self;
        write!(
            f,
            "p50 {p50:.3} ms, p99 {p99:.3} ms, max {max:.1} ms, SQLITE_BUSY {busy} of {commits}"
        )
    }
}

/// Runs a writer on a new database.
fn measure(beside: Beside<'_>, commits: u32, timeout: Duration) -> Latency {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = directory.path().join("app.db");
    open(&database, PATIENT);
    let path = database.display().to_string();
    let this = std::env::current_exe().expect("the path of this benchmark");
    let mut daemon = None;
    let mut reader = None;
    match beside {
        Beside::Nothing => {}
        Beside::Reader => {
            let child = Command::new(&this).arg("reader").arg(&database).spawn();
            reader = Some(child.expect("the reader starts"));
        }
        Beside::Daemon(server, url) => {
            let arguments = [&path, "-b", url, "--endpoint", server.endpoint()];
            daemon = Some(Daemon::start(&arguments, Some(server)));
        }
    }
    // The daemon opens the database and stores its base.
    std::thread::sleep(Duration::from_secs(1));
    let writer = Command::new(&this)
        .arg("writer")
        .arg(&database)
        .args([commits.to_string(), timeout.as_millis().to_string()])
        .stderr(Stdio::inherit())
        .output()
        .expect("the writer starts");
    assert!(writer.status.success(), "the writer failed");
    if let Some(daemon) = &daemon {
        println!("RSS of the daemon after the writes: {} KiB", daemon.resident_kib());
    }
    drop(daemon);
    if let Some(mut reader) = reader {
        reader.kill().expect("the reader runs until it is killed");
        reader.wait().expect("the reader is a child of this process");
    }
    let text = String::from_utf8(writer.stdout).expect("numbers are text");
    let mut numbers = text.split_whitespace().map(|word| word.parse().expect("a number"));
    let busy: f64 = numbers.next().expect("the number of refused writes");
    let mut times: Vec<f64> = numbers.collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));
    Latency { p50, p99, max, busy: busy as u32, commits }
}

/// Holds a read transaction until it is killed.
fn read(path: &Path) {
    let connection = open(path, PATIENT);
    connection.execute_batch("BEGIN; SELECT count(*) FROM t;").expect("a transaction");
    loop {
        std::thread::park();
    }
}

fn open(path: &Path, timeout: Duration) -> Connection {
    let connection = Connection::open(path).expect("the database opens");
    connection.busy_timeout(timeout).expect("a setting");
    let schema = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
                  CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, k TEXT, v BLOB);
                  CREATE INDEX IF NOT EXISTS t_by_k ON t (k);";
    connection.execute_batch(schema).expect("the schema is created");
    connection
}

/// The writer: prints how often it was locked out, then the milliseconds of each commit.
fn write(path: &Path, commits: u32, timeout: Duration) {
    let connection = open(path, timeout);
    let mut insert = connection
        .prepare("INSERT INTO t (k, v) VALUES (hex(randomblob(8)), randomblob(200))")
        .expect("a statement");
    let begun = Instant::now();
    let (mut busy, mut times) = (0, Vec::new());
    for number in 0..commits {
        let due = Duration::from_secs_f64(f64::from(number) / f64::from(RATE));
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        let before = Instant::now();
        match insert.execute([]) {
            Ok(_) => {}
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => busy += 1,
            Err(error) => panic!("a write failed: {error}"),
        }
        times.push(before.elapsed().as_secs_f64() * 1e3);
    }
    println!("{busy}");
    for time in times {
        println!("{time:.4}");
    }
}
