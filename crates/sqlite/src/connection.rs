//! SQLite connections that leave the application's database as they found it.
//!
//! Invariants: a connection never creates a file, never checkpoints when it closes (so the WAL is
//! neither backfilled nor deleted behind the capture), never checkpoints on its own, and waits for
//! locks instead of failing at once. Dropping it at any moment leaves the database as it is.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::DatabaseError;

/// How long our own statements wait for a lock of the application.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens an existing database for reading, and for checkpoints.
pub(crate) fn open(path: &Path) -> Result<Connection, DatabaseError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connect = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        Ok(connection)
    };
    connect().map_err(DatabaseError::sqlite("open the database", path))
}

/// Opens an existing database as an application does: if it is the last connection to close, SQLite
/// copies the WAL into the database and removes it.
pub(crate) fn open_as_application(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // Without a transaction SQLite opens no WAL, and has none to remove.
    begin_read(&connection)?;
    end_read(&connection);
    Ok(connection)
}

/// Begins a read transaction that holds a read lock of the WAL.
///
/// `BEGIN` alone takes no lock; reading the schema version takes one and parses no schema.
pub(crate) fn begin_read(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN")?;
    let read = connection.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0));
    if let Err(error) = read {
        end_read(connection);
        return Err(error);
    }
    Ok(())
}

/// Ends a read transaction. Without an open transaction this does nothing.
pub(crate) fn end_read(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        // Only a broken connection refuses this, and its locks go when it is dropped.
        tracing::warn!(%error, "cannot end a read transaction");
    }
}
