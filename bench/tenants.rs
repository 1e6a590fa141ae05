//! Many databases in one daemon: what idle ones cost, how late commits are, and an outage.
//!
//! ```text
//! python3 tests/servers.py -- cargo bench --bench tenants -- idle 1000
//! python3 tests/servers.py -- cargo bench --bench tenants -- lag 400 50
//! python3 tests/servers.py -- cargo bench --bench tenants -- outage 100 300
//! python3 tests/servers.py -- cargo bench --bench tenants -- reload 400
//! ```
//! `idle N`: seconds until all are in the bucket, then memory, processor time, requests and
//! descriptors of N databases that nobody writes to. `lag N RATE`: RATE commits a second spread over
//! N databases for a minute, and how long each took until storage had confirmed it. `outage N
//! SECONDS`: N databases are written to while storage is away for so long. `reload N`: ten of N
//! databases get other settings, and how long it takes until the daemon follows.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;
use walrust::control::{Client, Socket};
use walrust_testkit::S3Server;

mod recording_proxy;
mod support;

use recording_proxy::RecordingProxy;
use support::{Daemon, create_bucket};

/// How long an idle daemon is watched.
const IDLE: Duration = Duration::from_secs(60);
/// How long commits are measured.
const BUSY: Duration = Duration::from_secs(60);
/// How long anything may take before the measurement has failed.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let count = |word: &str| -> usize { word.parse().expect("a number") };
    let number = |word: &str| -> u32 { word.parse().expect("a number") };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime for the measurement");
    match &words[..] {
        ["idle", tenants] => runtime.block_on(idle(count(tenants))),
        ["lag", tenants, rate] => runtime.block_on(lag(count(tenants), number(rate))),
        ["outage", tenants, seconds] => {
            runtime.block_on(outage(count(tenants), number(seconds)));
        }
        ["reload", tenants] => runtime.block_on(reload(count(tenants))),
        [] => {
            runtime.block_on(idle(1000));
            runtime.block_on(lag(400, 50));
        }
        _ => panic!("idle N, lag N RATE, outage N SECONDS or reload N"),
    }
}

/// Databases, a proxy before the store, and a daemon.
struct Host {
    /// Goes before the files it looks after.
    daemon: Daemon,
    directory: tempfile::TempDir,
    databases: Vec<PathBuf>,
    /// The configuration without its databases.
    head: String,
    proxy: RecordingProxy,
    begun: Instant,
}

impl Host {
    async fn start(tenants: usize) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let template = directory.path().join("template");
        let schema = "PRAGMA journal_mode = WAL;
                      CREATE TABLE t (id INTEGER PRIMARY KEY, k TEXT, v BLOB);
                      CREATE INDEX t_by_k ON t (k);";
        let connection = Connection::open(&template).expect("a database");
        connection.execute_batch(schema).expect("the schema is created");
        connection.close().expect("nobody else has it open");
        let path = |number| directory.path().join(format!("t{number:05}.db"));
        let databases: Vec<PathBuf> = (0..tenants).map(path).collect();
        for path in &databases {
            fs::copy(&template, path).expect("the template is copied");
        }
        let server = S3Server::from_env();
        let bucket = server.unique_bucket("tenants");
        create_bucket(&server, &bucket).await;
        let proxy = RecordingProxy::start(server.endpoint()).await;
        let head =
            format!("[s3]\nbucket = \"s3://{bucket}/b\"\nendpoint = {:?}\n", proxy.endpoint());
        let configuration = directory.path().join("walrust.toml");
        fs::write(&configuration, configured(&head, &databases, 0)).expect("a new file");
        let configuration = configuration.display().to_string();
        let socket = directory.path().join("control.sock").display().to_string();
        let arguments = ["--config", &configuration, "--control-socket", &socket];
        let begun = Instant::now();
        let daemon = Daemon::start(&arguments, Some(&server));
        Self { directory, databases, head, proxy, daemon, begun }
    }

    /// Waits until every database has a file in the bucket.
    async fn wait_until_known(&self) {
        let mut known = 0;
        while known < self.databases.len() {
            assert!(self.begun.elapsed() < PATIENCE, "{known} databases are known to the bucket");
            tokio::time::sleep(Duration::from_millis(50)).await;
            let uploads = self.proxy.uploads();
            let names = uploads.iter().map(|upload| database_of(&upload.path));
            known = names.collect::<std::collections::HashSet<_>>().len();
        }
    }

    fn processor_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.daemon.id()));
        let stat = stat.expect("the daemon runs");
        let after_name = stat.rsplit(')').next().expect("the name is in parentheses");
        let ticks = after_name.split_whitespace().skip(11).take(2);
        let ticks: f64 = ticks.map(|it| it.parse::<f64>().expect("a number of ticks")).sum();
        // USER_HZ is 100 on every Linux of today.
        ticks / 100.0
    }

    fn descriptors(&self) -> usize {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.daemon.id()));
        entries.expect("the daemon runs").count()
    }

    fn resident_mb(&self) -> f64 {
        f64::from(u32::try_from(self.daemon.resident_kib()).expect("less than 4 TB")) / 1024.0
    }
}

