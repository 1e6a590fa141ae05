//! The program, run as a user runs it.
//!
//! Invariant: what a command sees is what its test has given it. The environment is empty but for
//! the variables of the test, and the working directory is new, so that no configuration and no
//! account of the person who runs the tests can be found.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::storage::Storage;

/// How long anything may take before a test has failed, on a busy machine too. Less than a minute, after
/// which the program does of itself what some tests want to see at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(50);

/// How long something may take on a busy machine that must not wait for what the program does only now
/// and then, or for a deadline.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Commits are shipped at this pace unless a test is about the pace.
pub(crate) const QUICK: [&str; 2] = ["--wal-sync-interval", "20ms"];

/// A user of walrust: a directory, an environment, and perhaps a bucket.
#[derive(Debug)]
pub(crate) struct Walrust {
    directory: TempDir,
    /// Where a daemon has its control socket.
    runtime: TempDir,
    variables: BTreeMap<String, String>,
    bucket: Option<String>,
}

impl Walrust {
    /// Somebody with nothing but the program.
    pub(crate) fn alone() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let runtime = tempfile::tempdir().expect("a temporary directory");
        let mut walrust = Self { directory, runtime, variables: BTreeMap::new(), bucket: None };
        walrust.set("XDG_RUNTIME_DIR", &walrust.runtime.path().display().to_string());
        walrust.set("HOME", &walrust.directory.path().display().to_string());
        // Without credentials the SDK would ask the network of a cloud machine for some.
        walrust.set("AWS_EC2_METADATA_DISABLED", "true");
        walrust
    }

    /// Somebody with a bucket: every command gets `-b URL`.
    pub(crate) fn on(storage: &Storage) -> Self {
        let mut walrust = Self::with_access_to(storage);
        walrust.bucket = Some(storage.url());
        walrust
    }

    /// Somebody who may use a bucket and names it in another way than `-b`.
    pub(crate) fn with_access_to(storage: &Storage) -> Self {
        let mut walrust = Self::alone();
        for (name, value) in storage.variables() {
            walrust.set(name, &value);
        }
        walrust
    }

    /// Sets a variable of the environment.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// Gives every command this `-b`.
    pub(crate) fn set_bucket(&mut self, url: &str) {
        self.bucket = Some(url.to_owned());
    }

    /// Writes `walrust.toml` into the working directory, in one step: a daemon may look at it.
    pub(crate) fn configure(&self, text: &str) {
        let new = self.file(".walrust.toml.new");
        fs::write(&new, text).expect("the directory is writable");
        fs::rename(new, self.file("walrust.toml")).expect("the directory is writable");
    }

    /// A path in the working directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The control socket of a daemon that was given none.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.runtime.path().join("walrust.sock")
    }

    /// The names of the files in the working directory, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        names_in(self.directory.path())
    }

    /// A command, to be started in another way than [`run`](Self::run) does.
    pub(crate) fn command<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walrust"));
        command.args(arguments).args(self.bucket.iter().flat_map(|url| ["-b", url.as_str()]));
        command.env_clear().envs(&self.variables).current_dir(self.directory.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        let mut command = assert_cmd::Command::from_std(self.command(arguments));
        let output = command.timeout(PATIENCE).output().expect("the program starts");
        Outcome::new(&output)
    }

    /// A command that asks the daemon, to be started in another way than [`ask`](Self::ask) does.
    pub(crate) fn asking<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walrust"));
        command.args(arguments).env_clear().envs(&self.variables);
        command.current_dir(self.directory.path()).stdin(Stdio::null());
        command
    }

    /// Runs a command that asks the daemon, and needs no storage for it.
    #[track_caller]
    pub(crate) fn ask<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        let mut command = assert_cmd::Command::from_std(self.asking(arguments));
        let output = command.timeout(PATIENCE).output().expect("the program starts");
        Outcome::new(&output)
    }

    /// Starts `watch` on databases, with the pace of the tests.
    pub(crate) fn watch(&self, databases: &[&Path]) -> Daemon {
        let arguments = databases.iter().map(|path| path.as_os_str().to_owned());
        self.watch_with(arguments.chain(QUICK.map(OsString::from)))
    }

    /// Starts `watch` with arguments.
    pub(crate) fn watch_with<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Daemon {
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
        Daemon::start(self.command(std::iter::once(OsString::from("watch")).chain(arguments)))
    }

    /// Restores a database, with further arguments, to a path.
    #[track_caller]
    pub(crate) fn restore(&self, name: &str, output: &Path, more: &[&str]) -> Outcome {
        let arguments = ["restore", name, "-o"].map(OsString::from);
        let more = more.iter().map(OsString::from);
        self.run(arguments.into_iter().chain([output.as_os_str().to_owned()]).chain(more))
    }

    /// Restores a database, which must succeed, and returns where it is.
    #[track_caller]
    pub(crate) fn restored(&self, name: &str, more: &[&str]) -> PathBuf {
        let count = self.files().len();
        let output = self.file(&format!("restored-{count}.db"));
        self.restore(name, &output, more).succeeded();
        output
    }

    /// Stores a snapshot of a database, with further arguments.
    #[track_caller]
    pub(crate) fn snapshot(&self, database: &Path, more: &[&str]) -> Outcome {
        let more = more.iter().map(OsString::from);
        let arguments = [OsString::from("snapshot"), database.as_os_str().to_owned()];
        self.run(arguments.into_iter().chain(more))
    }

    /// What `list` says of one database.
    #[track_caller]
    pub(crate) fn list(&self, name: &str) -> Value {
        self.run(["list", name, "--json"]).succeeded().json()
    }
}

/// The names in a directory, sorted.
pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("the directory is readable");
    let names = entries.map(|entry| entry.expect("an entry of the directory").file_name());
    let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Makes a directory hold what another one holds.
pub(crate) fn copy_files(from: &Path, to: &Path) {
    let run = |program: &str, arguments: &[&OsStr]| {
        let status = Command::new(program).args(arguments).status().expect("a usual program");
        assert!(status.success(), "{program} {arguments:?}: {status}");
    };
    for name in names_in(to) {
        run("rm", &["-r".as_ref(), to.join(name).as_ref()]);
    }
    run("cp", &["-r".as_ref(), from.join(".").as_ref(), to.as_ref()]);
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The exit code; `None` after a signal or the deadline.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    fn new(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts that the command has done its work.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Asserts an exit code, phrases of the message, and that there is no result.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, phrases: &[&str]) -> Self {
        assert_eq!(self.stdout, "", "a failure has no result; stderr: {}", self.stderr);
        self.reported(code, phrases)
    }

    /// Asserts an exit code and phrases of the message of a command whose result is bad news.
    #[track_caller]
    pub(crate) fn reported(self, code: i32, phrases: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for phrase in phrases {
            assert!(self.stderr.contains(phrase), "{phrase:?} is not in: {}", self.stderr);
        }
        let backtrace = ["panicked", "stack backtrace"].iter().any(|it| self.stderr.contains(it));
        assert!(!backtrace, "a sentence, not a backtrace: {}", self.stderr);
        self
    }

    /// The result as the one JSON document that it must be.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.stdout))
    }
}
