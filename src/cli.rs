//! The command line: what was typed, and one file per command.
//!
//! Results go to standard output, logs and progress to standard error. With `--json` a result is
//! one JSON document.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use walrust_sqlite::Cancellation;
use walrust_storage::ObjectStore;

use self::interrupt::or_signal;
use crate::config::{self as configuration, Config};
use crate::storage_source::StorageSource;
use crate::{Error, ExitCode, runtime};

mod compact;
mod config;
mod control;
mod demo;
mod explain;
mod export;
mod interrupt;
mod keys;
mod list;
mod logs;
mod pragma;
mod progress;
mod replicate;
mod restore;
mod signals;
mod snapshot;
mod verify;
mod watch;

/// Continuous replication of SQLite databases to S3-compatible storage, as LTX files.
#[derive(Debug, Parser)]
#[command(name = "walrust", version, about, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Where help lists the arguments of every command.
const GLOBAL: &str = "Global options";

/// Arguments of every command.
#[derive(Clone, Debug, Args)]
struct Global {
    /// Configuration file [default: ./walrust.toml, else /etc/walrust/walrust.toml]
    #[arg(long, global = true, value_name = "FILE", env = "WALRUST_CONFIG", help_heading = GLOBAL)]
    config: Option<PathBuf>,
    /// Log format [default: human on a terminal, json otherwise]
    #[arg(long, global = true, value_name = "FORMAT", env = "WALRUST_LOG_FORMAT", help_heading = GLOBAL)]
    log_format: Option<LogFormat>,
    /// Minimum log level: error, warn, info, debug or trace [default: info for watch, warn otherwise]
    #[arg(long, global = true, value_name = "LEVEL", env = "WALRUST_LOG_LEVEL", help_heading = GLOBAL)]
    log_level: Option<tracing::Level>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Human,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replicate databases until stopped
    Watch(watch::WatchArgs),
    /// Store one full snapshot of a database now
    Snapshot(snapshot::SnapshotArgs),
    /// Restore a database from storage
    Restore(restore::RestoreArgs),
    /// Follow a database in storage with a local read replica
    Replicate(replicate::ReplicateArgs),
    /// List the databases in storage, or the files and states of one
    List(list::ListArgs),
    /// Apply the retention to a database in storage, or show what it would do
    #[command(visible_alias = "prune")]
    Compact(compact::CompactArgs),
    /// Verify that databases in storage can be restored
    Verify(verify::VerifyArgs),
    /// Export a database in storage to a tree that Litestream 0.5 can restore and continue
    Export(export::ExportArgs),
    /// Show what `watch` would do and what it would cost, without starting anything
    Explain(explain::ExplainArgs),
    /// Show the state of each database of the running daemon
    Status(control::StatusArgs),
    /// Upload all pending commits now
    Sync(control::SyncArgs),
    /// Upload the pending commits of a database, then stop replicating it
    Pause(control::NameArgs),
    /// Resume replicating a database that is paused, or that another writer has stopped
    Resume(control::NameArgs),
    /// Check the configuration, print the values in effect, or print its JSON Schema
    Config(config::ConfigArgs),
    /// Print the PRAGMAs recommended for replicated databases
    Pragma(pragma::PragmaArgs),
    /// Write, replicate, delete, restore and compare a database in a temporary directory
    Demo(demo::DemoArgs),
}

/// Where the files are.
#[derive(Clone, Debug, Args)]
struct StorageArgs {
    /// Storage URL: s3://bucket/prefix, bucket/prefix or file:///directory
    #[arg(short, long, value_name = "URL", env = "WALRUST_BUCKET")]
    bucket: Option<String>,
    /// Endpoint of an S3-compatible store, starting with http:// or https://
    #[arg(long, value_name = "URL", env = "WALRUST_ENDPOINT")]
    endpoint: Option<String>,
}

