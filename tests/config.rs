//! Every key of the configuration changes what walrust does; a flag wins over the environment, the
//! environment over the file.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use walrust_testkit::{TestDatabase, WriterOptions, WriterProcess, assert_same_database};

use crate::recording_server::{RecordingServer, error_body};
use crate::storage::Storage;
use crate::walrust::{PATIENCE, Walrust};

/// Asserts how many files there are of a database that is written to for a while, when the pace comes
/// from these places.
#[track_caller]
fn assert_pace(pace: Pace, flag: Option<&str>, variable: Option<&str>, file: Option<&str>) {
    let (_directory, source) = TestDatabase::with_history(1024, 1, 10).close();
    let storage = Storage::directory();
    let mut walrust = Walrust::on(&storage);
    if let Some(interval) = file {
        walrust.configure(&format!("[sync]\nwal_sync_interval = \"{interval}\"\n"));
    }
    if let Some(interval) = variable {
        walrust.set("WALRUST_WAL_SYNC_INTERVAL", interval);
    }
    let mut arguments = vec![source.display().to_string()];
    arguments.extend(flag.map(|interval| format!("--wal-sync-interval={interval}")));
    let mut daemon = walrust.watch_with(&arguments);
    storage.wait_for_txid(&mut daemon, "app", 1);
    let options = WriterOptions { commits_per_second: Some(50), ..WriterOptions::default() };
    let mut writer = WriterProcess::spawn(&source, &options);
    if pace == Pace::Often {
        daemon.wait_until("many files", |_| storage.incrementals("app").len() >= MANY);
    }
    writer.wait_for_commit(50, PATIENCE);
    writer.stop();
    daemon.stop();
    assert_same_database(&source, &walrust.restored("app", &[]));
    let files = storage.incrementals("app").len();
    assert!(pace == Pace::Often || files <= FEW, "{files} files");
}

/// How often files are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Often,
    Hourly,
}

const OFTEN: Option<&str> = Some("10ms");
const HOURLY: Option<&str> = Some("1h");

/// The first commit goes at once, the rest when the daemon stops; the writer may begin in two.
const FEW: usize = 3;
const MANY: usize = 8;

#[test]
fn the_pace_comes_from_the_file() {
    assert_pace(Pace::Often, None, None, OFTEN);
    assert_pace(Pace::Hourly, None, None, HOURLY);
}

#[test]
fn the_environment_wins_over_the_file() {
    assert_pace(Pace::Often, None, OFTEN, HOURLY);
    assert_pace(Pace::Hourly, None, HOURLY, OFTEN);
}

#[test]
fn a_flag_wins_over_the_environment_and_the_file() {
    assert_pace(Pace::Often, OFTEN, HOURLY, HOURLY);
    assert_pace(Pace::Hourly, HOURLY, OFTEN, OFTEN);
}

#[test]
fn a_database_has_its_own_pace() {
    let directory = tempfile::tempdir().unwrap();
    let sources = ["often", "hourly"].map(|name| directory.path().join(format!("{name}.db")));
    for (source, seed) in sources.iter().zip(1..) {
        let writer = WriterOptions { seed, commits: Some(5), ..WriterOptions::default() };
        WriterProcess::spawn(source, &writer).finish();
    }
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    walrust.configure(&format!(
        "[sync]\nwal_sync_interval = \"10ms\"\n\
         [[databases]]\npath = {:?}\n\
         [[databases]]\npath = {:?}\nwal_sync_interval = \"1h\"\n",
        sources[0].display().to_string(),
        sources[1].display().to_string()
    ));
    let mut daemon = walrust.watch_with([""; 0]);
    for name in ["often", "hourly"] {
        storage.wait_for_txid(&mut daemon, name, 1);
    }
    let options = WriterOptions { commits_per_second: Some(50), ..WriterOptions::default() };
    let writers = sources.each_ref().map(|source| WriterProcess::spawn(source, &options));
    daemon.wait_until("many files", |_| storage.incrementals("often").len() >= MANY);
    for mut writer in writers {
        writer.wait_for_commit(10, PATIENCE);
        writer.stop();
    }
    assert!(storage.incrementals("hourly").len() < FEW);
    daemon.stop();
    for (name, source) in ["often", "hourly"].iter().zip(&sources) {
        assert_same_database(source, &walrust.restored(name, &[]));
    }
}

