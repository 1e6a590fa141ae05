//! Applications that are killed under the pin, and the next opener that cleans up after them.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use walrust_testkit::{SqlProcess, SqliteLibrary};

use crate::support::{Database, UNUSED, assert_rows, checkpoint, commit, read};
use crate::with_both_libraries;

with_both_libraries!(
    a_writer_killed_in_a_transaction_leaves_the_pin,
    recovery_leaves_a_slot_that_is_held,
    recovery_resets_a_slot_that_is_free,
);

/// Begins a transaction so large that frames of it are in the WAL before it is committed.
fn begin_large_transaction(database: &Database) -> SqlProcess {
    let mut writer = database.open();
    writer.run("PRAGMA cache_size = 1");
    let before = database.wal_size();
    writer.run("BEGIN IMMEDIATE");
    commit(&mut writer, 50);
    assert!(database.wal_size() > before, "the cache has spilled");
    writer
}

/// Leaves the header of the wal-index as a writer does that dies while it updates it: it writes the
/// second copy first.
fn tear_header(database: &Database) {
    let opened = OpenOptions::new().write(true).open(database.shm());
    let torn = opened.and_then(|shm| shm.write_all_at(&[0xff; 4], 48 + 8));
    torn.expect("the wal-index is writable");
}

fn a_writer_killed_in_a_transaction_leaves_the_pin(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let (_shared, _switch, slot) = database.pin(&mut application);
    commit(&mut application, 1);
    let before = database.wal_index();
    begin_large_transaction(&database).kill();
    application.kill();
    let mut next = database.open();
    assert_rows(&mut next, 6);
    commit(&mut next, 1);
    let after = database.wal_index();
    assert_eq!(after.marks[slot.number], slot.mark);
    assert_eq!(after.salts, before.salts);
    assert!(after.frames > before.frames, "the next commit follows the last one");
    assert_eq!(checkpoint(&mut next, "TRUNCATE"), (true, after.frames, slot.mark));
    assert_rows(&mut next, 7);
}

fn recovery_leaves_a_slot_that_is_held(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let (_shared, _switch, slot) = database.pin(&mut application);
    commit(&mut application, 5);
    assert_eq!(checkpoint(&mut application, "PASSIVE").2, slot.mark);
    let before = database.wal_index();
    begin_large_transaction(&database).kill();
    application.kill();
    tear_header(&database);
    let mut next = database.open();
    assert_rows(&mut next, 10);
    let recovered = database.wal_index();
    assert_eq!(recovered.backfilled, 0, "the wal-index was built anew");
    assert_eq!(recovered.marks[slot.number], slot.mark);
    assert_eq!((recovered.frames, recovered.salts), (before.frames, before.salts));
    assert_eq!(checkpoint(&mut next, "TRUNCATE"), (true, before.frames, slot.mark));
    drop(slot);
    assert_eq!(checkpoint(&mut next, "TRUNCATE"), (false, 0, 0));
    assert_rows(&mut next, 10);
}

fn recovery_resets_a_slot_that_is_free(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let (_shared, _switch, slot) = database.pin(&mut application);
    commit(&mut application, 5);
    read(&mut application);
    let before = database.wal_index();
    assert_eq!(before.marks[slot.number], slot.mark);
    application.kill();
    let number = slot.number;
    drop(slot);
    tear_header(&database);
    assert_rows(&mut database.open(), 10);
    let recovered = database.wal_index();
    let mark = if number == 1 { before.frames } else { UNUSED };
    assert_eq!(recovered.marks[number], mark);
}
