//! `walrust snapshot`: one full snapshot now.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use walrust_actors::Replicator;
use walrust_sqlite::check_database;

use super::{StorageArgs, print, print_json, watch};
use crate::Error;
use crate::config::{Config, SyncSection};

/// How long the manifest and the rest may take after the snapshot.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    /// The database file
    #[arg(value_name = "DATABASE")]
    database: PathBuf,
    #[command(flatten)]
    storage: StorageArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: SnapshotArgs, config: &Config) -> Result<(), Error> {
    check_database(&args.database)?;
    let mut settings =
        watch::settings(std::slice::from_ref(&args.database), &SyncSection::default(), config)?;
    let path = args.database.canonicalize().map_err(|source| Error::Io {
        what: args.database.display().to_string(),
        source,
    })?;
    settings.databases.retain(|database| database.path == path);
    let name = settings.databases[0].name.clone();
    let store = args.storage.open(config).await?;
    // Credentials and bucket are checked before anything is read.
    store.list(&format!("{name}/"), None).await?;
    let url = store.url();
    let replicator = Replicator::start(settings, store).await?;
    let txid = replicator.snapshot(&name).await?;
    let not_shipped = replicator.shut_down(SHUTDOWN_TIMEOUT).await?;
    if !not_shipped.is_empty() {
        return Err(Error::NotShipped(not_shipped));
    }
    if args.json {
        return print_json(&json!({ "name": name, "url": url, "txid": txid.to_string() }));
    }
    print(&format!("snapshot of {name} at TXID {txid} is in {url}\n"))
}
