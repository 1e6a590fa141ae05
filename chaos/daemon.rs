//! The program under test: its commands, and the daemon with what can be done to it.
//!
//! Invariant: a daemon does not outlive its value, also when it stands still.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use walrust_testkit::{S3Server, wait_for};

/// How long a command or the end of a daemon may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program with a bucket, credentials, and a directory for its logs.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    directory: PathBuf,
    url: String,
    server: S3Server,
}

impl Program {
    /// A program that works in an existing directory and stores under a URL.
    pub(crate) fn new(directory: &Path, url: &str, server: &S3Server) -> Self {
        Self { directory: directory.to_owned(), url: url.to_owned(), server: server.clone() }
    }

    /// A command that meets storage at this endpoint.
    fn command<S: AsRef<OsStr>>(&self, endpoint: &str, arguments: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walrust"));
        command.args(arguments).args(["-b", &self.url]).current_dir(&self.directory);
        command.env_clear().envs([
            ("HOME", self.directory.as_os_str()),
            ("AWS_EC2_METADATA_DISABLED", OsStr::new("true")),
            ("AWS_ENDPOINT_URL_S3", OsStr::new(endpoint)),
            ("AWS_ACCESS_KEY_ID", OsStr::new(self.server.access_key())),
            ("AWS_SECRET_ACCESS_KEY", OsStr::new(self.server.secret_key())),
            ("AWS_REGION", OsStr::new("us-east-1")),
        ]);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end: its exit code, its result, its messages.
    pub(crate) fn run(&self, endpoint: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
        let command = self.command(endpoint, arguments);
        let mut command = assert_cmd::Command::from_std(command);
        let output = command.timeout(PATIENCE).output().expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    /// Starts the daemon; its log goes on where that of the one before ended.
    pub(crate) fn watch(&self, endpoint: &str, config: &Path) -> Daemon {
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.expect("the log can be written");
        let begins = log.metadata().expect("the log can be read").len() as usize;
        let arguments = [OsStr::new("watch"), "--config".as_ref(), config.as_os_str()];
        let mut command = self.command(endpoint, &arguments);
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        Daemon { child: child.expect("the program starts"), log: self.log(), begins }
    }

    /// The file with what all daemons logged.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("daemon.log")
    }

    /// What all daemons logged.
    pub(crate) fn logged(&self) -> String {
        fs::read_to_string(self.log()).expect("the log can be read")
    }
}

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
    /// Where its part of the log begins.
    begins: usize,
}

impl Daemon {
    fn send(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("process IDs are small");
        // A child that has ended stays until it is waited for, so nobody else is hit.
        kill(Pid::from_raw(id), signal).expect("the daemon is a child of this process");
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the daemon is a child of this process")
    }

    /// Waits until it replicates; before, a signal ends it without a word. `false` if it has ended.
    #[track_caller]
    pub(crate) fn wait_until_ready(&mut self) -> bool {
        let mut ended = false;
        wait_for(PATIENCE, "the daemon replicates", || {
            ended = self.ended().is_some();
            let log = fs::read(&self.log).expect("the log can be read");
            let words = String::from_utf8_lossy(&log[self.begins..]).into_owned();
            ended || words.contains("\"replicating\"")
        });
        !ended
    }

    /// Kills it in whatever it is doing.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Lets it stand still.
    pub(crate) fn pause(&self) {
        self.send(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        self.send(Signal::SIGCONT);
    }

    /// Asks it to ship everything and end; how it did.
    #[track_caller]
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.send(Signal::SIGTERM);
        let mut status = None;
        wait_for(PATIENCE, "the end of the daemon", || {
            status = self.ended();
            status.is_some()
        });
        status.expect("it was waited for")
    }

    /// Asks it to end and kills it if it takes longer than this, as service managers do. Whether it
    /// had to be killed.
    pub(crate) fn terminate_or_kill(mut self, patience: Duration) -> bool {
        self.send(Signal::SIGTERM);
        let end = Instant::now() + patience;
        while self.ended().is_none() && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        let killed = self.ended().is_none();
        self.end();
        killed
    }

    fn end(&mut self) {
        // It may have ended already, which is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}
