//! What a restore of a large database costs, beside the real Litestream from the same S3 server.
//!
//! `python3 tests/servers.py -- cargo bench --bench restore` measures a database of about 500 MB that
//! both have replicated, and one with 10,000 small files after its snapshot. Both programs run one
//! after the other in the same run, without SQLite's check, so that a slow machine shows in both.
//! The bars: a fifth of Litestream's time, 64 MB of memory, and two seconds for the small files.
//!
//! `WALRUST_BENCH_MB` and `WALRUST_BENCH_FILES` make it smaller.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use futures_util::StreamExt;
use rusqlite::Connection;
use walrust::{ObjectStore, StorageUrl};
use walrust_ltx::{Checksum, Encoder, Header, PageSize, Txid};
use walrust_storage::{Condition, Metadata};
use walrust_testkit::{S3Server, litestream_binary};

#[allow(dead_code, reason = "here is no daemon")]
mod support;

use support::{create_bucket, options};

/// Restores of each program.
const ROUNDS: usize = 3;

fn main() {
    let server = S3Server::from_env();
    let bucket = server.unique_bucket("restore");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime for the bucket");
    runtime.block_on(create_bucket(&server, &bucket));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let scene = Scene { server, bucket, directory: directory.path().to_owned() };
    let database = scene.database(number("WALRUST_BENCH_MB", 500));
    let url = format!("s3://{}/walrust", scene.bucket);
    let snapshot = ["snapshot".as_ref(), database.as_os_str(), "-b".as_ref(), url.as_ref()];
    scene.run(scene.walrust().args(snapshot));
    scene.litestream_replicates(&database);

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(scene.restore_with_walrust());
        theirs.push(scene.restore_with_litestream(&database));
    }
    let (walrust, litestream) = (median(&mut ours), median(&mut theirs));
    println!("walrust     {walrust}");
    println!("litestream  {litestream}");
    println!("litestream takes {:.1} times as long", litestream.seconds / walrust.seconds);

    let files = number("WALRUST_BENCH_FILES", 10_000);
    runtime.block_on(scene.add_small_files(files));
    let with_files = scene.restore_with_walrust();
    println!("with {files} small files more: {with_files}");
    println!("that is {:.1} s more", with_files.seconds - walrust.seconds);
}

fn number(variable: &str, default: u64) -> u64 {
    let number = std::env::var(variable).ok().and_then(|number| number.parse().ok());
    number.unwrap_or(default)
}

/// What a restore took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    seconds: f64,
    /// Processor time of the program, in seconds.
    processor: f64,
    /// Largest resident memory.
    megabytes: f64,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seconds, processor, megabytes } = self;
        write!(f, "{seconds:.2} s, {processor:.2} s of processor time, {megabytes:.1} MB at most")
    }
}

fn median(costs: &mut [Cost]) -> Cost {
    costs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    costs[costs.len() / 2]
}

struct Scene {
    server: S3Server,
    bucket: String,
    directory: PathBuf,
}

