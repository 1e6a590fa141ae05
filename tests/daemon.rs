//! A running `walrust watch`.
//!
//! Invariant: the process does not outlive the value.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
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

/// A running `walrust watch`, or another command that goes on until it is told to end.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    stdout: Collected,
    stderr: Collected,
}

/// Whether a thread stands still, or is gone.
fn is_stopped(thread: &Path) -> bool {
    let Ok(stat) = std::fs::read_to_string(thread.join("stat")) else { return true };
    // The state stands behind the name, which ends with the last parenthesis.
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}

/// What a process writes to a pipe.
#[derive(Debug)]
struct Collected {
    text: Arc<Mutex<String>>,
    /// Ends with the process.
    thread: Option<JoinHandle<()>>,
}

impl Collected {
    fn from(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let (collected, mut pipe) = (Arc::clone(&text), BufReader::new(pipe));
        let thread = thread::spawn(move || {
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let mut text = collected.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self { text, thread: Some(thread) }
    }

    fn so_far(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the process has ended and all of it is there.
    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the thread does not panic");
        }
    }
}

impl Daemon {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = Collected::from(child.stdout.take().expect("stdout is a pipe"));
        let stderr = Collected::from(child.stderr.take().expect("stderr is a pipe"));
        Self { child, stdout, stderr }
    }

    /// Its process ID.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the kernel says of its memory under a key, such as `VmRSS`.
    pub(crate) fn memory_kib(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("Linux says so");
        let number = line.trim_start_matches(':').trim().trim_end_matches(" kB");
        number.parse().expect("a number of KiB")
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.stderr.so_far()
    }

    /// What it has printed so far.
    pub(crate) fn printed(&self) -> String {
        self.stdout.so_far()
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
                self.stderr.join();
                self.stdout.join();
                assert!(condition(&self.log()), "{description}; {ended:?}:\n{}", self.log());
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "not seen: {description}; log:\n{}", self.log());
            thread::sleep(POLL);
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

    /// Does something of which it sees the outcome alone.
    pub(crate) fn while_suspended(&self, work: impl FnOnce()) {
        self.signal(Signal::SIGSTOP);
        let threads = format!("/proc/{}/task", self.id());
        // A thread that waits for a processor is stopped when it gets one.
        wait_for(PATIENCE, "every thread of the daemon is suspended", || {
            let threads = std::fs::read_dir(&threads).expect("it is a child of this process");
            threads.filter_map(Result::ok).all(|thread| is_stopped(&thread.path()))
        });
        work();
        self.signal(Signal::SIGCONT);
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
        self.stderr.join();
        self.stdout.join();
        Outcome { code: status.code(), stdout: self.printed(), stderr: self.log() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already, which is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