#[test]
fn the_bucket_comes_from_flag_environment_or_file() {
    let (_directory, source) = TestDatabase::with_history(1024, 2, 5).close();
    let [file, variable, flag] = [0; 3].map(|_| Storage::directory());
    let mut walrust = Walrust::alone();
    walrust.configure(&format!("[s3]\nbucket = \"{}\"\n", file.url()));
    let holders = || [&file, &variable, &flag].map(|storage| !storage.keys("").is_empty());
    walrust.snapshot(&source, &[]).succeeded();
    assert_eq!(holders(), [true, false, false]);
    walrust.set("WALRUST_BUCKET", &variable.url());
    walrust.snapshot(&source, &[]).succeeded();
    assert_eq!(holders(), [true, true, false]);
    walrust.snapshot(&source, &["--bucket", &flag.url()]).succeeded();
    assert_eq!(holders(), [true, true, true]);
}

#[test]
fn the_file_itself_comes_from_flag_environment_or_directory() {
    let [local, variable, flag] = [0; 3].map(|_| Storage::directory());
    let mut walrust = Walrust::alone();
    for (name, storage) in [("walrust.toml", &local), ("env.toml", &variable), ("flag.toml", &flag)]
    {
        let text = format!("[s3]\nbucket = \"{}\"\n", storage.url());
        std::fs::write(walrust.file(name), text).unwrap();
    }
    let listed = |walrust: &Walrust, arguments: &[&str]| {
        let outcome = walrust.run([&["list", "--json"], arguments].concat()).succeeded();
        outcome.json()["url"].as_str().unwrap().to_owned()
    };
    assert_eq!(listed(&walrust, &[]), local.url());
    walrust.set("WALRUST_CONFIG", "env.toml");
    assert_eq!(listed(&walrust, &[]), variable.url());
    assert_eq!(listed(&walrust, &["--config", "flag.toml"]), flag.url());
}

/// Somebody whose requests are refused, with a configuration.
fn with_s3_section(section: &str) -> Walrust {
    let mut walrust = Walrust::alone();
    walrust.set_bucket("s3://bucket");
    walrust.set("AWS_ACCESS_KEY_ID", "key");
    walrust.set("AWS_SECRET_ACCESS_KEY", "secret");
    walrust.configure(&format!("[s3]\n{section}\n"));
    walrust
}

#[test]
fn the_endpoint_comes_from_flag_environment_or_file() {
    let servers = [0; 4].map(|_| RecordingServer::that_refuses());
    let asked = || servers.each_ref().map(|server| !server.requests().is_empty());
    let [other, file, variable, flag] = servers.each_ref().map(RecordingServer::url);
    let mut walrust = with_s3_section(&format!("endpoint = \"{file}\""));
    walrust.set("AWS_ENDPOINT_URL_S3", &other);
    walrust.run(["list"]).failed(4, &["AccessDenied"]);
    assert_eq!(asked(), [false, true, false, false]);
    walrust.set("WALRUST_ENDPOINT", &variable);
    walrust.run(["list"]).failed(4, &["AccessDenied"]);
    assert_eq!(asked(), [false, true, true, false]);
    walrust.run(["list", "--endpoint", &flag]).failed(4, &["AccessDenied"]);
    assert_eq!(asked(), [false, true, true, true]);
    with_s3_section("").run(["list", "--endpoint", &other]).failed(4, &["AccessDenied"]);
    assert_eq!(asked(), [true; 4]);
}

#[test]
fn the_region_signs_the_requests() {
    let server = RecordingServer::that_refuses();
    let mut walrust = with_s3_section("region = \"mars-north-1\"");
    walrust.set("AWS_REGION", "venus-south-2");
    walrust.run(["list", "--endpoint", &server.url()]).failed(4, &[]);
    let request = server.requests().pop().unwrap();
    assert!(request.contains("/mars-north-1/s3/aws4_request"), "{request}");
}

#[test]
fn the_bucket_stands_in_the_path_or_in_the_host() {
    let server = RecordingServer::that_refuses();
    // A name that resolves, with or without the bucket before it.
    let endpoint = format!("http://localhost:{}", server.port());
    let in_path = with_s3_section("");
    in_path.run(["list", "--endpoint", &endpoint]).failed(4, &["AccessDenied"]);
    let requests = server.requests();
    assert!(requests.iter().all(|request| request.starts_with("GET /bucket")), "{requests:?}");

    let in_host = with_s3_section("path_style = false");
    let outcome = in_host.run(["list", "--endpoint", &endpoint]);
    let later = server.requests().split_off(requests.len());
    assert!(!later.iter().any(|request| request.starts_with("GET /bucket")), "{later:?}");
    outcome.failed(4, &[]);
}