impl Scene {
    /// A database with rows that compress as those of applications do, to about a half.
    fn database(&self, megabytes: u64) -> PathBuf {
        let path = self.directory.join("app.db");
        let mut connection = Connection::open(&path).expect("the database opens");
        let schema = "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
                      CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, note TEXT, data BLOB);";
        connection.execute_batch(schema).expect("the schema is created");
        for _ in 0..megabytes.div_ceil(10) {
            let transaction = connection.transaction().expect("a transaction");
            let insert = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25000)
                 INSERT INTO t (name, note, data) SELECT 'customer ' || i,
                 'status=active|email=customer@example.com|created=2026-11-23T02:31:19Z|amount=' || i
                 || hex(randomblob(20)), randomblob(200) FROM n";
            transaction.execute_batch(insert).expect("rows");
            transaction.commit().expect("a commit");
        }
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        connection.query_row(checkpoint, [], |_| Ok(())).expect("a checkpoint");
        let size = std::fs::metadata(&path).expect("the database").len();
        println!("a database of {:.0} MB", size as f64 / 1e6);
        path
    }

    fn walrust(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walrust"));
        command.env("AWS_ACCESS_KEY_ID", self.server.access_key());
        command.env("AWS_SECRET_ACCESS_KEY", self.server.secret_key());
        command.env("AWS_ENDPOINT_URL_S3", self.server.endpoint());
        command
    }

    fn litestream(&self, command: &str, database: &Path) -> Command {
        let configuration = self.directory.join("litestream.yml");
        let (bucket, endpoint) = (&self.bucket, self.server.endpoint());
        let replica = format!(
            "{{url: \"s3://{bucket}/litestream\", endpoint: \"{endpoint}\", \
             force-path-style: true, region: us-east-1}}"
        );
        let path = database.display();
        let text = format!("dbs:\n  - path: {path}\n    replica: {replica}\n");
        std::fs::write(&configuration, text).expect("the directory is writable");
        let mut litestream = Command::new(litestream_binary());
        litestream.arg(command).arg("-config").arg(configuration);
        litestream.env("LITESTREAM_ACCESS_KEY_ID", self.server.access_key());
        litestream.env("LITESTREAM_SECRET_ACCESS_KEY", self.server.secret_key());
        litestream
    }

    fn litestream_replicates(&self, database: &Path) {
        self.run(self.litestream("replicate", database).args(["-once", "-force-snapshot"]));
    }

    fn restore_with_walrust(&self) -> Cost {
        let url = format!("s3://{}/walrust", self.bucket);
        let mut command = self.walrust();
        command.args(["restore", "app", "-b", &url, "--integrity-check", "none", "-o"]);
        let output = self.directory.join("walrust.db");
        self.measured(command.arg(&output), &output)
    }

    fn restore_with_litestream(&self, database: &Path) -> Cost {
        let output = self.directory.join("litestream.db");
        let mut command = self.litestream("restore", database);
        self.measured(command.arg("-o").arg(&output).arg(database), &output)
    }

    fn measured(&self, command: &mut Command, output: &Path) -> Cost {
        // What earlier restores have written is not to be waited for in this one.
        nix::unistd::sync();
        let began = Instant::now();
        let usage = self.run(command);
        let seconds = began.elapsed().as_secs_f64();
        std::fs::remove_file(output).expect("the restored database");
        Cost { seconds, ..usage }
    }

    /// Runs a program, and tells what it used.
    fn run(&self, command: &mut Command) -> Cost {
        let child = command.stdout(Stdio::null()).process_group(0).spawn();
        let mut child = child.expect("the program starts");
        let status = format!("/proc/{}/status", child.id());
        let stat = format!("/proc/{}/stat", child.id());
        let (mut megabytes, mut processor) = (0.0_f64, 0.0);
        let ended = loop {
            // The kernel keeps the peak itself; the last look before the end is what counts.
            let peak = std::fs::read_to_string(&status).unwrap_or_default();
            let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let peak = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<f64>().ok());
            megabytes = megabytes.max(peak.unwrap_or_default() / 1e3);
            let ticks = std::fs::read_to_string(&stat).unwrap_or_default();
            let ticks = ticks.rsplit(") ").next().map_or(0.0, |fields| {
                fields.split(' ').skip(11).take(2).filter_map(|it| it.parse::<f64>().ok()).sum()
            });
            processor = f64::max(processor, ticks / 100.0);
            if let Some(ended) = child.try_wait().expect("it is a child of this process") {
                break ended;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        assert!(ended.success(), "{command:?}: {ended}");
        Cost { seconds: 0.0, processor, megabytes }
    }

    /// Continues the history of walrust with files of one page each.
    async fn add_small_files(&self, count: u64) {
        let url: StorageUrl = format!("s3://{}/walrust", self.bucket).parse().expect("a URL");
        let options = options(Some(&self.server));
        let store = walrust_storage::open(&url, &options).await.expect("the store opens");
        let store: &dyn ObjectStore = store.as_ref();
        let listing = store.list("app/", None).await.expect("a listing");
        let base = listing.iter().find(|entry| entry.key.ends_with(".ltx")).expect("a snapshot");
        let head = store.get_range(&base.key, 0..Header::SIZE as u64).await.expect("its header");
        let base_header = Header::from_bytes(head.first_chunk().expect("a header"));
        let base_header = base_header.expect("a header");
        let trailer = store.get_range(&base.key, base.size - 16..base.size).await;
        let trailer = trailer.expect("its trailer");
        let rolling = u64::from_be_bytes(*trailer.first_chunk().expect("eight bytes"));
        let mut rolling = Checksum::from_raw(rolling).expect("a tracked snapshot");
        let size: PageSize = base_header.page_size;
        // A page beyond the end, which grows once and changes from then on.
        let pgno = base_header.commit + 1;
        let mut old: Option<Checksum> = None;
        let mut puts = Vec::new();
        let mut txid = base_header.max_txid;
        for number in 0..count {
            txid = txid.next();
            let mut page = vec![0; size.bytes()];
            page[..8].copy_from_slice(&number.to_be_bytes());
            let header = Header {
                tracking: true,
                pre_apply: Some(rolling),
                timestamp_ms: base_header.timestamp_ms + 1,
                ..Header::new(size, pgno, txid, txid)
            };
            let mut encoder = Encoder::new(Vec::new(), header).expect("a valid header");
            let new = encoder.page(pgno, &page).expect("a page");
            rolling = old.map_or(rolling, |old| rolling.toggle(old)).toggle(new);
            old = Some(new);
            let (file, _) = encoder.finish(Some(rolling)).expect("a valid file");
            puts.push((name(txid), file));
        }
        let puts = puts.into_iter().map(|(key, file)| async move {
            let metadata = Metadata::new();
            let put = store.put(&key, file.into(), &metadata, &Condition::IfAbsent).await;
            put.expect("a file is stored");
        });
        futures_util::stream::iter(puts).buffer_unordered(16).collect::<Vec<()>>().await;
    }
}

fn name(txid: Txid) -> String {
    format!("app/{txid}-{txid}.ltx")
}
