//! A daemon that is killed, or away while others use the database, loses nothing.

use walrust_testkit::{
    TestDatabase, WriterOptions, WriterProcess, assert_same_database, connect, sidecar,
};

use crate::storage::{Storage, on_both_storages};
use crate::walrust::{PATIENCE, Walrust};

on_both_storages!(a_daemon_killed_under_load_loses_nothing);

fn a_daemon_killed_under_load_loses_nothing(storage: &Storage) {
    let (_directory, source) = TestDatabase::with_history(4096, 1, 20).close();
    let walrust = Walrust::on(storage);
    let options = WriterOptions {
        commits_per_second: Some(150),
        checkpoints: true,
        ..WriterOptions::default()
    };
    let mut writer = WriterProcess::spawn(&source, &options);
    for round in 1..=5 {
        let before = storage.ltx_files("app").len();
        let mut daemon = walrust.watch(&[&source]);
        // A later kill each time, but always one in the middle of something.
        daemon.wait_until("more files", |_| storage.ltx_files("app").len() >= before + round);
        daemon.kill();
        let commits = writer.commits();
        writer.wait_for_commit(commits + 10, PATIENCE);
    }
    let before = storage.head("app");
    let mut daemon = walrust.watch(&[&source]);
    daemon.wait_until("it goes on", |_| storage.head("app") > before);
    writer.stop();
    daemon.stop();
    assert_same_database(&source, &walrust.restored("app", &["--integrity-check", "full"]));
    // No state in between was lost to a kill either.
    let listing = walrust.list("app");
    let newest = listing["newest_txid"].as_str().expect("a state");
    let middle = storage.txids("app")[storage.txids("app").len() / 2].to_string();
    assert_eq!(u64::from_str_radix(newest, 16), Ok(storage.head("app")));
    walrust.restored("app", &["--txid", &middle, "--integrity-check", "full"]);
}

#[test]
fn a_foreign_truncate_while_the_daemon_is_away_is_healed_with_an_incremental() {
    let (_directory, source) = TestDatabase::with_history(4096, 2, 60).close();
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let mut daemon = walrust.watch(&[&source]);
    storage.wait_for_txid(&mut daemon, "app", 1);
    let writer = WriterOptions { commits: Some(20), ..WriterOptions::default() };
    WriterProcess::spawn(&source, &writer).finish();
    storage.wait_for_txid(&mut daemon, "app", 2);
    daemon.stop();
    let before = storage.head("app");

    // Commits that are only in the database file then, and a WAL that is shorter than before.
    let application = connect(&source, 4096);
    let sql = "INSERT INTO accounts (name, balance) VALUES ('away', 1)";
    application.execute_batch(&format!("{sql}; {sql}; {sql};")).expect("the table is there");
    let truncate = "PRAGMA wal_checkpoint(TRUNCATE)";
    let busy: u32 = application.query_row(truncate, [], |row| row.get(0)).expect("a result row");
    assert_eq!(busy, 0, "nobody else has it open");
    application.execute_batch(sql).expect("the table is there");
    let wal = std::fs::metadata(sidecar(&source, "-wal")).expect("a WAL").len();
    assert!(wal > 32, "the WAL has begun anew");

    let mut daemon = walrust.watch(&[&source]);
    daemon.wait_for_line(&["history gap healed"]);
    daemon.wait_until("the healing file", |_| storage.head("app") > before);
    daemon.stop();
    drop(application);
    let files = storage.ltx_files("app");
    let snapshots = files.iter().filter(|file| file.is_snapshot()).count();
    assert_eq!(snapshots, 1, "an incremental heals: {files:?}");
    assert_same_database(&source, &walrust.restored("app", &[]));
}

#[test]
fn commits_while_the_daemon_is_away_are_shipped_when_it_is_back() {
    let (_directory, source) = TestDatabase::with_history(4096, 3, 20).close();
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let mut daemon = walrust.watch(&[&source]);
    storage.wait_for_txid(&mut daemon, "app", 1);
    daemon.stop();
    // Opens, writes and closes: the last connection checkpoints and removes the WAL.
    for seed in 4..7 {
        let writer = WriterOptions { seed, commits: Some(5), ..WriterOptions::default() };
        WriterProcess::spawn(&source, &writer).finish();
    }
    assert!(!sidecar(&source, "-wal").exists());
    let mut daemon = walrust.watch(&[&source]);
    daemon.wait_until("what was missed", |_| storage.head("app") > 1);
    daemon.stop();
    assert_same_database(&source, &walrust.restored("app", &[]));
}

#[test]
fn short_lived_writers_beside_the_daemon_lose_nothing() {
    let (_directory, source) = TestDatabase::with_history(4096, 7, 20).close();
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let mut daemon = walrust.watch(&[&source]);
    storage.wait_for_manifest(&mut daemon, "app");
    for seed in 8..20 {
        let writer = WriterOptions { seed, commits: Some(2), ..WriterOptions::default() };
        WriterProcess::spawn(&source, &writer).finish();
    }
    daemon.stop();
    assert_eq!(storage.head("app"), 25, "one TXID for each commit");
    assert_same_database(&source, &walrust.restored("app", &[]));
}

#[test]
fn local_state_that_is_lost_costs_a_reading_and_no_history() {
    let (directory, source) = TestDatabase::with_history(4096, 9, 20).close();
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let mut daemon = walrust.watch(&[&source]);
    storage.wait_for_txid(&mut daemon, "app", 1);
    daemon.stop();
    let state = directory.path().join(".app.db-walrust");
    std::fs::remove_dir_all(&state).expect("the local state is there");
    let writer = WriterOptions { seed: 10, commits: Some(5), ..WriterOptions::default() };
    WriterProcess::spawn(&source, &writer).finish();
    let before = storage.head("app");
    let mut daemon = walrust.watch(&[&source]);
    daemon.wait_until("it goes on", |_| storage.head("app") > before);
    daemon.stop();
    assert_same_database(&source, &walrust.restored("app", &[]));
    assert_eq!(walrust.list("app")["oldest_txid"], "0000000000000001", "the old states stay");
}
