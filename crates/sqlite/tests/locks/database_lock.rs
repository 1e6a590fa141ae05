//! The shared lock on the database file: byte 0x40000002.
//!
//! Without it the last connection to close is alone as far as it can see: it backfills everything,
//! past every read mark, and deletes the WAL. Since 3.51 SQLite looks at the dead man's switch too.

use walrust_testkit::SqliteLibrary;

use crate::support::{Database, assert_rows, commit, read};
use crate::with_both_libraries;

with_both_libraries!(
    without_it_the_last_close_deletes_the_wal,
    without_it_the_switch_protects_the_wal_from_newer_versions,
    with_it_the_last_close_leaves_everything_as_it_is,
    with_it_nobody_leaves_wal_mode,
);

fn without_it_the_last_close_deletes_the_wal(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    read(&mut application);
    let _slot = database.lock_slot();
    commit(&mut application, 5);
    application.close();
    assert!(!database.wal().exists());
    assert!(!database.shm().exists());
    assert_rows(&mut database.open(), 10);
}

fn without_it_the_switch_protects_the_wal_from_newer_versions(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let version = application.run("SELECT sqlite_version()").concat().concat();
    let numbers: Vec<u32> = version.split('.').filter_map(|number| number.parse().ok()).collect();
    let _switch = database.lock_switch();
    application.close();
    // Of 3.40.1 and 3.54.1 this was seen, of 3.51.0 it is in the list of changes.
    assert_eq!(database.wal().exists(), numbers >= vec![3, 51, 0], "SQLite {version}");
}

fn with_it_the_last_close_leaves_everything_as_it_is(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let shared = database.lock_shared();
    let before = (database.bytes(), database.wal_size());
    application.close();
    assert_eq!((database.bytes(), database.wal_size()), before);
    drop(shared);
    let mut application = database.open();
    assert_rows(&mut application, 5);
    application.close();
    assert!(!database.wal().exists(), "the lock alone has kept it");
}

fn with_it_nobody_leaves_wal_mode(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let shared = database.lock_shared();
    let refused =
        application.try_run("PRAGMA journal_mode = DELETE").expect_err("the lock is held");
    assert!(refused.contains("locked"), "{refused}");
    assert!(database.wal().exists());
    drop(shared);
    assert_eq!(application.run("PRAGMA journal_mode = DELETE"), [["delete"]]);
    assert!(!database.wal().exists());
}
