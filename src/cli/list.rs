//! `walrust list`: what is in storage.

use clap::Args;
use serde_json::{Value, json};
use walrust_engine::{Tree, database_names, restorable_txids};
use walrust_history::{History, HistoryError};
use walrust_storage::ObjectStore;

use super::{StorageArgs, aligned, human_bytes, print, print_json, table};
use crate::Error;
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Show the files and states of this database
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    storage: StorageArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ListArgs, config: &Config) -> Result<(), Error> {
    let store = args.storage.open(config).await?;
    match &args.name {
        Some(name) => list_one(store.as_ref(), name.trim_matches('/'), args.json).await,
        None => list_all(store.as_ref(), args.json).await,
    }
}

async fn list_all(store: &dyn ObjectStore, as_json: bool) -> Result<(), Error> {
    let listing = store.list("", None).await?;
    let names = database_names(listing.iter().map(|entry| entry.key.as_str()));
    let trees = names.iter().map(|name| {
        (name, Tree::read(name, listing.iter().map(|entry| (entry.key.as_str(), entry.size))))
    });
    let trees: Vec<_> = trees.collect();
    if as_json {
        let databases: Vec<_> = trees.iter().map(|(name, tree)| summary(name, tree)).collect();
        return print_json(&json!({ "url": store.url(), "databases": databases }));
    }
    if trees.is_empty() {
        return print(&format!("there are no databases in {}\n", store.url()));
    }
    let mut table = table(["NAME", "SNAPSHOTS", "FILES", "SIZE", "NEWEST TXID"]);
    for (name, tree) in &trees {
        let newest = restorable_txids(tree).last().map_or("none".to_owned(), ToString::to_string);
        table.add_row([
            (*name).clone(),
            snapshots(tree).to_string(),
            tree.files.len().to_string(),
            human_bytes(size(tree)),
            newest,
        ]);
    }
    print(&format!("{}\n", aligned(table, &[1, 2, 3])))
}

async fn list_one(store: &dyn ObjectStore, name: &str, as_json: bool) -> Result<(), Error> {
    let History { tree, manifest, .. } = History::read(store, name).await?;
    if tree.files.is_empty() {
        return Err(HistoryError::UnknownName { name: name.to_owned(), url: store.url() }.into());
    }
    let created = |key: &str| {
        let entries = manifest.iter().flat_map(|manifest| &manifest.files);
        let mut entries =
            entries.filter(|entry| key.ends_with(&format!("{}-{}.ltx", entry.min, entry.max)));
        entries.next().map(|entry| entry.created.clone())
    };
    if as_json {
        let files: Vec<_> = tree
            .files
            .iter()
            .map(|file| {
                json!({
                    "key": file.key,
                    "min_txid": file.name.min.to_string(),
                    "max_txid": file.name.max.to_string(),
                    "snapshot": file.name.is_snapshot(),
                    "size": file.size,
                    "created": created(&file.key),
                })
            })
            .collect();
        let mut result = summary(name, &tree);
        result["url"] = json!(store.url());
        result["files"] = json!(files);
        result["lineage"] = json!(manifest.as_ref().map(|manifest| &manifest.lineage));
        return print_json(&result);
    }
    let mut table = table(["KIND", "FIRST TXID", "LAST TXID", "SIZE", "CREATED"]);
    for file in &tree.files {
        table.add_row([
            if file.name.is_snapshot() { "snapshot" } else { "incremental" }.to_owned(),
            file.name.min.to_string(),
            file.name.max.to_string(),
            human_bytes(file.size),
            created(&file.key).unwrap_or_default(),
        ]);
    }
    let points = restorable_txids(&tree);
    let range = match (points.first(), points.last()) {
        (Some(first), Some(last)) => {
            format!("{} states can be restored, TXID {first} to {last}", points.len())
        }
        _ => "no state can be restored".to_owned(),
    };
    print(&format!(
        "{name} in {} ({})\n{}\n{range}\n",
        store.url(),
        tree.layout,
        aligned(table, &[3])
    ))
}

fn summary(name: &str, tree: &Tree) -> Value {
    let points = restorable_txids(tree);
    json!({
        "name": name,
        "layout": tree.layout.to_string(),
        "snapshots": snapshots(tree),
        "file_count": tree.files.len(),
        "size": size(tree),
        "oldest_txid": points.first().map(ToString::to_string),
        "newest_txid": points.last().map(ToString::to_string),
        "states": points.len(),
    })
}

fn snapshots(tree: &Tree) -> usize {
    tree.files.iter().filter(|file| file.name.is_snapshot()).count()
}

fn size(tree: &Tree) -> u64 {
    tree.files.iter().map(|file| file.size).sum()
}
