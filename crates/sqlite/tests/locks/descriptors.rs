//! To whom a lock belongs: an OFD lock to its descriptor, a POSIX lock to the process.
//!
//! Closing any descriptor of a file drops the POSIX locks of the process on it, and SQLite's are
//! POSIX locks. So the pin needs OFD locks, and nobody else may open and close the files.

use std::fs::File;

use walrust_testkit::SqliteLibrary;

use crate::support::{Database, Lock, commit};
use crate::with_both_libraries;

with_both_libraries!(
    an_ofd_lock_survives_the_close_of_another_descriptor,
    unlocking_an_ofd_lock_needs_no_close_of_its_copies,
    a_posix_lock_does_not,
    a_posix_lock_holds_until_then,
);

/// Opens and closes the database file as any code of this process might.
fn open_and_close(database: &Database) {
    drop(File::open(database.path()).expect("the database is readable"));
}

fn an_ofd_lock_survives_the_close_of_another_descriptor(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let _lock = database.lock_shared();
    open_and_close(&database);
    application.close();
    assert!(database.wal().exists());
}

/// A child that is being started has such copies for a moment.
fn unlocking_an_ofd_lock_needs_no_close_of_its_copies(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let lock = database.lock_shared();
    let _copy = lock.copy_descriptor();
    drop(lock);
    application.close();
    assert!(!database.wal().exists());
}

fn a_posix_lock_does_not(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let _lock = Lock::posix_shared(&database);
    open_and_close(&database);
    application.close();
    assert!(!database.wal().exists());
}

fn a_posix_lock_holds_until_then(library: SqliteLibrary) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let _lock = Lock::posix_shared(&database);
    application.close();
    assert!(database.wal().exists());
}