/// Watches a database whose uploads all fail until a line is logged; the log up to that.
fn watch_without_uploads(retry: &str, arguments: &[&str], phrases: &[&str]) -> String {
    let (_directory, source) = TestDatabase::with_history(1024, 3, 5).close();
    let server = RecordingServer::empty_bucket(|| (503, error_body("SlowDown")));
    let mut walrust = with_s3_section("");
    walrust.configure(&format!("[retry]\n{retry}\n"));
    walrust.set("AWS_ENDPOINT_URL_S3", &server.url());
    let path = source.display().to_string();
    let mut daemon = walrust.watch_with([&[path.as_str()], arguments].concat());
    let line = daemon.wait_for_line(phrases);
    // It fails on and on.
    let log = daemon.log();
    daemon.kill();
    let end = log.find(&line).expect("it was found there") + line.len();
    log[..end].to_owned()
}

#[test]
fn so_many_failures_are_an_error_says_the_file() {
    let retry = "max_retries = 3\nbase_delay_ms = 1\nmax_delay_ms = 1\n\
                 circuit_breaker_enabled = false";
    let log = watch_without_uploads(retry, &[], &["ERROR", "fails again and again"]);
    assert!(log.contains("\"attempt\":2") && !log.contains("\"attempt\":9"), "{log}");
}

#[test]
fn so_many_failures_are_an_error_says_the_flag() {
    let retry = "max_retries = 3\nbase_delay_ms = 1\nmax_delay_ms = 1\n\
                 circuit_breaker_enabled = false";
    let flag = ["--max-retries", "1000"];
    let log = watch_without_uploads(retry, &flag, &["WARN", "\"attempt\":20"]);
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn the_first_delay_bounds_those_that_follow() {
    // With the default the twelfth attempt would come after a minute or so.
    watch_without_uploads(
        "base_delay_ms = 1\ncircuit_breaker_threshold = 20",
        &[],
        &["\"attempt\":12"],
    );
}

#[test]
fn the_longest_delay_bounds_all() {
    watch_without_uploads(
        "max_delay_ms = 10\ncircuit_breaker_threshold = 20",
        &[],
        &["\"attempt\":12"],
    );
}

/// Asserts how many uploads at once a server sees at most that lets each wait for others.
#[track_caller]
fn assert_uploads_at_once(limits: &str, expected: usize) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let names = ["one", "two", "three", "four", "five"];
    let sources = names.map(|name| directory.path().join(format!("{name}.db")));
    for source in &sources {
        let writer = WriterOptions { commits: Some(2), ..WriterOptions::default() };
        WriterProcess::spawn(source, &writer).finish();
    }
    // Uploads under way, the most so far, and how many have ended.
    let state = Arc::new((Mutex::new((0, 0, 0)), Condvar::new()));
    let shared = Arc::clone(&state);
    let server = RecordingServer::empty_bucket(move || {
        let (counts, changed) = &*shared;
        let mut counts = counts.lock().expect("nobody panics");
        counts.0 += 1;
        counts.1 = counts.1.max(counts.0);
        changed.notify_all();
        // As many as may come at the same time, however late they are, and then any that may not.
        let (counts, _) = changed
            .wait_timeout_while(counts, PATIENCE, |counts| counts.1 < expected)
            .expect("nobody panics");
        let wait = Duration::from_millis(500);
        let (mut counts, _) = changed
            .wait_timeout_while(counts, wait, |counts| counts.1 < names.len())
            .expect("nobody panics");
        counts.0 -= 1;
        counts.2 += 1;
        (200, String::new())
    });
    let mut walrust = with_s3_section("");
    walrust.configure(limits);
    walrust.set("AWS_ENDPOINT_URL_S3", &server.url());
    let paths: Vec<_> = sources.iter().map(|source| source.as_path()).collect();
    let mut daemon = walrust.watch(&paths);
    daemon.wait_until("every database is uploaded", |_| {
        let ended = state.0.lock().expect("nobody panics").2;
        let requests = server.requests();
        let uploads = requests.iter().filter(|request| request.starts_with("PUT "));
        let keys: BTreeSet<_> = uploads.filter(|it| it.contains(".ltx")).collect();
        let asked = |name: &&str| keys.iter().any(|key| key.contains(&format!("/{name}/")));
        ended >= names.len() && names.iter().all(asked)
    });
    daemon.kill();
    assert_eq!(state.0.lock().expect("nobody panics").1, expected);
}

#[test]
fn uploads_at_once_are_limited_over_all_databases() {
    assert_uploads_at_once("[limits]\nupload_concurrency = 2\n", 2);
    // Without the key the limit is higher.
    assert_uploads_at_once("", 5);
}
