//! What the running daemon costs: lag after a quiet spell, and memory with one idle database.
//!
//! `cargo bench --bench daemon` measures against a directory; with `WALRUST_TEST_S3_ENDPOINT` and
//! the two keys in the environment (`python3 tests/servers.py -- cargo bench --bench daemon`) also
//! against that S3 server. Times stand beside a bare PUT of the same size to the same store in the
//! same run, so that a slow machine or server shows in both.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusqlite::Connection;
use walrust::{ObjectStore, StorageUrl};
use walrust_storage::{Condition, Metadata};
use walrust_testkit::S3Server;

mod support;

use support::{Daemon, create_bucket, options};

/// Commits that are measured.
const COMMITS: usize = 40;
/// A quiet spell: longer than `wal_sync_interval`.
const QUIET: Duration = Duration::from_millis(1200);
/// How long anything may take before the measurement has failed.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime for the measurement");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = format!("file://{}/bucket", directory.path().display());
    runtime.block_on(measure("directory", &url, None));
    if std::env::var_os("WALRUST_TEST_S3_ENDPOINT").is_none() {
        println!("S3: not measured, WALRUST_TEST_S3_ENDPOINT is not set");
        return;
    }
    let server = S3Server::from_env();
    let bucket = server.unique_bucket("bench");
    runtime.block_on(create_bucket(&server, &bucket));
    runtime.block_on(measure("S3", &format!("s3://{bucket}/lag"), Some(&server)));
}

async fn measure(what: &str, url: &str, server: Option<&S3Server>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = directory.path().join("app.db");
    let application = application(&database);
    let path = database.display().to_string();
    let mut arguments = vec![path.as_str(), "-b", url];
    arguments.extend(server.iter().flat_map(|server| ["--endpoint", server.endpoint()]));
    let daemon = Daemon::start(&arguments, server);
    let url: StorageUrl = url.parse().expect("the URL is valid");
    let store = walrust_storage::open(&url, &options(server)).await.expect("the store opens");
    wait_for_objects(&store, 1).await;
    tokio::time::sleep(QUIET * 3).await;
    let idle = daemon.resident_kib();

    let mut lags = Vec::with_capacity(COMMITS);
    let mut puts = Vec::with_capacity(COMMITS);
    let mut objects = newest(&store).await.0;
    for number in 0..COMMITS {
        tokio::time::sleep(QUIET).await;
        application.execute("INSERT INTO t (v) VALUES (randomblob(200))", []).expect("a commit");
        let committed = Instant::now();
        objects += 1;
        let size = wait_for_objects(&store, objects).await;
        lags.push(committed.elapsed());
        let body = Bytes::from(vec![7; usize::try_from(size).expect("a small object")]);
        let began = Instant::now();
        let key = format!("reference/{number}");
        let put = store.put(&key, body, &Metadata::new(), &Condition::IfAbsent).await;
        put.expect("a reference object is stored");
        puts.push(began.elapsed());
    }
    let after = daemon.resident_kib();
    let (lag, put) = (Percentiles::of(lags), Percentiles::of(puts));
    println!("{what}: lag of a commit after a quiet spell {lag}");
    println!("{what}: bare PUT of the same size          {put}");
    println!("{what}: ratio of the medians               {:.1}", lag.median / put.median);
    println!("{what}: RSS idle {:.1} MB, after {COMMITS} syncs {:.1} MB", mb(idle), mb(after));
}

fn application(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("the database opens");
    let schema = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
                  CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB);";
    connection.execute_batch(schema).expect("the schema is created");
    connection
}

/// The number of LTX files of the database, and the size of the newest.
async fn newest(store: &Arc<dyn ObjectStore>) -> (usize, u64) {
    let listing = store.list("app/", None).await.expect("the store can be listed");
    let files: Vec<_> = listing.iter().filter(|entry| entry.key.ends_with(".ltx")).collect();
    (files.len(), files.last().map_or(0, |entry| entry.size))
}

async fn wait_for_objects(store: &Arc<dyn ObjectStore>, wanted: usize) -> u64 {
    let began = Instant::now();
    loop {
        let (found, size) = newest(store).await;
        if found >= wanted {
            return size;
        }
        assert!(began.elapsed() < PATIENCE, "the daemon did not ship in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

struct Percentiles {
    median: f64,
    text: String,
}

impl Percentiles {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1000.0;
        let mut text = String::new();
        write!(text, "median {:7.1} ms, p90 {:7.1} ms, max {:7.1} ms", at(50), at(90), at(100))
            .expect("a string takes any text");
        Self { median: at(50), text }
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

fn mb(kib: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a resident set is far below 2^52 KiB")]
    let kib = kib as f64;
    kib / 1024.0
}
