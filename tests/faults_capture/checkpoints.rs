//! What the application feels of checkpoints, and how large its WAL becomes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use walrust_engine::CheckpointKind;
use walrust_sqlite::{Capture, CaptureOptions};
use walrust_testkit::{connect, sidecar};

use super::{
    COMMIT, FRAME, Scene, SystemSqlite, add_documents, assert_no_gaps, commit, query, run,
};
use crate::daemon::Daemon;

/// The longest that walrust may hold up a writer.
const STALL: Duration = Duration::from_secs(1);

/// A thread that makes small commits at a steady pace. It does not make up for pauses that it had to
/// make, so that nobody has to do with more commits at once than the pace says.
struct Writer {
    stopped: Arc<AtomicBool>,
    commits: Arc<AtomicU64>,
    thread: JoinHandle<Duration>,
}

impl Writer {
    fn start(scene: &Scene, commits_per_second: u32) -> Self {
        let (stopped, commits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, count, source) =
            (Arc::clone(&stopped), Arc::clone(&commits), scene.source.clone());
        let thread = thread::spawn(move || {
            let application = connect(&source, 4096);
            let pace = Duration::from_secs(1) / commits_per_second;
            let mut longest = Duration::ZERO;
            while !told.load(Ordering::Relaxed) {
                let before = Instant::now();
                run(&application, COMMIT);
                longest = longest.max(before.elapsed());
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(pace.saturating_sub(before.elapsed()));
            }
            longest
        });
        Self { stopped, commits, thread }
    }

    fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Returns the number of commits, and how long the slowest of them took.
    fn stop(self) -> (u64, Duration) {
        self.stopped.store(true, Ordering::Relaxed);
        let longest = self.thread.join().expect("the writer does not panic");
        (self.commits.load(Ordering::Relaxed), longest)
    }
}

/// How many checkpoints the log tells of at the level `debug`.
fn checkpoints(log: &str) -> usize {
    log.lines().filter(|line| line.contains("\"message\":\"checkpoint\"")).count()
}

#[test]
fn a18_an_application_with_patience_is_never_told_to_wait() {
    let scene = Scene::new();
    let flags = ["--wal-truncate-threshold", "60", "--min-checkpoint-pages", "20"];
    let mut daemon = scene.replicate(&[&flags[..], &["--log-level", "debug"]].concat());
    let script = "
application = connect(5)
commits = 0
while not stopped.is_set():
    application.execute('INSERT INTO audit (account, change) VALUES (NULL, 1)')
    application.execute('BEGIN IMMEDIATE')
    application.execute('UPDATE accounts SET balance = balance + 1 WHERE id = 1')
    application.execute('COMMIT')
    application.execute('BEGIN')
    application.execute('INSERT INTO audit (account, change) VALUES (NULL, 2)')
    application.execute('SELECT count(*) FROM audit').fetchone()
    application.execute('COMMIT')
    application.execute('PRAGMA wal_checkpoint(PASSIVE)')
    commits += 3
print(commits)
";
    // An exception would end the script with another exit code than 0. One application: two would
    // keep each other waiting.
    let application = SystemSqlite::spawn(script, &scene.source);
    daemon.wait_until("eight checkpoints", |log| checkpoints(log) >= 8);
    let commits: u64 = application.stop().trim().parse().expect("the number of commits");
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!(scene.head(), 1 + commits, "one TXID for each commit");
    scene.assert_restorable();
}

#[test]
fn a19_the_wal_stays_bounded_under_writes_that_never_pause() {
    // Four seconds of commits: no busy machine makes the daemon late by so much.
    const THRESHOLD: u64 = 4000;
    /// That of the row, and that of the last number of a row.
    const PAGES_OF_A_COMMIT: u64 = 2;
    let scene = Scene::new();
    let flags = ["--wal-truncate-threshold", "4000", "--min-checkpoint-pages", "500"];
    let mut daemon = scene.replicate(&flags);
    let writer = Writer::start(&scene, 500);
    let mut largest = 0;
    for pages in [THRESHOLD, 2 * THRESHOLD, 3 * THRESHOLD] {
        daemon.wait_until(&format!("{pages} pages of commits"), |_| {
            largest = largest.max(scene.wal_size() / FRAME);
            writer.commits() * PAGES_OF_A_COMMIT >= pages
        });
    }
    let (commits, _) = writer.stop();
    assert_no_gaps(&daemon.stop().stderr);
    assert!(largest <= 2 * THRESHOLD, "{largest} pages in the WAL after {commits} commits");
    assert_eq!(scene.head(), 1 + commits, "one TXID for each commit");
    scene.assert_restorable();
}

