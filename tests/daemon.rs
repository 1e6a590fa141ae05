//! A running `walrust watch`.
//!
//! Invariant: the process does not outlive the value.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use walrust_testkit::wait_for;

use crate::walrust::{Outcome, PATIENCE};

/// How often a condition is looked at that has no event of its own.
const POLL: Duration = Duration::from_millis(20);

/// A running `walrust watch`.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<()>>,
}

impl Daemon {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdout = child.stdout.take().expect("stdout is a pipe");
        let stdout = thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).expect("the program prints UTF-8");
            text
        });
        let lines = BufReader::new(child.stderr.take().expect("stderr is a pipe")).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let collected = Arc::clone(&log);
        let stderr = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = collected.lock().unwrap_or_else(PoisonError::into_inner);
                *log += &line;
                log.push('\n');
            }
        });
        Self { child, log, stdout: Some(stdout), stderr: Some(stderr) }
    }

    /// Its process ID.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a log line with all of these phrases, and returns it.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, phrases: &[&str]) -> String {
        let matches = |line: &&str| phrases.iter().all(|phrase| line.contains(phrase));
        let description = format!("a log line with {phrases:?}");
        self.wait_until(&description, |log| log.lines().any(|line| matches(&line)));
        self.log().lines().find(matches).expect("a log only grows").to_owned()
    }

    /// Waits for something that the daemon brings about; `condition` gets its log.
    #[track_caller]
    pub(crate) fn wait_until(
        &mut self,
        description: &str,
        mut condition: impl FnMut(&str) -> bool,
    ) {
        let begun = Instant::now();
        while !condition(&self.log()) {
            let ended = self.child.try_wait().expect("the daemon is a child of this process");
            if ended.is_some() {
                // Its last words may have been on their way.
                self.join_log();
                assert!(condition(&self.log()), "{description}; {ended:?}:\n{}", self.log());
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "not seen: {description}; log:\n{}", self.log());
            thread::sleep(POLL);
        }
    }

    fn join_log(&mut self) {
        if let Some(stderr) = self.stderr.take() {
            stderr.join().expect("the thread does not panic");
        }
    }

    /// Asserts that it is still there.
    #[track_caller]
    pub(crate) fn assert_running(&mut self) {
        let ended = self.child.try_wait().expect("the daemon is a child of this process");
        assert!(ended.is_none(), "it has ended with {ended:?}:\n{}", self.log());
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id()).expect("process IDs are small");
        kill(Pid::from_raw(id), signal).expect("the daemon is a child of this process");
    }

    /// Sends SIGTERM, as a service manager does, and waits for the end.
    #[track_caller]
    pub(crate) fn terminate(self) -> Outcome {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Stops it with SIGTERM; everything must be in storage then.
    #[track_caller]
    pub(crate) fn stop(self) -> Outcome {
        let outcome = self.terminate().succeeded();
        assert_eq!(outcome.stdout, "", "the log goes to stderr");
        outcome
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the daemon is a child of this process");
        self.child.wait().expect("the daemon is a child of this process");
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Outcome {
        let child = &mut self.child;
        wait_for(PATIENCE, "the end of the daemon", || {
            child.try_wait().expect("the daemon is a child of this process").is_some()
        });
        let status = self.child.wait().expect("the daemon is a child of this process");
        self.join_log();
        let stdout = self.stdout.take().expect("it is joined once");
        let stdout = stdout.join().expect("the thread does not panic");
        Outcome { code: status.code(), stdout, stderr: self.log() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already, which is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