fn database_of(path: &str) -> &str {
    path.rsplit('/').nth(1).unwrap_or_default()
}

async fn idle(tenants: usize) {
    let host = Host::start(tenants).await;
    host.wait_until_known().await;
    let started = host.begun.elapsed().as_secs_f64();
    // Manifests, the first checkpoints, whatever a start brings about.
    tokio::time::sleep(Duration::from_secs(90)).await;
    let (requests, processor) = (host.proxy.requests(), host.processor_seconds());
    tokio::time::sleep(IDLE).await;
    let requests = host.proxy.requests() - requests;
    let processor = (host.processor_seconds() - processor) / IDLE.as_secs_f64() * 100.0;
    println!(
        "{tenants} idle databases: known to the bucket after {started:.1} s, RSS {:.1} MB, \
         {processor:.2} % of a core, {requests} requests in {IDLE:?}, {} descriptors",
        host.resident_mb(),
        host.descriptors(),
    );
}

/// A configuration, in which the first few databases have a key of their own.
fn configured(head: &str, databases: &[PathBuf], changed: usize) -> String {
    let mut text = head.to_owned();
    for (index, path) in databases.iter().enumerate() {
        let more = if index < changed { "max_changes = 1000000\n" } else { "" };
        text += &format!("[[databases]]\npath = {path:?}\n{more}");
    }
    text
}

async fn reload(tenants: usize) {
    const CHANGED: usize = 10;
    let host = Host::start(tenants).await;
    host.wait_until_known().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let text = configured(&host.head, &host.databases, CHANGED);
    fs::write(host.directory.path().join("walrust.toml"), text).expect("it is writable");
    let client = Client::new(Socket::named(host.directory.path().join("control.sock")));
    let begun = Instant::now();
    let id = i32::try_from(host.daemon.id()).expect("process IDs are small");
    kill(Pid::from_raw(id), Signal::SIGHUP).expect("the daemon runs");
    let (elapsed, report) = loop {
        let report = client.status().await.expect("the daemon answers");
        let changed = report.databases.iter().filter(|it| it.revision > 1).count();
        if changed >= CHANGED {
            break (begun.elapsed(), report);
        }
        assert!(begun.elapsed() < PATIENCE, "{changed} databases follow");
    };
    let touched = |revision| report.databases.iter().filter(|it| it.revision == revision).count();
    let restarted = report.databases.iter().filter(|it| it.incarnation != 1).count();
    println!(
        "{tenants} databases, {CHANGED} changed: followed after {:.0} ms, {} touched once, {} not, \
         {restarted} actors started anew",
        elapsed.as_secs_f64() * 1e3,
        touched(2),
        touched(1),
    );
}

/// A writer on every database, all of them open.
struct Writers {
    connections: Vec<Connection>,
    /// When each commit was made, by database.
    commits: Vec<Vec<Instant>>,
}

impl Writers {
    fn open(databases: &[PathBuf]) -> Self {
        let open = |path: &PathBuf| {
            let connection = Connection::open(path).expect("the database opens");
            connection.busy_timeout(Duration::from_secs(5)).expect("a setting");
            let settings = "PRAGMA synchronous = NORMAL; PRAGMA cache_size = -100";
            connection.execute_batch(settings).expect("settings");
            connection
        };
        let connections = databases.iter().map(open).collect();
        Self { connections, commits: vec![Vec::new(); databases.len()] }
    }

    fn commit(&mut self, index: usize) {
        let sql = "INSERT INTO t (k, v) VALUES (hex(randomblob(8)), randomblob(200))";
        self.connections[index].execute(sql, []).expect("a commit");
        self.commits[index].push(Instant::now());
    }
}

