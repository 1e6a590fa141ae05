//! `walrust status`, `sync`, `pause` and `resume`: what the running daemon says and does.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use walrust_actors::{Cause, DatabasePhase};

use super::signals::Signals;
use super::{human_bytes, print, print_json, table};
use crate::Error;
use crate::config::{Config, Interval, parse_interval};
use crate::control::{
    Client, LeftOutReport, SOCKET_VARIABLE, Socket, StatusReport, SyncRequest, UploadReport,
    state_name,
};

/// How often `status --watch` asks.
const REFRESH: Duration = Duration::from_secs(1);
/// How long `sync` waits by default.
const SYNC_TIMEOUT: Duration = Duration::from_secs(60);
/// Clears a terminal and goes to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Where the daemon listens.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct SocketArgs {
    /// Control socket of the daemon [default: [control] socket; else walrust.sock in
    /// $XDG_RUNTIME_DIR; else /run/walrust.sock for root; else walrust-UID/walrust.sock in the
    /// directory for temporary files]
    #[arg(long, value_name = "PATH", env = SOCKET_VARIABLE)]
    pub(super) control_socket: Option<PathBuf>,
}

impl SocketArgs {
    /// The socket that was typed, else the one of the configuration, else that of the user.
    pub(super) fn resolve(&self, config: &Config) -> Socket {
        let named = self.control_socket.clone().or_else(|| config.control.socket.clone());
        named.map_or_else(Socket::of_user, Socket::named)
    }

    pub(super) fn client(&self, config: &Config) -> Client {
        Client::new(self.resolve(config))
    }
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Refresh every second until interrupted
    #[arg(long)]
    watch: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SyncArgs {
    /// Names of databases [default: all that are not paused]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    socket: SocketArgs,
    /// How long to wait for the uploads [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = parse_interval)]
    timeout: Option<Interval>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct NameArgs {
    /// Name of a database
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    socket: SocketArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn status(args: StatusArgs, config: &Config) -> Result<(), Error> {
    let client = args.socket.client(config);
    if !args.watch {
        return show_status(&client, &args).await;
    }
    let mut signals = Signals::new()?;
    let refresh = async {
        loop {
            show_status(&client, &args).await?;
            tokio::time::sleep(REFRESH).await;
        }
    };
    tokio::select! {
        result = refresh => result,
        // What was watched is not concerned.
        () = signals.next() => Ok(()),
    }
}

async fn show_status(client: &Client, args: &StatusArgs) -> Result<(), Error> {
    let report = client.status().await?;
    if args.json {
        print_json(&report)?;
    } else {
        let clear = args.watch && std::io::stdout().is_terminal();
        print(&format!("{}{}", if clear { CLEAR } else { "" }, shown(&report)))?;
    }
    Ok(())
}

/// A report for people.
fn shown(report: &StatusReport) -> String {
    let StatusReport { version, pid, storage, config_error, uploads, databases, left_out } = report;
    let mut text = format!("walrust {version}, process {pid}, to {storage}\n");
    if let Some(error) = config_error {
        text += &format!("the configuration was not applied: {error}\n");
    }
    if let Some(uploads) = uploads.as_ref().filter(|uploads| uploads.breaker != "closed") {
        let UploadReport { queued, asking, .. } = uploads;
        text += "storage fails; until it answers ";
        text += &format!("{queued} uploads and {asking} databases to be opened wait\n");
    }
    let mut rows = table(["NAME", "STATE", "LAG", "TXID", "WAL PAGES", "STAGED"]);
    for database in databases {
        let staged = match database.staged_files {
            0 => "-".to_owned(),
            files => format!("{files} ({})", human_bytes(database.staged_bytes)),
        };
        rows.add_row([
            database.name.clone(),
            database.state.replace('_', " "),
            format!("{:.1} s", database.lag_seconds),
            database.txid.clone().unwrap_or_else(|| "none".to_owned()),
            database.wal_pages.to_string(),
            staged,
        ]);
    }
    text += &format!("{}\n", super::aligned(rows, &[2, 4, 5]));
    for database in databases {
        if let Some(error) = &database.error {
            text += &format!("{}: {error}\n", database.name);
        }
    }
    for LeftOutReport { path, error } in left_out {
        text += &format!("{} is not replicated: {error}\n", path.display());
    }
    text
}

pub(super) async fn sync(args: SyncArgs, config: &Config) -> Result<(), Error> {
    let timeout = args.timeout.map_or(SYNC_TIMEOUT, |timeout| timeout.0);
    let request = SyncRequest { names: args.names, timeout_seconds: timeout.as_secs_f64() };
    let report = args.socket.client(config).sync(&request).await?;
    if args.json {
        print_json(&report)?;
    }
    let (mut problems, mut causes) = (Vec::new(), Vec::new());
    for database in report.databases {
        match (database.error, database.txid) {
            // The error says which.
            (Some(error), _) if database.paused => problems.push(error),
            (None, _) if database.paused => {
                let name = &database.name;
                eprintln!("{name} is paused and was left out; `walrust resume {name}` resumes it");
            }
            (Some(error), _) => {
                problems.push(format!("{}: {error}", database.name));
                causes.extend(database.cause.map(Cause::from));
            }
            (None, txid) if !args.json => {
                let txid = txid.unwrap_or_else(|| "none".to_owned());
                print(&format!("{} is in storage up to TXID {txid}\n", database.name))?;
            }
            (None, _) => {}
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    // What concerns all databases is worth more than what concerns one.
    let cause = [Cause::Storage, Cause::Database].into_iter().find(|it| causes.contains(it));
    Err(Error::NotSynced { problems, cause: cause.unwrap_or(Cause::Other) })
}

pub(super) async fn pause(args: NameArgs, config: &Config) -> Result<(), Error> {
    let answer = args.socket.client(config).pause(&args.name).await?;
    if args.json {
        print_json(&answer)?;
    }
    let name = answer.name;
    match answer.warning {
        Some(reason) => Err(Error::PausedUnshipped { name, reason }),
        None if args.json => Ok(()),
        None => print(&format!("{name} is paused; `walrust resume {name}` resumes it\n")),
    }
}

pub(super) async fn resume(args: NameArgs, config: &Config) -> Result<(), Error> {
    let answer = args.socket.client(config).resume(&args.name).await?;
    if args.json {
        return print_json(&answer);
    }
    let name = answer.name;
    // A daemon of an earlier version does not say.
    let state = answer.state.unwrap_or_else(|| state_name(DatabasePhase::Paused).to_owned());
    print(&if state == state_name(DatabasePhase::Paused) {
        format!("{name} is replicated\n")
    } else if state == state_name(DatabasePhase::WriterConflict) {
        format!("{name} claims its name anew; `walrust status` shows what comes of it\n")
    } else {
        format!("{name} was not paused, it is {}\n", state.replace('_', " "))
    })
}