/// Runs the program and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output, mistakes to standard error. If neither can
            // be written there is nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::Config } else { ExitCode::Success };
        }
    };
    let daemon = matches!(cli.command, Command::Watch(_));
    let level = if daemon { tracing::Level::INFO } else { tracing::Level::WARN };
    logs::init(&cli.global, cli.global.log_level.unwrap_or(level));
    let verifies = matches!(cli.command, Command::Verify(_));
    let outcome = run(cli).map_err(|error| match error {
        error @ Error::Findings { .. } => error,
        error if verifies => Error::NotVerified(Box::new(error)),
        error => error,
    });
    match outcome {
        Ok(()) => ExitCode::Success,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<(), Error> {
    let runtime = runtime::runtime()
        .map_err(|source| Error::Io { what: "cannot start threads".to_owned(), source })?;
    let config = || configuration::load(cli.global.config.as_deref());
    // The daemon goes on with an older configuration when the file is not valid, and can be asked why.
    let daemon_config = || {
        config().unwrap_or_else(|error| {
            eprintln!("warning: {error}");
            Config::default()
        })
    };
    let cancellation = Cancellation::default();
    // It outlives the threads that write to it.
    let directory;
    let result = match cli.command {
        Command::Watch(args) => runtime.block_on(watch::run(args, cli.global.config.as_deref())),
        Command::Snapshot(args) => {
            runtime.block_on(or_signal(snapshot::run(args, &config()?), &cancellation))
        }
        Command::Restore(args) => runtime
            .block_on(or_signal(restore::run(args, &config()?, &cancellation), &cancellation)),
        Command::Replicate(args) => runtime.block_on(replicate::run(args, &config()?)),
        Command::List(args) => runtime.block_on(list::run(args, &config()?)),
        Command::Compact(args) => {
            runtime.block_on(or_signal(compact::run(args, &config()?), &cancellation))
        }
        Command::Verify(args) => {
            runtime.block_on(or_signal(verify::run(args, &config()?), &cancellation))
        }
        Command::Export(args) => {
            runtime.block_on(or_signal(export::run(args, &config()?), &cancellation))
        }
        Command::Explain(args) => {
            runtime.block_on(explain::run(args, cli.global.config.as_deref()))
        }
        Command::Status(args) => runtime.block_on(control::status(args, &daemon_config())),
        Command::Sync(args) => runtime.block_on(control::sync(args, &daemon_config())),
        Command::Pause(args) => runtime.block_on(control::pause(args, &daemon_config())),
        Command::Resume(args) => runtime.block_on(control::resume(args, &daemon_config())),
        Command::Config(args) => config::run(args, cli.global.config.as_deref()),
        Command::Pragma(args) => pragma::run(&args),
        Command::Demo(args) => {
            directory = demo::directory()?;
            runtime.block_on(or_signal(demo::run(args, directory.path()), &cancellation))
        }
    };
    match &result {
        Err(Error::Interrupted) => interrupt::wind_up(runtime),
        // A blocking job that a second signal cut off must not hold up the end of the program.
        _ => runtime.shutdown_background(),
    }
    result
}

impl StorageArgs {
    /// Opens the storage that the arguments, else the configuration, name.
    async fn open(&self, config: &Config) -> Result<Arc<dyn ObjectStore>, Error> {
        StorageSource::from(self.clone()).open(config).await
    }
}

impl From<StorageArgs> for StorageSource {
    fn from(StorageArgs { bucket, endpoint }: StorageArgs) -> Self {
        Self { bucket, endpoint }
    }
}

/// Writes a result to standard output. A reader that has gone away is not an error of ours.
fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::Io { what: "cannot write to standard output".to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Writes a result as one JSON document.
fn print_json(value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value);
    print(&format!("{}\n", text.expect("results are names and numbers")))
}

/// A table without lines.
fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

/// Its text, with some columns aligned to the right.
fn aligned(mut table: Table, right: &[usize]) -> String {
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// A number of bytes for people.
fn human_bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A time of an LTX header for people and scripts.
fn rfc3339(timestamp_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(timestamp_ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => timestamp_ms.to_string(),
    }
}
