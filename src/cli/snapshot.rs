//! `walrust snapshot`: one full snapshot now.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use walrust_actors::{Cause, DatabasePhase, Replicator, Settings};
use walrust_ltx::Txid;
use walrust_sqlite::{check_database, is_replicated, kept_name};
use walrust_storage::ObjectStore;

use super::control::SocketArgs;
use super::{StorageArgs, print, print_json};
use crate::Error;
use crate::config::Config;
use crate::control::{Client, DatabaseReport, state_name};
use crate::resolver::Resolver;
use crate::settings::{Typed, is_same_file};

mod beside_daemon;

use beside_daemon::BesideDaemon;

/// How long the manifest and the rest may take after the snapshot.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    /// Database file
    #[arg(value_name = "DATABASE")]
    database: PathBuf,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    socket: SocketArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: SnapshotArgs, config: &Config) -> Result<(), Error> {
    check_database(&args.database)?;
    let path = args.database;
    let settings = settings_of(&path, config)?;
    let name = settings.databases[0].name.clone();
    let store = args.storage.open(config).await?;
    // Credentials and bucket are checked before anything is read.
    store.list(&format!("{name}/"), None).await?;
    let url = store.url();
    let is_replicated = is_replicated(&path, config.state.dir.as_deref())?;
    let (name, txid) = match daemon_of(&args.socket, config, &path, &url).await {
        // Patterns that were typed are known to the daemon alone.
        Ok(Some((client, database))) if is_replicated => {
            let txid = client.snapshot(&database.name).await?.txid.unwrap_or_default();
            (database.name, txid)
        }
        // It has let go of the database: whoever stores something takes the name from the other writer.
        Ok(Some((_, database))) if database.state == state_name(DatabasePhase::WriterConflict) => {
            let reason = database.error.unwrap_or(database.state);
            return Err(Error::Refused { reason, cause: Cause::Other });
        }
        Err(error) if is_replicated => return Err(error),
        Ok(None) if is_replicated => {
            let beside = BesideDaemon { store: &store, path: &path, config, name: &name };
            (name.clone(), beside.snapshot().await?.to_string())
        }
        asked => {
            if let Err(error) = asked {
                tracing::warn!(%error, "a daemon that does not replicate the database cannot be asked");
            }
            let txid = snapshot_alone(settings, store, &name).await?;
            (name, txid.to_string())
        }
    };
    if args.json {
        return print_json(&json!({ "name": name, "url": url, "txid": txid }));
    }
    print(&format!("snapshot of {name} at TXID {txid} is in {url}\n"))
}

/// The settings with this one database, as the configuration has it: named by an entry or matched by
/// a pattern. Only one that the configuration does not know is taken as it was typed, under the name that
/// its local state has kept, whatever prefix it was found below.
fn settings_of(path: &Path, config: &Config) -> Result<Settings, Error> {
    let resolve = |typed: &Typed| {
        let mut settings = Resolver::default().resolve(config, typed)?.with(path)?;
        settings.databases.retain(|database| is_same_file(&database.path, path));
        Ok::<_, Error>(settings)
    };
    let settings = resolve(&Typed::default())?;
    if !settings.databases.is_empty() {
        return Ok(settings);
    }
    let mut settings = resolve(&Typed { databases: vec![path.to_owned()], ..Typed::default() })?;
    let resolved = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if let Some(kept) = kept_name(&resolved, config.state.dir.as_deref())? {
        let database = &mut settings.databases[0];
        (database.name, database.kept_name) = (kept.name.clone(), Some(kept));
    }
    Ok(settings)
}

/// The daemon that replicates a database to this storage, and what it says of it; `None` if nobody listens,
/// or it is another daemon that does.
///
/// # Errors
/// If a daemon listens and cannot be asked.
async fn daemon_of(
    socket: &SocketArgs,
    config: &Config,
    path: &Path,
    url: &str,
) -> Result<Option<(Client, DatabaseReport)>, Error> {
    let client = socket.client(config);
    let report = match client.status().await {
        Ok(report) if report.storage == url => report,
        Ok(_) | Err(Error::NoDaemon(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut databases = report.databases.into_iter();
    let database = databases.find(|database| is_same_file(&database.path, path));
    Ok(database.map(|database| (client, database)))
}

/// Replicates the database for as long as it takes to store a snapshot.
async fn snapshot_alone(
    mut settings: Settings,
    store: Arc<dyn ObjectStore>,
    name: &str,
) -> Result<Txid, Error> {
    for webhook in &mut settings.webhooks {
        // A heartbeat says that the daemon lives.
        webhook.heartbeat_interval = Duration::ZERO;
    }
    let replicator = Replicator::start(settings, store).await?;
    let txid = replicator.snapshot(name).await?;
    let not_shipped = replicator.shut_down(SHUTDOWN_TIMEOUT).await?;
    if not_shipped.is_empty() { Ok(txid) } else { Err(Error::NotShipped(not_shipped)) }
}
