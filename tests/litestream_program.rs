//! The real Litestream, run as its user runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;
use walrust_testkit::{S3Server, litestream_binary, wait_for};

use crate::storage::Storage;
use crate::walrust::PATIENCE;

/// The real binary with a database to replicate, to `db` in some storage.
#[derive(Debug)]
pub(crate) struct Litestream {
    directory: TempDir,
    database: PathBuf,
    variables: Vec<(&'static str, String)>,
}

impl Litestream {
    pub(crate) fn new(database: &Path, storage: &Storage) -> Self {
        let replica = match storage.url().strip_prefix("file://") {
            Some(directory) => format!("{{type: file, path: {directory}/db}}"),
            None => {
                let url = storage.url();
                let endpoint = S3Server::from_env().endpoint().to_owned();
                format!(
                    "{{url: \"{url}/db\", endpoint: \"{endpoint}\", force-path-style: true, region: us-east-1}}"
                )
            }
        };
        let rename = |(name, value)| match name {
            "AWS_ACCESS_KEY_ID" => Some(("LITESTREAM_ACCESS_KEY_ID", value)),
            "AWS_SECRET_ACCESS_KEY" => Some(("LITESTREAM_SECRET_ACCESS_KEY", value)),
            _ => None,
        };
        let variables = storage.variables().into_iter().filter_map(rename).collect();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let this = Self { directory, database: database.to_owned(), variables };
        let path = database.display();
        // The first level of its compaction is not worth waiting for.
        let text =
            format!("levels:\n  - interval: 1s\ndbs:\n  - path: {path}\n    replica: {replica}\n");
        fs::write(this.configuration(), text).expect("the directory is writable");
        this
    }

    fn configuration(&self) -> PathBuf {
        self.directory.path().join("litestream.yml")
    }

    fn command(&self, command: &str, arguments: &[&str]) -> Command {
        let mut process = Command::new(litestream_binary());
        process.args([command, "-config"]).arg(self.configuration()).args(arguments);
        process.env_clear().envs(self.variables.iter().map(|(name, value)| (*name, value)));
        process.stdin(Stdio::null());
        process
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Output {
        self.command(command, arguments).output().expect("litestream starts")
    }

    /// Ships what is new.
    #[track_caller]
    pub(crate) fn replicate(&self, more: &[&str]) {
        let output = self.run("replicate", &[&["-once"], more].concat());
        assert!(output.status.success(), "{more:?}: {output:?}");
    }

    /// Replicates until something has happened.
    #[track_caller]
    pub(crate) fn replicate_until(&self, what: &str, happened: impl Fn() -> bool) {
        let mut process = self.command("replicate", &[]);
        let process = process.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let _process = Process(process.expect("litestream starts"));
        wait_for(PATIENCE, what, happened);
    }

    /// Restores the database, with further arguments, to a path.
    fn try_restore(&self, output: &Path, more: &[&str]) -> Output {
        let (output, database) =
            (output.display().to_string(), self.database.display().to_string());
        self.run("restore", &[&["-o", &output], more, &[&database]].concat())
    }

    #[track_caller]
    pub(crate) fn restore(&self, output: &Path, more: &[&str]) {
        let result = self.try_restore(output, more);
        assert!(result.status.success(), "{more:?}: {result:?}");
    }

    /// A restore which must fail.
    #[track_caller]
    pub(crate) fn restore_fails(&self, output: &Path) {
        let result = self.try_restore(output, &[]);
        assert!(!result.status.success() && !output.exists(), "{result:?}");
    }
}

/// A process that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // If it has ended already there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
