//! The dead man's switch: byte 128 of the `-shm` file.
//!
//! Without it the next process to open the database is the only one as far as it can see, and
//! builds the wal-index anew. What is in the WAL stays, but a slot that is held gets mark 0.

use walrust_testkit::SqliteLibrary;

use crate::support::{Database, assert_rows, checkpoint, commit, read};
use crate::with_both_libraries;

with_both_libraries!(
    without_it_the_next_opener_builds_the_wal_index_anew,
    without_it_a_slot_that_is_held_blocks_every_backfill,
    with_it_the_wal_index_stays,
);

fn without_it_the_next_opener_builds_the_wal_index_anew(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let frames = database.wal_index().frames;
    assert_eq!(checkpoint(&mut application, "PASSIVE"), (false, frames, frames));
    let _shared = database.lock_shared();
    let before = database.wal_index();
    application.close();
    assert_eq!(database.wal_index(), before);
    assert_rows(&mut database.open(), 5);
    let rebuilt = database.wal_index();
    assert_eq!((rebuilt.frames, rebuilt.salts), (before.frames, before.salts));
    assert_eq!((before.backfilled, rebuilt.backfilled), (frames, 0), "what it knew is lost");
}

fn without_it_a_slot_that_is_held_blocks_every_backfill(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    read(&mut application);
    let _shared = database.lock_shared();
    let slot = database.lock_slot();
    assert_eq!(slot.mark, database.wal_index().frames);
    application.close();
    let mut application = database.open();
    assert_rows(&mut application, 5);
    let index = database.wal_index();
    assert_eq!(index.marks[slot.number], 0);
    assert_eq!(checkpoint(&mut application, "PASSIVE"), (false, index.frames, 0));
    assert_eq!(checkpoint(&mut application, "TRUNCATE"), (true, index.frames, 0));
    drop(slot);
    assert_eq!(checkpoint(&mut application, "TRUNCATE"), (false, 0, 0));
    assert_rows(&mut application, 5);
}

fn with_it_the_wal_index_stays(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let (_shared, _switch, slot) = database.pin(&mut application);
    commit(&mut application, 5);
    assert_eq!(checkpoint(&mut application, "PASSIVE").2, slot.mark);
    let before = database.wal_index();
    application.close();
    let mut application = database.open();
    assert_rows(&mut application, 10);
    let after = database.wal_index();
    assert_eq!(after.marks[slot.number], slot.mark);
    assert_eq!(
        (after.frames, after.salts, after.backfilled),
        (before.frames, before.salts, slot.mark)
    );
    commit(&mut application, 1);
    assert_rows(&mut application, 11);
}