async fn lag(tenants: usize, rate: u32) {
    let host = Host::start(tenants).await;
    host.wait_until_known().await;
    let mut writers = Writers::open(&host.databases);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let begun = Instant::now();
    let mut peak: f64 = 0.0;
    for number in 0.. {
        let due = begun + Duration::from_secs_f64(f64::from(number) / f64::from(rate));
        if due > begun + BUSY {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        writers.commit(fastrand::usize(..tenants));
        if number % 100 == 0 {
            peak = peak.max(host.resident_mb());
        }
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut lags = lags(&host, &writers);
    lags.sort_by(f64::total_cmp);
    let at = |share: f64| lags[((lags.len() - 1) as f64 * share) as usize];
    println!(
        "{tenants} databases, {rate} commits a second: lag median {:.0} ms, p99 {:.0} ms, max {:.0} \
         ms of {} commits; RSS at most {peak:.1} MB",
        at(0.5),
        at(0.99),
        at(1.0),
        lags.len(),
    );
}

/// Milliseconds from each commit to the answer of the upload that has it.
fn lags(host: &Host, writers: &Writers) -> Vec<f64> {
    let mut uploads: HashMap<String, Vec<(u64, Instant)>> = HashMap::new();
    for upload in host.proxy.uploads() {
        let file = upload.path.rsplit('/').next().unwrap_or_default();
        let max = file.get(17..33).and_then(|txid| u64::from_str_radix(txid, 16).ok());
        let max = max.expect("the name of an LTX file");
        uploads.entry(database_of(&upload.path).to_owned()).or_default().push((max, upload.at));
    }
    let mut lags = Vec::new();
    for (path, commits) in host.databases.iter().zip(&writers.commits) {
        let name = path.file_stem().expect("a file name").to_string_lossy();
        for (number, committed) in commits.iter().enumerate() {
            // The base is TXID 1, and a TXID is a commit.
            let txid = number as u64 + 2;
            let uploads = uploads[name.as_ref()].iter();
            let stored = uploads.filter(|(max, _)| *max >= txid).map(|(_, at)| *at).min();
            let stored = stored.expect("every commit is in storage by now");
            lags.push(stored.saturating_duration_since(*committed).as_secs_f64() * 1e3);
        }
    }
    lags
}

async fn outage(tenants: usize, seconds: u32) {
    let host = Host::start(tenants).await;
    host.wait_until_known().await;
    let mut writers = Writers::open(&host.databases);
    tokio::time::sleep(Duration::from_secs(3)).await;
    host.proxy.set_away(true);
    let (begun, away) = (Instant::now(), Duration::from_secs(seconds.into()));
    let (mut peak, mut staged, mut wal): (f64, u64, u64) = (0.0, 0, 0);
    let mut look = begun;
    while begun.elapsed() < away {
        for index in 0..tenants {
            writers.commit(index);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        if look.elapsed() > Duration::from_secs(1) {
            look = Instant::now();
            peak = peak.max(host.resident_mb());
            let (in_staging, in_wals) = sizes(host.directory.path());
            (staged, wal) = (staged.max(in_staging), wal.max(in_wals));
        }
    }
    let before = host.proxy.uploads().len();
    host.proxy.set_away(false);
    let back = Instant::now();
    let wanted: Vec<u64> = writers.commits.iter().map(|it| it.len() as u64 + 1).collect();
    loop {
        assert!(back.elapsed() < PATIENCE, "not everything is in storage");
        tokio::time::sleep(Duration::from_millis(50)).await;
        if is_stored(&host, &wanted) {
            break;
        }
    }
    let back = back.elapsed().as_secs_f64();
    let mut puts: HashMap<String, u32> = HashMap::new();
    for upload in &host.proxy.uploads()[before..] {
        *puts.entry(database_of(&upload.path).to_owned()).or_default() += 1;
    }
    println!(
        "{tenants} databases, storage away for {seconds} s: RSS at most {peak:.1} MB, staged at most \
         {:.1} MB, WALs at most {:.1} MB; all of {} commits in storage {back:.1} s after its return, \
         at most {} uploads of one database",
        staged as f64 / 1e6,
        wal as f64 / 1e6,
        wanted.iter().sum::<u64>(),
        puts.values().max().unwrap_or(&0),
    );
}

fn is_stored(host: &Host, wanted: &[u64]) -> bool {
    let mut heads: HashMap<String, u64> = HashMap::new();
    for upload in host.proxy.uploads() {
        let file = upload.path.rsplit('/').next().unwrap_or_default();
        let max = file.get(17..33).and_then(|txid| u64::from_str_radix(txid, 16).ok());
        let head = heads.entry(database_of(&upload.path).to_owned()).or_default();
        *head = (*head).max(max.unwrap_or_default());
    }
    host.databases.iter().zip(wanted).all(|(path, wanted)| {
        let name = path.file_stem().expect("a file name").to_string_lossy();
        heads.get(name.as_ref()).is_some_and(|head| head >= wanted)
    })
}

/// Bytes of staged files and of WALs under a directory.
fn sizes(directory: &Path) -> (u64, u64) {
    let (mut staged, mut wal) = (0, 0);
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = entry.metadata().map_or(0, |metadata| metadata.len());
        if path.is_dir() {
            let (inner_staged, inner_wal) = sizes(&path);
            (staged, wal) = (staged + inner_staged, wal + inner_wal);
        } else if name.ends_with(".ltx") {
            staged += size;
        } else if name.ends_with("-wal") {
            wal += size;
        }
    }
    (staged, wal)
}
