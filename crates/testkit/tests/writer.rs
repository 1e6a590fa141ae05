//! The writer: another process whose commits can be waited for.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use walrust_testkit::{
    TestDatabase, WriterOptions, WriterProcess, check_integrity, image, sidecar, wait_for,
};

const DEADLINE: Duration = Duration::from_secs(30);

fn audited(path: &Path) -> u32 {
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'audit'";
    let connection = Connection::open(path).expect("a connection");
    connection.query_row(sql, [], |row| row.get(0)).expect("the table of the trigger")
}

#[test]
fn a_number_of_commits_on_a_database_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new.db");
    let options = WriterOptions {
        seed: 9,
        commits: Some(40),
        page_size: 1024,
        vacuums: true,
        checkpoints: true,
        ..WriterOptions::default()
    };
    assert_eq!(WriterProcess::spawn(&path, &options).finish(), 40);
    assert!(!sidecar(&path, "-wal").exists(), "the last close deletes the WAL");
    assert!(audited(&path) > 20);
    assert_eq!(image(&path)[16..18], [4, 0], "the page size");
    check_integrity(&path);
}

#[test]
fn a_writer_beside_a_connection_of_the_test() {
    let mut database = TestDatabase::with_history(4096, 31, 5);
    let mut writer = WriterProcess::spawn(database.path(), &WriterOptions::default());
    assert_ne!(writer.id(), std::process::id());
    let seen = writer.wait_for_commit(10, DEADLINE);
    assert!(seen >= 10);
    let rows: u32 = (database.connection())
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert!(rows > 0);
    assert!(writer.stop() >= seen);
    check_integrity(database.path());
}

#[test]
fn writers_may_share_a_database_and_their_seed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shared.db");
    let options = WriterOptions { seed: 2, commits: Some(40), ..WriterOptions::default() };
    let writers = [(); 3].map(|()| WriterProcess::spawn(&path, &options));
    assert_eq!(writers.map(WriterProcess::finish), [40; 3]);
    check_integrity(&path);
}

#[test]
fn a_killed_writer_leaves_its_wal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("killed.db");
    let mut writer = WriterProcess::spawn(&path, &WriterOptions::default());
    writer.wait_for_commit(20, DEADLINE);
    assert!(writer.kill() >= 20);
    assert!(sidecar(&path, "-wal").exists());
    check_integrity(&path);
}

#[cfg(target_os = "linux")]
#[test]
fn a_writer_ends_with_its_value() {
    let directory = tempfile::tempdir().unwrap();
    let writer = WriterProcess::spawn(&directory.path().join("a.db"), &WriterOptions::default());
    let process = Path::new("/proc").join(writer.id().to_string());
    assert!(process.exists());
    drop(writer);
    assert!(!process.exists());
}

#[test]
fn a_writer_keeps_to_its_rate() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("slow.db");
    let options = WriterOptions {
        commits: Some(10),
        commits_per_second: Some(50),
        ..WriterOptions::default()
    };
    let start = Instant::now();
    assert_eq!(WriterProcess::spawn(&path, &options).finish(), 10);
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[test]
#[should_panic(expected = "the writer ended at commit 3 of 4")]
fn waiting_for_a_commit_that_will_not_come() {
    let directory = tempfile::tempdir().unwrap();
    let options = WriterOptions { commits: Some(3), ..WriterOptions::default() };
    let mut writer = WriterProcess::spawn(&directory.path().join("few.db"), &options);
    writer.wait_for_commit(4, DEADLINE);
}

#[test]
#[should_panic(expected = "the writer failed")]
fn a_writer_that_fails_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("no database");
    std::fs::write(&path, vec![7; 4096]).unwrap();
    let options = WriterOptions { commits: Some(3), ..WriterOptions::default() };
    WriterProcess::spawn(&path, &options).finish();
}

#[test]
#[should_panic(expected = "not within 20ms: pigs fly")]
fn a_condition_that_never_holds_is_named() {
    wait_for(Duration::from_millis(20), "pigs fly", || false);
}

#[test]
fn a_condition_is_looked_at_until_it_holds() {
    let mut looks = 0;
    wait_for(DEADLINE, "the fifth look", || {
        looks += 1;
        looks == 5
    });
    assert_eq!(looks, 5);
}
