//! An application in another process, which does what it is told.
//!
//! SQLite's locks belong to a process, and closing any descriptor of a database drops all of them.
//! So whoever replicates must not share a process with whoever writes, and who only looks at the
//! files needs a third one.
//!
//! Invariant: each call has ended in the other process when it returns, so tests are deterministic.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::binary::test_binary;

/// A process with connections to a database, kept alive from one use to the next.
#[derive(Debug, Default)]
pub struct Application {
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Application {
    /// Runs SQL on the connection with a number; one that does not exist yet opens the database.
    ///
    /// # Errors
    /// If SQLite refuses it, of a lock for example.
    ///
    /// # Panics
    /// If the process cannot be started or does not answer.
    pub fn run(&mut self, slot: u32, database: &Path, sql: &str) -> Result<(), String> {
        let database = database.to_str().expect("a path of a test is UTF-8");
        debug_assert!(!sql.contains('\n') && !database.contains(' '), "a command is one line");
        match self.ask(&format!("run {slot} {database} {sql}")).split_once(' ') {
            None => Ok(()),
            Some((_, reason)) => Err(reason.to_owned()),
        }
    }

    /// Closes all connections.
    ///
    /// # Panics
    /// If the process does not answer.
    pub fn close(&mut self) {
        if self.process.is_some() {
            self.ask("close");
        }
    }

    /// The bytes of a file; none if there is no such file.
    ///
    /// # Panics
    /// If the process does not answer.
    pub fn read(&mut self, path: &Path) -> Vec<u8> {
        self.tell(&format!("read {}", path.display()));
        self.bytes()
    }

    /// Kills the process in whatever it has open (`SIGKILL`); the next command starts another.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.child.kill().expect("the application is a child of this process");
            process.child.wait().expect("the application is a child of this process");
        }
    }

    /// Begins to commit some transactions, one after the other, in which `{i}` is the number of
    /// each; [`end_race`](Self::end_race) waits for them. The connection must be open.
    ///
    /// # Panics
    /// If the process does not take the command.
    pub fn begin_race(&mut self, slot: u32, database: &Path, transactions: u8, sql: &str) {
        let database = database.to_str().expect("a path of a test is UTF-8");
        self.tell(&format!("race {slot} {database} {transactions} {sql}"));
    }

    /// What the database held after each transaction of a race.
    ///
    /// # Panics
    /// If a transaction failed.
    pub fn end_race(&mut self) -> Vec<Vec<u8>> {
        let answer = self.answer();
        let count = answer.strip_prefix("images ").and_then(|count| count.parse().ok());
        let count: usize = count.unwrap_or_else(|| panic!("the race failed: {answer}"));
        (0..count).map(|_| self.bytes()).collect()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let answer = self.answer();
        let length = answer.strip_prefix("bytes ").and_then(|length| length.parse().ok());
        let mut bytes = vec![0; length.expect("the number of bytes")];
        let process = self.process.as_mut().expect("it has just answered");
        process.stdout.read_exact(&mut bytes).expect("as many bytes as it said");
        bytes
    }

    fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.answer()
    }

    fn tell(&mut self, command: &str) {
        let process = self.process.get_or_insert_with(Process::start);
        writeln!(process.stdin, "{command}").expect("the application reads its stdin");
    }

    fn answer(&mut self) -> String {
        let process = self.process.as_mut().expect("it was asked");
        let mut answer = String::new();
        process.stdout.read_line(&mut answer).expect("the application answers");
        assert!(answer.ends_with('\n'), "the application ended");
        answer.truncate(answer.len() - 1);
        answer
    }
}

impl Process {
    fn start() -> Self {
        let binary = test_binary("walrust-test-application");
        let mut child = Command::new(&binary)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", binary.display()));
        let stdin = child.stdin.take().expect("stdin is a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        Self { child, stdin, stdout }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.kill();
    }
}
