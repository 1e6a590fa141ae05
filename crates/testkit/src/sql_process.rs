//! An application in another process that runs the SQL it is told to, on one connection.
//!
//! Invariant: the process does not outlive the value, and a statement has ended when its answer is
//! here, so that what it did to files and locks can be looked at without waiting.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::binary::test_binary;

/// The SQLite library of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqliteLibrary {
    /// The one that is built into walrust.
    Bundled,
    /// The one of this machine, through Python's `sqlite3` module.
    System,
}

/// A process with a connection to a database. It waits for no lock.
///
/// What it is asked is one line of SQL. What it answers is one line for each row, `row` and then
/// the values, each behind a tab, and at the end `ok`, or `error` and a message.
#[derive(Debug)]
pub struct SqlProcess {
    child: Child,
    /// Closed to let the application end.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl SqlProcess {
    /// Opens the database at `path`, which is created if it is missing.
    ///
    /// # Panics
    /// If the process does not start.
    #[must_use]
    pub fn open(library: SqliteLibrary, path: &Path) -> Self {
        let mut command = match library {
            SqliteLibrary::Bundled => Command::new(test_binary("walrust-test-sql")),
            SqliteLibrary::System => {
                let mut python = Command::new("python3");
                python.args(["-c", include_str!("sql_process.py")]);
                python
            }
        };
        command.arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        Self { stdin: child.stdin.take(), child, stdout }
    }

    /// Runs one statement and returns its rows, values as text; the error is SQLite's message.
    ///
    /// # Errors
    /// If SQLite refuses the statement.
    ///
    /// # Panics
    /// If the process ends instead of answering.
    #[track_caller]
    pub fn try_run(&mut self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        assert!(!sql.contains('\n'), "a statement is one line: {sql:?}");
        let stdin = self.stdin.as_mut().expect("stdin is a pipe until the process is closed");
        writeln!(stdin, "{sql}").unwrap_or_else(|error| panic!("cannot ask {sql}: {error}"));
        let mut rows = Vec::new();
        loop {
            let mut line = String::new();
            self.stdout.read_line(&mut line).expect("the answer is text");
            let mut words = line.trim_end_matches('\n').split('\t').map(str::to_owned);
            match words.next().as_deref() {
                Some("row") => rows.push(words.collect()),
                Some("ok") => return Ok(rows),
                Some("error") => return Err(words.collect::<Vec<_>>().join("\t")),
                _ => panic!("{sql} was answered with {line:?}"),
            }
        }
    }

    /// Runs one statement, which must succeed, and returns its rows.
    ///
    /// # Panics
    /// If SQLite refuses it.
    #[track_caller]
    pub fn run(&mut self, sql: &str) -> Vec<Vec<String>> {
        self.try_run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Runs a statement whose result is one row of numbers.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn numbers<const N: usize>(&mut self, sql: &str) -> [i64; N] {
        let rows = self.run(sql);
        let numbers: Option<Vec<i64>> = match rows.as_slice() {
            [row] => row.iter().map(|value| value.parse().ok()).collect(),
            _ => None,
        };
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
        numbers.unwrap_or_else(|| panic!("{sql} gives {rows:?}, not {N} numbers"))
    }

    /// Closes the connection and ends, as an application does.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn close(mut self) {
        drop(self.stdin.take());
        let status = self.child.wait().expect("the process is a child of this one");
        assert!(status.success(), "the application failed: {status}");
    }

    /// Kills it in whatever it is doing (`SIGKILL`).
    ///
    /// # Panics
    /// If it cannot be killed.
    pub fn kill(mut self) {
        self.child.kill().expect("the process is a child of this one");
        self.child.wait().expect("the process is a child of this one");
    }
}

impl Drop for SqlProcess {
    fn drop(&mut self) {
        // After `close` or `kill` there is no process left, which is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
