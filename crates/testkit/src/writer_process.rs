//! A writer in another process, as the application beside a replicator is one.
//!
//! Invariant: the process does not outlive the value. Tests wait for its commits, not for time.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::binary::test_binary;

/// What a writer does.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Seed of its workload.
    pub seed: u64,
    /// Commits after which it ends by itself; without, it goes on until it is told to stop.
    pub commits: Option<u64>,
    /// Commits a second at most; without, as many as it can.
    pub commits_per_second: Option<u32>,
    /// Page size in bytes of a database that it has to create.
    pub page_size: u32,
    /// Whether it runs `VACUUM` now and then.
    pub vacuums: bool,
    /// Whether it runs checkpoints of all modes now and then.
    pub checkpoints: bool,
    /// Whether it enters its commits in the ledger, which it creates if it is missing; see
    /// [`Workload::with_ledger`](crate::Workload::with_ledger).
    pub ledger: bool,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            commits: None,
            commits_per_second: None,
            page_size: 4096,
            vacuums: false,
            checkpoints: false,
            ledger: false,
        }
    }
}

/// A running writer.
#[derive(Debug)]
pub struct WriterProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    commits: Receiver<u64>,
    last_commit: u64,
}

impl WriterProcess {
    /// Starts a writer on the database at `path`, which it creates if it is missing.
    ///
    /// # Panics
    /// If the binary is missing or does not start.
    #[must_use]
    pub fn spawn(path: &Path, options: &WriterOptions) -> Self {
        let binary = writer_binary();
        let mut child = Command::new(&binary)
            .args(arguments(path, options))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", binary.display()));
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let (sender, commits) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let number = line.strip_prefix("committed ").and_then(|n| n.parse().ok());
                let Some(number) = number else { panic!("the writer printed {line:?}") };
                if sender.send(number).is_err() {
                    return;
                }
            }
        });
        Self { stdin: child.stdin.take(), child, commits, last_commit: 0 }
    }

    /// Number of the last commit that is known of.
    pub fn commits(&mut self) -> u64 {
        self.last_commit = self.commits.try_iter().last().unwrap_or(self.last_commit);
        self.last_commit
    }

    /// Waits until the writer has committed `number` times; returns the last known commit.
    ///
    /// # Panics
    /// If it does not within `deadline`, or ends before.
    #[track_caller]
    pub fn wait_for_commit(&mut self, number: u64, deadline: Duration) -> u64 {
        let end = Instant::now() + deadline;
        while self.commits() < number {
            match self.commits.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(commit) => self.last_commit = commit,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("commit {number} not within {deadline:?}; at {}", self.last_commit)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the writer ended at commit {} of {number}", self.last_commit)
                }
            }
        }
        self.last_commit
    }

    /// Tells the writer to stop, waits for it, and returns the number of its commits. Like any
    /// application that ends it closes its connection, which may checkpoint and delete the WAL.
    ///
    /// # Panics
    /// If the writer fails.
    #[track_caller]
    pub fn stop(mut self) -> u64 {
        drop(self.stdin.take());
        self.wait_until_done()
    }

    /// Waits for a writer with a number of commits to make, and returns that number.
    ///
    /// # Panics
    /// If the writer fails.
    #[track_caller]
    pub fn finish(mut self) -> u64 {
        self.wait_until_done()
    }

    #[track_caller]
    fn wait_until_done(&mut self) -> u64 {
        // Ends when the writer closes its stdout.
        while let Ok(commit) = self.commits.recv() {
            self.last_commit = commit;
        }
        let status = self.child.wait().expect("the writer is a child of this process");
        assert!(status.success(), "the writer failed: {status}");
        self.last_commit
    }

    /// Kills the writer in whatever it is doing (`SIGKILL`), and returns its last known commit;
    /// one more may have happened.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub fn kill(mut self) -> u64 {
        self.child.kill().expect("the writer is a child of this process");
        self.child.wait().expect("the writer is a child of this process");
        while let Ok(commit) = self.commits.recv() {
            self.last_commit = commit;
        }
        self.last_commit
    }

    /// Process ID of the writer.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for WriterProcess {
    fn drop(&mut self) {
        // After `stop`, `finish` or `kill` there is no process left, which is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn arguments(path: &Path, options: &WriterOptions) -> Vec<OsString> {
    let mut arguments = vec![path.into(), options.seed.to_string().into()];
    let mut option = |name: &str, value: Option<String>| {
        arguments.push(name.into());
        arguments.extend(value.map(OsString::from));
    };
    option("--page-size", Some(options.page_size.to_string()));
    match options.commits {
        Some(commits) => option("--commits", Some(commits.to_string())),
        None => option("--until-stdin-closes", None),
    }
    if let Some(rate) = options.commits_per_second {
        option("--commits-per-second", Some(rate.to_string()));
    }
    if options.vacuums {
        option("--vacuums", None);
    }
    if options.checkpoints {
        option("--checkpoints", None);
    }
    if options.ledger {
        option("--ledger", None);
    }
    arguments
}

/// The binary of the writer.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn writer_binary() -> PathBuf {
    test_binary("walrust-test-writer")
}
