//! The rolling checksum of LTX is a sum of checksums that are linear: where the same bytes of two
//! pages change by the same difference, it remains what it was.

use std::fs;

use walrust_ltx::Mode;
use walrust_sqlite::{
    Capture, CaptureOptions, Head, IntegrityCheck, Reconciliation, Restore, SyncOutcome, state_path,
};
use walrust_testkit::Application;

/// A database whose rolling checksum is that of the head need not be in the head's state: without
/// local state the pages of the head are fetched and compared one by one.
#[test]
fn equal_changes_of_two_pages_are_found_without_local_state() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (database, restored) = (directory.path().join("app.db"), directory.path().join("r.db"));
    let mut application = Application::default();
    let mut run = |sql: &str| application.run(0, &database, sql).expect("SQL without a fault");
    run("PRAGMA journal_mode = WAL; CREATE TABLE one (n); CREATE TABLE two (n); \
         INSERT INTO one VALUES (2); INSERT INTO two VALUES (2)");
    let open = || Capture::open(&database, &CaptureOptions::default()).expect("a database");
    let mut capture = open();
    capture.reconcile(None).expect("an empty bucket");
    let Ok(SyncOutcome::Staged { file, .. }) = capture.sync(1) else { panic!("a snapshot") };
    let stored = fs::read(&file.path).expect("a staged file");
    capture.confirm(file.name).expect("a position that can be saved");
    drop(capture);
    fs::remove_dir_all(state_path(&database, None)).expect("local state");

    run("BEGIN; UPDATE one SET n = 3; UPDATE two SET n = 3; COMMIT");
    let head = Head::of_file(&file.header, Some(file.post_apply));
    let mut capture = open();
    let place = capture.reconcile(Some(&head)).expect("a place in the bucket");
    assert_eq!(place, Reconciliation::Differs { after: None });
    let mut table = capture.head_table(&head, None).expect("a table");
    assert!(table.apply(file.name, stored.as_slice()).expect("a table that can be written"));
    assert!(capture.adopt_table(table, &head).expect("a position that can be saved"));
    let outcome = capture.sync(2).expect("a sync");
    let mut restore = Restore::begin(&restored, true, Mode::Strict).expect("a restore");
    restore.apply("head", file.name, stored.as_slice()).expect("a sound file");
    restore.finish(IntegrityCheck::Full).expect("a sound database");
    run("PRAGMA wal_checkpoint(PASSIVE)");
    let same = application.read(&restored) == application.read(&database);
    assert!(same || outcome != SyncOutcome::UpToDate, "what is in storage is not the database");
}
