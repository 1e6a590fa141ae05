//! Read lock 0: byte 123 of the `-shm` file.
//!
//! Its readers ignore the WAL, so nobody may write to the database file. On a WAL that is
//! backfilled to its end the next writer may restart it; what it writes then stays in the WAL
//! until the lock is gone, so the new generation is whole for as long as the lock is held.

use walrust_testkit::{SqlProcess, SqliteLibrary};

use crate::support::{Database, Lock, WAITING_MODES, assert_rows, checkpoint, commit};
use crate::with_both_libraries;

with_both_libraries!(
    without_it_generations_come_and_go,
    with_it_a_new_generation_is_whole,
    with_it_nothing_of_a_wal_that_is_not_backfilled_moves,
    with_it_an_empty_generation_may_be_passed_over,
    with_it_a_writer_that_finds_an_empty_wal_draws_both_salts,
);

/// A WAL that is backfilled to its end, with read lock 0 held.
fn backfilled(library: SqliteLibrary) -> (Database, SqlProcess, [Lock; 3]) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let frames = database.wal_index().frames;
    assert_eq!(checkpoint(&mut application, "PASSIVE"), (false, frames, frames));
    let locks = [database.lock_shared(), database.lock_switch(), database.lock_zero()];
    (database, application, locks)
}

fn without_it_generations_come_and_go(library: SqliteLibrary) {
    let (database, mut application, [_shared, _switch, zero]) = backfilled(library);
    drop(zero);
    let before = database.wal_index();
    for _ in 0..2 {
        commit(&mut application, 1);
        checkpoint(&mut application, "PASSIVE");
    }
    let after = database.wal_index();
    assert_eq!(after.salts.0, before.salts.0.wrapping_add(2), "one has come and gone");
}

fn with_it_a_new_generation_is_whole(library: SqliteLibrary) {
    let (database, mut application, [_shared, _switch, zero]) = backfilled(library);
    let (before, content) = (database.wal_index(), database.bytes());
    commit(&mut application, 1);
    let begun = database.wal_index();
    assert_eq!(begun.salts.0, before.salts.0.wrapping_add(1), "the writer may restart the WAL");
    let mut other = database.open();
    commit(&mut other, 2);
    let frames = database.wal_index().frames;
    assert_eq!(checkpoint(&mut other, "PASSIVE"), (false, frames, 0));
    for mode in WAITING_MODES {
        assert_eq!(checkpoint(&mut other, mode), (true, frames, 0), "{mode}");
    }
    commit(&mut application, 2);
    assert_eq!(database.wal_index().salts, begun.salts, "nobody may restart it again");
    assert_eq!(database.bytes(), content);
    drop(zero);
    assert_eq!(checkpoint(&mut other, "TRUNCATE"), (false, 0, 0));
    assert_rows(&mut other, 10);
}

fn with_it_nothing_of_a_wal_that_is_not_backfilled_moves(library: SqliteLibrary) {
    let (database, mut application, [_shared, _switch, zero]) = backfilled(library);
    drop(zero);
    commit(&mut application, 3);
    let _zero = database.lock_zero();
    let (before, content) = (database.wal_index(), database.bytes());
    assert!(before.backfilled < before.frames);
    for mode in WAITING_MODES {
        let refused = (true, before.frames, before.backfilled);
        assert_eq!(checkpoint(&mut application, mode), refused, "{mode}");
    }
    let nothing_done = (false, before.frames, before.backfilled);
    assert_eq!(checkpoint(&mut application, "PASSIVE"), nothing_done);
    commit(&mut application, 3);
    let after = database.wal_index();
    assert_eq!((after.salts, after.backfilled), (before.salts, before.backfilled));
    assert!(after.frames > before.frames);
    assert_eq!(database.bytes(), content);
}

/// Without loss: an emptied WAL has nothing that is not in the database file.
fn with_it_an_empty_generation_may_be_passed_over(library: SqliteLibrary) {
    let (database, mut application, _locks) = backfilled(library);
    let before = database.wal_index();
    for restarts in 1..=3 {
        assert_eq!(checkpoint(&mut application, "TRUNCATE"), (false, 0, 0));
        let index = database.wal_index();
        assert_eq!(index.salts.0, before.salts.0.wrapping_add(restarts));
        assert_eq!(index.frames, 0);
    }
    commit(&mut application, 1);
    let frames = database.wal_index().frames;
    assert_eq!(checkpoint(&mut application, "PASSIVE"), (false, frames, 0));
}

/// Salt-1 counts restarts only for the connection that has restarted the WAL. One that has never
/// done so and finds it empty begins with two random numbers, so that salt-1 proves nothing. The
/// lock does: what is written under it stays.
fn with_it_a_writer_that_finds_an_empty_wal_draws_both_salts(library: SqliteLibrary) {
    let (database, mut application, _locks) = backfilled(library);
    assert_eq!(checkpoint(&mut application, "TRUNCATE"), (false, 0, 0));
    let emptied = database.wal_index();
    let mut other = database.open();
    commit(&mut other, 1);
    let begun = database.wal_index();
    let distance = begun.salts.0.wrapping_sub(emptied.salts.0);
    assert!((16..u32::MAX - 16).contains(&distance), "{:x?} {:x?}", emptied.salts, begun.salts);
    let frames = begun.frames;
    assert_eq!(checkpoint(&mut application, "PASSIVE"), (false, frames, 0));
    assert_eq!(checkpoint(&mut application, "TRUNCATE"), (true, frames, 0));
    assert_rows(&mut application, 6);
}
