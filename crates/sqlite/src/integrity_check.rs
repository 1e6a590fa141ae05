//! SQLite's own check of a database that nobody else uses.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::{Cancellation, RestoreError};

/// Steps of SQLite after which it is asked whether anybody waits for the result.
const STEPS: i32 = 1000;

/// Which of SQLite's checks the result must pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IntegrityCheck {
    /// `PRAGMA quick_check`: structure of all pages.
    #[default]
    Quick,
    /// `PRAGMA integrity_check`: also that indexes agree with their tables.
    Full,
    /// None beyond our own checksums.
    None,
}

impl IntegrityCheck {
    /// Checks the database that `open` opens.
    ///
    /// # Errors
    /// If SQLite finds faults, or nobody waits for the result any more.
    pub(crate) fn run(
        self,
        open: impl FnOnce() -> rusqlite::Result<Connection>,
        cancellation: &Cancellation,
    ) -> Result<(), RestoreError> {
        let pragma = match self {
            Self::None => return Ok(()),
            Self::Quick => "PRAGMA quick_check(10)",
            Self::Full => "PRAGMA integrity_check(10)",
        };
        let report = || -> rusqlite::Result<Vec<String>> {
            let mut connection = open()?;
            let cancellation = cancellation.clone();
            connection.progress_handler(STEPS, Some(move || cancellation.is_cancelled()))?;
            let mut statement = connection.prepare(pragma)?;
            statement.query_map([], |row| row.get(0))?.collect()
        };
        let report = match report() {
            Ok(lines) => lines,
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                return Err(RestoreError::Cancelled);
            }
            Err(error) => vec![error.to_string()],
        };
        if report == ["ok"] {
            return Ok(());
        }
        Err(RestoreError::IntegrityCheck { report: report.join("; ") })
    }
}

/// Opens a database without locks, WAL or journal.
pub(crate) fn open_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(immutable_uri(path), flags)
}

fn immutable_uri(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_nobody_waits_for_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a %?#.db");
        let rows = "CREATE TABLE t (x); CREATE INDEX i ON t (x);
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
            INSERT INTO t SELECT i FROM n;";
        Connection::open(&path).unwrap().execute_batch(rows).unwrap();
        let cancellation = Cancellation::default();
        for check in [IntegrityCheck::Quick, IntegrityCheck::Full] {
            check.run(|| open_immutable(&path), &cancellation).unwrap();
        }
        assert!(cancellation.cancel());
        for check in [IntegrityCheck::Quick, IntegrityCheck::Full] {
            let ended = check.run(|| open_immutable(&path), &cancellation);
            assert!(matches!(ended, Err(RestoreError::Cancelled)), "{ended:?}");
        }
    }
}
