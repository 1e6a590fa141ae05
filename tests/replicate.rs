//! The main job: what another process writes comes back page for page.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use walrust_testkit::{
    TestDatabase, WriterOptions, WriterProcess, assert_same_database, dump, image,
};

use crate::storage::{Storage, on_both_storages};
use crate::walrust::{PATIENCE, Walrust};

on_both_storages!(what_another_process_writes_comes_back, five_databases_in_one_daemon);

fn what_another_process_writes_comes_back(storage: &Storage) {
    let (_directory, source) = database_at_rest(4096, 1);
    replicate_beside_a_writer(storage, &source, WriterOptions { seed: 2, ..fast_writer() });
}

/// Tables, indexes, deletes and updates, and nobody who has it open.
fn database_at_rest(page_size: u32, seed: u64) -> (TempDir, PathBuf) {
    TestDatabase::with_history(page_size, seed, 40).close()
}

/// Some hundred commits, while which several files must be shipped.
fn fast_writer() -> WriterOptions {
    WriterOptions { commits_per_second: Some(200), ..WriterOptions::default() }
}

fn replicate_beside_a_writer(storage: &Storage, source: &Path, options: WriterOptions) {
    let walrust = Walrust::on(storage);
    let mut daemon = walrust.watch(&[source]);
    storage.wait_for_manifest(&mut daemon, "app");
    let mut writer = WriterProcess::spawn(source, &options);
    writer.wait_for_commit(100, PATIENCE);
    daemon
        .wait_until("three files while it is written", |_| storage.incrementals("app").len() >= 3);
    let commits = writer.stop();
    daemon.stop();

    assert_same_database(source, &walrust.restored("app", &[]));
    assert_eq!(storage.head("app"), 1 + commits, "one TXID for each commit");
}

macro_rules! page_sizes {
    ($($test:ident: $page_size:literal),* $(,)?) => {
        $(#[test] fn $test() {
            let (_directory, source) = database_at_rest($page_size, 3);
            let options = WriterOptions { seed: 4, vacuums: true, ..fast_writer() };
            replicate_beside_a_writer(&Storage::directory(), &source, options);
        })*
    };
}

page_sizes!(
    pages_of_512: 512,
    pages_of_1024: 1024,
    pages_of_2048: 2048,
    pages_of_4096: 4096,
    pages_of_8192: 8192,
    pages_of_16384: 16384,
    pages_of_32768: 32768,
    pages_of_65536: 65536,
);

fn five_databases_in_one_daemon(storage: &Storage) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let names = ["one", "two", "three", "four", "five"];
    let sources = names.map(|name| directory.path().join(format!("{name}.db")));
    let mut writers: Vec<WriterProcess> = (sources.iter().zip(10..))
        .map(|(source, seed)| {
            let options = WriterOptions { seed, commits_per_second: Some(40), ..fast_writer() };
            WriterProcess::spawn(source, &options)
        })
        .collect();
    for writer in &mut writers {
        writer.wait_for_commit(5, PATIENCE);
    }
    let walrust = Walrust::on(storage);
    let mut daemon = walrust.watch(&sources.each_ref().map(PathBuf::as_path));
    for name in names {
        daemon.wait_until("two files of each", |_| storage.incrementals(name).len() >= 2);
    }
    for writer in writers {
        writer.stop();
    }
    daemon.stop();

    for (name, source) in names.iter().zip(&sources) {
        assert_same_database(source, &walrust.restored(name, &[]));
    }
}

#[test]
fn the_database_of_the_user_is_left_as_it_is() {
    let (_directory, source) = database_at_rest(4096, 5);
    let before = (image(&source), dump(&source));
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let checkpointing = ["--min-checkpoint-pages", "1", "--checkpoint-interval", "20ms"];
    let arguments = [source.as_os_str()].into_iter().chain(checkpointing.map(AsRef::as_ref));
    let mut daemon = walrust.watch_with(arguments);
    storage.wait_for_txid(&mut daemon, "app", 1);
    daemon.stop();
    walrust.snapshot(&source, &[]).succeeded();

    // Pages hold the schema, its cookie and the change counter: not one byte may differ.
    assert!(before == (image(&source), dump(&source)), "walrust has written to the database");
}

#[test]
fn a_second_daemon_on_one_database_is_refused() {
    let (_directory, source) = database_at_rest(4096, 6);
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let mut first = walrust.watch(&[&source]);
    storage.wait_for_txid(&mut first, "app", 1);

    let second = Walrust::on(&storage);
    let mut second = second.watch(&[&source]);
    let line = second.wait_for_line(&["another walrust process", "app.db"]);
    assert!(line.contains("-walrust/lock"), "the lock is named: {line}");
    second.terminate();

    first.assert_running();
    WriterProcess::spawn(&source, &WriterOptions { commits: Some(20), ..fast_writer() }).finish();
    storage.wait_for_txid(&mut first, "app", 2);
    first.stop();
    assert_same_database(&source, &walrust.restored("app", &[]));
}

#[test]
fn an_idle_database_costs_no_object() {
    let (_directory, idle) = database_at_rest(4096, 7);
    let (directory, source) = database_at_rest(4096, 8);
    let busy = directory.path().join("busy.db");
    std::fs::rename(source, &busy).expect("nobody has it open");
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let mut daemon = walrust.watch(&[&idle, &busy]);
    storage.wait_for_txid(&mut daemon, "app", 1);
    storage.wait_for_txid(&mut daemon, "busy", 1);
    daemon.wait_until("the manifest", |_| storage.keys("app/").len() == 2);
    let before = walrust.list("app");

    // The busy database is the clock: so many rounds, and the idle one had its chance too.
    let mut writer = WriterProcess::spawn(&busy, &fast_writer());
    daemon.wait_until("many files", |_| storage.incrementals("busy").len() >= 20);
    writer.wait_for_commit(20, PATIENCE);
    writer.stop();
    daemon.stop();
    assert_eq!(walrust.list("app"), before);
    assert_eq!(storage.keys("app/").len(), 2);
}