#[test]
fn a19_writers_that_never_pause_do_not_keep_a_checkpoint_from_beginning() {
    let scene = Scene::new();
    let mut capture = Capture::open(&scene.source, &CaptureOptions::default()).expect("a database");
    capture.begin_new_chain(None).expect("the first TXID");
    capture.sync(1).expect("a snapshot");
    let snapshot = capture.staged().remove(0);
    capture.confirm(snapshot.name).expect("local state");
    // Another process: the capture opens and closes the files in this one.
    let script = "
application = connect(5)
application.execute('PRAGMA synchronous = OFF')
print('begun', flush=True)
while not stopped.is_set():
    application.execute('INSERT INTO documents (body) VALUES (1)')
";
    let mut writer = SystemSqlite::spawn(script, &scene.source);
    assert_eq!(writer.wait_for_line(), "begun");
    for round in 1..=60 {
        let kind = CheckpointKind::Barrier { truncate: false };
        capture.checkpoint(kind, 1 + round).expect("nothing but locks may be in the way");
        // The bulk, what was written during each round, and until the writer was stopped.
        let files = capture.staged();
        assert!(files.len() <= 8, "{} files for one checkpoint", files.len());
        for file in files {
            capture.confirm(file.name).expect("local state");
        }
    }
    writer.stop();
}

#[test]
fn a23_a_long_reader_costs_disk_but_no_commit_and_no_time() {
    let scene = Scene::new();
    let flags = ["--wal-truncate-threshold", "300", "--min-checkpoint-pages", "50"];
    let more = ["--checkpoint-interval", "100ms", "--log-level", "debug"];
    let mut daemon = scene.replicate(&[&flags[..], &more].concat());
    let reader = scene.application();
    run(&reader, "BEGIN");
    let seen: i64 = query(&reader, "SELECT count(*) FROM audit");
    // Not before the reader is there: until then every checkpoint succeeds.
    let writer = Writer::start(&scene, 200);
    daemon.wait_until("a WAL that cannot be checkpointed", |log| {
        scene.wal_size() > 2 * 300 * FRAME && checkpoints(log) >= 2
    });
    let tried = checkpoints(&daemon.log());
    assert!(tried < 10, "{tried} checkpoints that cannot succeed");
    assert_eq!(query::<i64>(&reader, "SELECT count(*) FROM audit"), seen, "its state stays");
    run(&reader, "ROLLBACK");
    daemon.wait_until("the WAL is short again", |_| scene.wal_size() < 300 * FRAME);
    let (commits, longest) = writer.stop();
    drop(reader);
    assert_no_gaps(&daemon.stop().stderr);
    assert!(longest < STALL, "a commit took {longest:?}");
    assert_eq!(scene.head(), 1 + commits, "one TXID for each commit");
    scene.assert_restorable();
}

/// Commits until the WAL has begun anew; returns the number of commits.
fn commit_into_a_new_wal(scene: &Scene, daemon: &mut Daemon) -> u64 {
    let application = scene.application();
    let (salts, mut commits) = (scene.salts(), 0);
    daemon.wait_until("the WAL begins anew", |_| {
        commit(&application, 1);
        commits += 1;
        scene.salts() != salts
    });
    commits
}

#[test]
fn a24_old_frames_behind_the_new_ones_cause_no_checkpoints() {
    let scene = Scene::new();
    let flags = ["--min-checkpoint-pages", "500", "--checkpoint-interval", "0"];
    let mut daemon = scene.replicate(&[&flags[..], &["--log-level", "debug"]].concat());
    let application = scene.application();
    add_documents(&application, 20, 200_000);
    scene.wait_for_head(&mut daemon, 2);
    daemon.wait_until("a checkpoint", |log| checkpoints(log) == 1);
    let mut head = 2 + commit_into_a_new_wal(&scene, &mut daemon);
    scene.wait_for_head(&mut daemon, head);
    assert!(scene.wal_size() > 900 * FRAME, "the file has kept its size");
    for _ in 0..50 {
        commit(&application, 1);
        head += 1;
        scene.wait_for_head(&mut daemon, head);
    }
    let log = daemon.stop().stderr;
    assert_eq!(checkpoints(&log), 1, "so few frames are no reason:\n{log}");
    assert_no_gaps(&log);
    scene.assert_restorable();
}

#[test]
fn a24_a_wal_that_is_shortened_costs_no_snapshot() {
    let scene = Scene::new();
    let flags = ["--wal-truncate-threshold", "200", "--min-checkpoint-pages", "50"];
    let mut daemon = scene.replicate(&flags);
    let application = scene.application();
    for round in 1..=3 {
        add_documents(&application, 10, 100_000);
        scene.wait_for_head(&mut daemon, 2 * round);
        daemon.wait_until("an empty WAL", |_| scene.wal_size() == 0);
        commit(&application, 1);
        scene.wait_for_head(&mut daemon, 1 + 2 * round);
    }
    assert!(sidecar(&scene.source, "-wal").exists());
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!((scene.head(), scene.snapshots()), (7, 1), "commits and the first snapshot");
    scene.assert_restorable();
}
