//! `walrust demo`: the main job end to end, without any server.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;
use walrust_actors::Replicator;
use walrust_engine::RestoreTarget;
use walrust_storage::{S3Options, StorageUrl};

use super::{human_bytes, print, print_json};
use crate::Error;
use crate::config::Config;
use crate::resolver::Resolver;
use crate::settings::Typed;
use walrust_history::{PlannedRestore, RestoreOptions};

/// How long a step may take before the demonstration has failed.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Where everything happens.
pub(super) fn directory() -> Result<TempDir, Error> {
    tempfile::Builder::new().prefix("walrust-demo-").tempdir().map_err(|source| Error::Io {
        what: "cannot create a temporary directory".to_owned(),
        source,
    })
}

pub(super) async fn run(args: DemoArgs, directory: &Path) -> Result<(), Error> {
    let tale = Tale { json: args.json };
    let database = directory.join("shop.db");
    let bucket = directory.join("bucket");
    tale.step(1, "an application creates a database in WAL mode")?;
    let mut application = open_application(&database)?;

    tale.step(2, "walrust replicates it to a directory that stands for a bucket")?;
    let url: StorageUrl = format!("file://{}", bucket.display()).parse()?;
    let store = walrust_storage::open(&url, &S3Options::default()).await?;
    let typed = Typed { databases: vec![database.clone()], ..Typed::default() };
    let settings = Resolver::default().resolve(&Config::default(), &typed)?.settings;
    let replicator = Replicator::start(settings, Arc::clone(&store)).await?;
    wait_until_shipped(&replicator, &database).await?;

    tale.step(3, "the application inserts, updates and deletes")?;
    let commits = write(&application, &database)?;
    wait_until_shipped(&replicator, &database).await?;
    tale.tell(&format!("   {commits} commits are in storage\n"))?;
    let not_shipped = replicator.shut_down(PATIENCE).await?;
    if !not_shipped.is_empty() {
        return Err(Error::NotShipped(not_shipped));
    }
    let listing = store.list("shop/", None).await?;
    for entry in &listing {
        tale.tell(&format!("   {}  {}\n", entry.key, human_bytes(entry.size)))?;
    }

    tale.step(4, "the database is lost: all of its files are deleted")?;
    let original = content(&mut application, &database)?;
    drop(application);
    for suffix in ["", "-wal", "-shm"] {
        remove(&walrust_sqlite::sidecar(&database, suffix))?;
    }

    tale.step(5, "walrust restores it from storage")?;
    let planned = PlannedRestore::plan(store.as_ref(), "shop", RestoreTarget::Latest).await?;
    let restored = planned.execute(store, &database, RestoreOptions::default(), |_| {}).await?;
    let (txid, files) = (restored.txid.to_string(), planned.plan.files.len());
    tale.tell(&format!("   TXID {txid} from {files} files\n"))?;

    tale.step(6, "the restored database is compared with the lost one")?;
    if content(&mut open(&database)?, &database)? != original {
        return Err(Error::DemoDiffers(database));
    }
    if args.json {
        let result = json!({ "commits": commits, "txid": txid, "files": files, "identical": true });
        return print_json(&result);
    }
    print("restored database is identical\n")
}

/// What people are told meanwhile.
struct Tale {
    /// A program that reads the result is told nothing else.
    json: bool,
}

impl Tale {
    fn step(&self, number: u32, text: &str) -> Result<(), Error> {
        self.tell(&format!("{number}. {text}\n"))
    }

    fn tell(&self, text: &str) -> Result<(), Error> {
        if self.json { Ok(()) } else { print(text) }
    }
}

fn open(path: &Path) -> Result<Connection, Error> {
    Connection::open(path).map_err(|error| sqlite_error(path, &error))
}

fn open_application(path: &Path) -> Result<Connection, Error> {
    let connection = open(path)?;
    let schema = "
        PRAGMA journal_mode = WAL;
        CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
        CREATE TABLE orders (
            id INTEGER PRIMARY KEY,
            customer INTEGER NOT NULL REFERENCES customers (id),
            cents INTEGER NOT NULL,
            note BLOB
        );
        CREATE INDEX orders_by_customer ON orders (customer, cents);
    ";
    connection.execute_batch(schema).map_err(|error| sqlite_error(path, &error))?;
    Ok(connection)
}

fn write(connection: &Connection, path: &Path) -> Result<u32, Error> {
    let transaction = |batch: u32| {
        connection.execute_batch("BEGIN")?;
        for row in 0..20 {
            let customer = batch * 20 + row;
            connection
                .execute("INSERT INTO customers VALUES (?1, 'customer ' || ?1)", [customer])?;
            connection.execute(
                "INSERT INTO orders (customer, cents, note) VALUES (?1, ?1 * 7, zeroblob(500))",
                [customer],
            )?;
        }
        connection.execute("UPDATE orders SET cents = cents + 1 WHERE id % 3 = 0", [])?;
        connection.execute("DELETE FROM orders WHERE id % 11 = 0", [])?;
        connection.execute_batch("COMMIT")
    };
    const COMMITS: u32 = 50;
    for batch in 0..COMMITS {
        transaction(batch).map_err(|error: rusqlite::Error| sqlite_error(path, &error))?;
    }
    Ok(COMMITS)
}

/// Every page as an application sees it: the serialised image of the database.
fn content(connection: &mut Connection, path: &Path) -> Result<Vec<u8>, Error> {
    let image = connection.serialize("main").map_err(|error| sqlite_error(path, &error))?;
    Ok(image.to_vec())
}

async fn wait_until_shipped(replicator: &Replicator, path: &Path) -> Result<(), Error> {
    // The watcher needs a moment to see the last commit.
    let began = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if let Ok(status) = replicator.status("shop").await
            && status.up_to_date
        {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            let problem = format!("its commits were not in storage after {PATIENCE:?}");
            return Err(Error::Demo { path: path.to_owned(), problem });
        }
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { what: format!("{}: cannot be removed", path.display()), source })
        }
        _ => Ok(()),
    }
}

fn sqlite_error(path: &Path, error: &rusqlite::Error) -> Error {
    Error::Demo { path: path.to_owned(), problem: error.to_string() }
}
