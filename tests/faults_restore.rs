//! Restore: faults that replicators of this kind have had, by their number, where storage changes or
//! fails while it is read. `c01` ... `c16` are the items of one list; those about damage, outputs and
//! times are in `damage.rs`, `restore.rs` and `point_in_time.rs`.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use walrust_storage::Metadata;
use walrust_testkit::{assert_same_database, connect};

use crate::fault_proxy::{Exchange, Fault, FaultProxy};
use crate::small_history::{NAME, SmallHistory, assert_empty};
use crate::storage::Storage;
use crate::walrust::Walrust;

/// A user whose requests go through a proxy.
fn behind(proxy: &FaultProxy, storage: &Storage) -> Walrust {
    let mut walrust = Walrust::on(storage);
    walrust.set("AWS_ENDPOINT_URL_S3", &proxy.url());
    walrust
}

/// Whether a request reads a file, whole or in part.
fn reads(exchange: &Exchange, key: &str) -> bool {
    exchange.method == "GET" && exchange.path().ends_with(key)
}

/// Lets the first `count` requests that read a file fail, and counts them all.
fn fail_reads(proxy: &FaultProxy, key: &str, count: usize, fault: Fault) -> Arc<AtomicUsize> {
    let seen = Arc::new(AtomicUsize::new(0));
    let (counted, key) = (Arc::clone(&seen), key.to_owned());
    proxy.set(move |exchange| {
        let fails = reads(exchange, &key) && counted.fetch_add(1, Ordering::SeqCst) < count;
        if fails { fault } else { Fault::Pass }
    });
    seen
}

#[test]
fn c06_a_restore_whose_file_vanishes_plans_once_more() {
    let history = SmallHistory::of("s3", Storage::s3());
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &history.storage);
    let key = history.key(5, 5);
    let lists = || proxy.exchanges().iter().filter(|exchange| exchange.lists()).count();

    fail_reads(&proxy, &key, 1, Fault::Answer(404, "NoSuchKey"));
    let output = walrust.file("out.db");
    let outcome = walrust.restore(NAME, &output, &[]).succeeded();
    assert!(outcome.stderr.contains("planning again"), "{}", outcome.stderr);
    assert_eq!(lists(), 2);
    assert_same_database(&history.source, &output);

    let seen = fail_reads(&proxy, &key, usize::MAX, Fault::Answer(404, "NoSuchKey"));
    let outcome = walrust.restore(NAME, &walrust.file("second.db"), &[]);
    outcome.failed(4, &[&key]);
    assert_eq!((lists(), seen.load(Ordering::SeqCst)), (4, 2), "once more, and no more");
    assert_eq!(walrust.files(), ["out.db"]);
}

#[test]
fn c16_a_piece_that_breaks_off_is_fetched_again_alone() {
    const MEBIBYTES: usize = 5;
    let storage = Storage::s3();
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("app.db");
    let application = connect(&source, 4096);
    application
        .execute_batch(&format!(
            "CREATE TABLE t (x); CREATE TABLE u (y);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
             INSERT INTO t SELECT randomblob(100000) FROM n; INSERT INTO u VALUES (1);",
            MEBIBYTES * 10
        ))
        .unwrap();
    drop(application);
    Walrust::on(&storage).snapshot(&source, &[]).succeeded();
    let file = storage.ltx_files(NAME)[0].to_string();
    let size = storage.read(&format!("{NAME}/{file}")).len();

    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    for fault in [Fault::Torn(300_000), Fault::HangUp, Fault::Answer(503, "SlowDown")] {
        let seen = fail_reads(&proxy, &file, 2, fault);
        let output = walrust.file("out.db");
        walrust.restore(NAME, &output, &["--force", "--parallelism", "2"]).succeeded();
        assert_same_database(&source, &output);
        // The header is read for the plan, too, unless the manifest knows the time.
        let reads = seen.load(Ordering::SeqCst);
        let pieces = size.div_ceil(1 << 20);
        assert!((pieces + 2..=pieces + 3).contains(&reads), "{reads} reads of {pieces} pieces");
    }
}

#[test]
fn c13_a_file_that_claims_to_be_huge_takes_neither_memory_nor_time() {
    let mut history = SmallHistory::new();
    history.forget_metadata();
    history.storage.delete(&history.manifest());
    let key = history.key(1, 4);
    let original = history.bytes(&key).to_vec();
    // Size of the database in pages, first page number, size of the first compressed page.
    for at in [12, 100, 106] {
        let mut bytes = original.clone();
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        history.storage.write(&key, &bytes, &Metadata::new());
        history.restore_fails(&[]).failed(5, &[&key]);
    }
}

#[test]
fn c14_what_a_killed_restore_has_left_does_not_block_the_next() {
    let history = SmallHistory::new();
    let output = history.walrust.file("out.db");
    fs::write(history.walrust.file(".walrust-restore-AbCdEf"), "left behind").unwrap();
    history.walrust.restore(NAME, &output, &[]).succeeded();
    assert_same_database(&history.source, &output);
}

#[test]
fn c14_an_empty_object_is_named_and_said_to_be_empty() {
    let mut history = SmallHistory::new();
    history.forget_metadata();
    for (key, more) in [(history.key(5, 5), &[][..]), (history.key(1, 1), &["--txid", "2"])] {
        history.storage.write(&key, b"", &Metadata::new());
        let outcome = history.restore_fails(more);
        outcome.failed(5, &[&key, "the file ends at byte 0"]);
        history.repair();
    }
    assert_empty(&history.walrust.file("outputs"));
}

#[test]
fn c02_parallel_requests_restore_the_same_as_one_after_the_other() {
    let history = SmallHistory::new();
    for parallelism in ["1", "2", "64"] {
        let output = history.walrust.restored(NAME, &["--parallelism", parallelism]);
        assert_same_database(&history.source, &output);
    }
    history.walrust.run(["restore", NAME, "--plan", "--parallelism", "0"]).failed(2, &["0"]);
}
