//! When walrust lets SQLite begin a WAL anew, as flags and configuration say.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use walrust_testkit::{TestDatabase, WriterOptions, WriterProcess, assert_same_database, sidecar};

use crate::storage::Storage;
use crate::walrust::{PATIENCE, QUICK, Walrust};

/// Writers that commit little at a time stay below SQLite's own limit of 1000 pages for so long.
const COMMITS: u64 = 40;

fn database() -> (TempDir, PathBuf) {
    TestDatabase::with_history(4096, 1, 10).close()
}

/// The salts of the WAL: they change when it begins anew. Nobody in this process has the database
/// open, and locks are not held on the WAL.
fn salts(source: &Path) -> [u8; 8] {
    let mut header = [0; 32];
    File::open(sidecar(source, "-wal"))
        .and_then(|mut wal| wal.read_exact(&mut header))
        .map_or([0; 8], |()| header[16..24].try_into().expect("eight bytes"))
}

fn writer(commits: Option<u64>) -> WriterOptions {
    WriterOptions { seed: 2, commits, commits_per_second: Some(15), ..WriterOptions::default() }
}

/// Watches with these arguments and this configuration, and waits until a WAL that is written all
/// the time has begun anew several times.
#[track_caller]
fn wal_begins_anew(configuration: &str, arguments: &[&str]) {
    let (_directory, source) = database();
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    walrust.configure(configuration);
    let path = source.display().to_string();
    let mut daemon = walrust.watch_with([&[path.as_str()], &QUICK[..], arguments].concat());
    storage.wait_for_txid(&mut daemon, "app", 1);
    let mut writer = WriterProcess::spawn(&source, &writer(None));
    writer.wait_for_commit(1, PATIENCE);
    let (mut last, mut restarts) = (salts(&source), 0);
    daemon.wait_until("the WAL begins anew", |_| {
        let now = salts(&source);
        restarts += u32::from(now != last);
        last = now;
        restarts >= 3
    });
    let commits = writer.stop();
    assert!(commits < 600, "SQLite's own checkpoints must not be the cause: {commits}");
    daemon.stop();
    assert_same_database(&source, &walrust.restored("app", &[]));
}

#[test]
fn a_wal_of_so_many_pages_is_checkpointed_says_the_flag() {
    wal_begins_anew("", &["--min-checkpoint-pages", "5", "--checkpoint-interval", "0"]);
}

#[test]
fn a_wal_of_so_many_pages_is_checkpointed_says_the_file() {
    wal_begins_anew("[sync]\nmin_checkpoint_page_count = 5\ncheckpoint_interval = 0\n", &[]);
}

#[test]
fn a_wal_is_checkpointed_so_often_says_the_flag() {
    wal_begins_anew("", &["--checkpoint-interval", "100ms", "--min-checkpoint-pages", "0"]);
}

#[test]
fn a_wal_is_checkpointed_so_often_says_the_file() {
    wal_begins_anew("[sync]\nmin_checkpoint_page_count = 0\ncheckpoint_interval = 0.1\n", &[]);
}

#[test]
fn zero_means_never() {
    let (_directory, source) = database();
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let path = source.display().to_string();
    let never = [&path, "--min-checkpoint-pages", "0", "--checkpoint-interval", "0"];
    let mut daemon = walrust.watch_with([&never[..], &QUICK].concat());
    storage.wait_for_manifest(&mut daemon, "app");
    let mut writer = WriterProcess::spawn(&source, &writer(None));
    writer.wait_for_commit(1, PATIENCE);
    let before = salts(&source);
    writer.wait_for_commit(COMMITS, PATIENCE);
    storage.wait_for_txid(&mut daemon, "app", COMMITS);
    assert_eq!(salts(&source), before);
    let frames = fs::metadata(sidecar(&source, "-wal")).unwrap().len() / 4120;
    assert!(frames >= COMMITS, "every commit is still in the WAL: {frames} frames");
    writer.stop();
    daemon.stop();
}
