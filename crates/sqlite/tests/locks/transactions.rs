//! The fallback, a connection in a read transaction, and where it falls short of the detached pin.

use walrust_testkit::{SqlProcess, SqliteLibrary};

use crate::support::{Database, checkpoint, commit};
use crate::with_both_libraries;

with_both_libraries!(
    begin_alone_pins_nothing,
    reading_the_schema_version_pins,
    on_a_wal_that_is_backfilled_to_its_end_it_does_not,
);

fn database_with_reader(library: SqliteLibrary) -> (Database, SqlProcess, SqlProcess) {
    let (database, mut application) = Database::new(library);
    commit(&mut application, 5);
    let reader = database.open();
    (database, application, reader)
}

fn begin_alone_pins_nothing(library: SqliteLibrary) {
    let (_database, mut application, mut reader) = database_with_reader(library);
    reader.run("BEGIN");
    assert_eq!(checkpoint(&mut application, "TRUNCATE"), (false, 0, 0));
}

fn reading_the_schema_version_pins(library: SqliteLibrary) {
    let (database, mut application, mut reader) = database_with_reader(library);
    let before = database.wal_index();
    reader.run("BEGIN");
    reader.run("PRAGMA schema_version");
    assert_eq!(checkpoint(&mut application, "TRUNCATE"), (true, before.frames, before.frames));
    commit(&mut application, 1);
    assert_eq!(database.wal_index().salts, before.salts);
    reader.run("ROLLBACK");
    assert_eq!(checkpoint(&mut application, "TRUNCATE"), (false, 0, 0));
}

/// The transaction takes read lock 0: the next writer restarts the WAL, as it may under ours.
fn on_a_wal_that_is_backfilled_to_its_end_it_does_not(library: SqliteLibrary) {
    let (database, mut application, mut reader) = database_with_reader(library);
    let before = database.wal_index();
    assert_eq!(checkpoint(&mut application, "PASSIVE"), (false, before.frames, before.frames));
    reader.run("BEGIN");
    reader.run("PRAGMA schema_version");
    commit(&mut application, 1);
    assert_ne!(database.wal_index().salts, before.salts);
}
