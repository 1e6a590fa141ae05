//! A slot of the wal-index: byte 123 + i of the `-shm` file, i from 1 to 4.
//!
//! Nobody backfills past its mark, and nobody restarts the WAL, however much of it is backfilled.

use walrust_testkit::SqliteLibrary;

use crate::support::{Database, WAITING_MODES, assert_rows, checkpoint, commit, read};
use crate::with_both_libraries;

with_both_libraries!(
    without_it_everything_is_backfilled_and_the_next_writer_restarts_the_wal,
    without_it_a_truncating_checkpoint_empties_the_wal,
    with_it_checkpoints_of_all_modes_stop_at_the_mark,
    with_it_writers_append,
    with_it_a_wal_that_is_backfilled_to_its_end_is_not_restarted_either,
    a_newer_slot_that_is_taken_first_lets_checkpoints_go_on,
);

fn without_it_everything_is_backfilled_and_the_next_writer_restarts_the_wal(
    library: SqliteLibrary,
) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let before = database.wal_index();
    assert_eq!(checkpoint(&mut application, "PASSIVE"), (false, before.frames, before.frames));
    commit(&mut application, 1);
    let after = database.wal_index();
    assert_eq!(after.salts.0, before.salts.0.wrapping_add(1));
    assert_ne!(after.salts.1, before.salts.1);
    assert!(after.frames < before.frames);
}

fn without_it_a_truncating_checkpoint_empties_the_wal(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    assert_eq!(checkpoint(&mut application, "TRUNCATE"), (false, 0, 0));
    assert_eq!(database.wal_size(), 0);
}

fn with_it_checkpoints_of_all_modes_stop_at_the_mark(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let (_shared, _switch, slot) = database.pin(&mut application);
    commit(&mut application, 5);
    let frames = database.wal_index().frames;
    assert!(slot.mark < frames);
    let mut other = database.open();
    assert_eq!(checkpoint(&mut other, "PASSIVE"), (false, frames, slot.mark));
    let backfilled = database.bytes();
    for mode in WAITING_MODES {
        assert_eq!(checkpoint(&mut other, mode), (true, frames, slot.mark), "{mode}");
    }
    assert_eq!(database.bytes(), backfilled);
    assert_eq!(database.wal_index().marks[slot.number], slot.mark);
    drop(slot);
    assert_eq!(checkpoint(&mut other, "TRUNCATE"), (false, 0, 0));
    assert_rows(&mut other, 10);
}

fn with_it_writers_append(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let (_shared, _switch, _slot) = database.pin(&mut application);
    let before = database.wal_index();
    checkpoint(&mut application, "PASSIVE");
    commit(&mut application, 5);
    let mut other = database.open();
    checkpoint(&mut other, "PASSIVE");
    commit(&mut other, 5);
    let after = database.wal_index();
    assert_eq!(after.salts, before.salts);
    assert!(after.frames >= before.frames + 10);
    assert_rows(&mut other, 15);
}

fn with_it_a_wal_that_is_backfilled_to_its_end_is_not_restarted_either(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let (_shared, _switch, slot) = database.pin(&mut application);
    let before = database.wal_index();
    assert_eq!(checkpoint(&mut application, "PASSIVE"), (false, slot.mark, slot.mark));
    // Nothing is left for `FULL` to do, and it does not care for readers then.
    assert_eq!(checkpoint(&mut application, "FULL"), (false, slot.mark, slot.mark));
    for mode in ["RESTART", "TRUNCATE"] {
        assert_eq!(checkpoint(&mut application, mode), (true, slot.mark, slot.mark), "{mode}");
    }
    commit(&mut application, 1);
    let after = database.wal_index();
    assert_eq!(after.salts, before.salts);
    assert!(after.frames > before.frames);
    assert_eq!(after.marks[slot.number], slot.mark);
}

fn a_newer_slot_that_is_taken_first_lets_checkpoints_go_on(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let (_shared, _switch, older) = database.pin(&mut application);
    commit(&mut application, 5);
    let frames = database.wal_index().frames;
    read(&mut application);
    let newer = database.lock_slot();
    assert_ne!(newer.number, older.number);
    assert_eq!(newer.mark, frames, "the slot that is held is not the one that readers move");
    assert_eq!(checkpoint(&mut application, "PASSIVE"), (false, frames, older.mark));
    drop(older);
    assert_eq!(checkpoint(&mut application, "PASSIVE"), (false, frames, newer.mark));
    let before = database.wal_index();
    commit(&mut application, 1);
    assert_eq!(database.wal_index().salts, before.salts);
}
