//! `walrust list`: what is in storage.

use std::collections::BTreeSet;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use walrust_engine::manifest::Writer;
use walrust_engine::{StoredFile, Tree, database_names, manifest_key, restorable_txids};
use walrust_history::{History, HistoryError, RestorableRange, patiently, refuse_newer_formats};
use walrust_storage::ObjectStore;

use super::{StorageArgs, aligned, human_bytes, print, print_json, rfc3339, table};
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
    let keys: BTreeSet<&str> = listing.iter().map(|entry| entry.key.as_str()).collect();
    let names = database_names(keys.iter().copied());
    let with_manifest = names.iter().filter(|name| keys.contains(manifest_key(name).as_str()));
    refuse_newer_formats(store, with_manifest.cloned()).await?;
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
    let history = History::read(store, name).await?;
    if history.tree.files.is_empty() {
        return Err(HistoryError::UnknownName { name: name.to_owned(), url: store.url() }.into());
    }
    let ranges = history.restorable_ranges(store).await?;
    let stored = last_stored(store, &history).await?;
    if as_json {
        return print_json(&one_as_json(&history, &ranges, stored, &store.url()));
    }
    let entries = history.entries();
    let mut table = table(["KIND", "FIRST TXID", "LAST TXID", "SIZE", "CREATED"]);
    for file in by_name(&history) {
        table.add_row([
            kind(&history, file).to_owned(),
            file.name.min.to_string(),
            file.name.max.to_string(),
            human_bytes(file.size),
            entries.get(&file.name).map_or_else(String::new, |entry| entry.created.clone()),
        ]);
    }
    let mut text = format!(
        "{} in {} ({})\n{}\n",
        history.name,
        store.url(),
        history.tree.layout,
        aligned(table, &[3])
    );
    text += &format!(
        "{} snapshots and {} incrementals, {}",
        snapshots(&history.tree),
        history.tree.files.len() - snapshots(&history.tree),
        human_bytes(size(&history.tree))
    );
    if let Some(stored) = stored {
        text += &format!("; the last one was stored at {stored:.3}");
    }
    if !history.abandoned.is_empty() {
        let count = history.abandoned.len();
        text += &format!(
            "\n{count} files are of a branch that the history has left behind: another writer had \
             continued the same state; nothing is restored from them"
        );
    }
    if let Some(manifest) = &history.manifest {
        let Writer { host, epoch, .. } = &manifest.writer;
        text += &format!("\nlineage {}, written by {host} (epoch {epoch})", manifest.lineage);
    }
    for range in &ranges {
        let RestorableRange { first, last, states } = range;
        text += &format!("\n{states} states can be restored, {first} to {last}");
    }
    if ranges.is_empty() {
        text += "\nno state can be restored";
    }
    print(&format!("{text}\n"))
}

/// When storage got the last of the files, by its own clock.
async fn last_stored(
    store: &dyn ObjectStore,
    history: &History,
) -> Result<Option<Timestamp>, Error> {
    let newest = history.tree.files.iter().max_by_key(|file| (file.name.max, file.name.min));
    let Some(newest) = newest else { return Ok(None) };
    let meta = patiently(|| store.head(&newest.key)).await?;
    Ok(meta.modified.and_then(|time| Timestamp::try_from(time).ok()))
}

fn one_as_json(
    history: &History,
    ranges: &[RestorableRange],
    stored: Option<Timestamp>,
    url: &str,
) -> Value {
    let entries = history.entries();
    let files = by_name(history).into_iter().map(|file| {
        json!({
            "key": file.key,
            "min_txid": file.name.min.to_string(),
            "max_txid": file.name.max.to_string(),
            "snapshot": file.name.is_snapshot(),
            "abandoned": is_abandoned(history, file),
            "size": file.size,
            "created": entries.get(&file.name).map(|entry| &entry.created),
        })
    });
    let ranges = ranges.iter().map(|range| {
        json!({
            "first_txid": range.first.txid.to_string(),
            "last_txid": range.last.txid.to_string(),
            "first_time": range.first.timestamp_ms.map(rfc3339),
            "last_time": range.last.timestamp_ms.map(rfc3339),
            "states": range.states,
        })
    });
    let manifest = history.manifest.as_ref();
    let mut result = summary(&history.name, &history.tree);
    result["url"] = json!(url);
    result["files"] = files.collect();
    result["ranges"] = ranges.collect();
    result["lineage"] = json!(manifest.map(|manifest| &manifest.lineage));
    result["writer"] = json!(manifest.map(|manifest| &manifest.writer));
    result["last_stored"] = json!(stored.map(|time| format!("{time:.3}")));
    result
}

/// All files of a history in the order of their names.
fn by_name(history: &History) -> Vec<&StoredFile> {
    let mut files: Vec<_> = history.tree.files.iter().chain(&history.abandoned).collect();
    files.sort_by(|one, other| one.key.cmp(&other.key));
    files
}

fn is_abandoned(history: &History, file: &StoredFile) -> bool {
    history.abandoned.iter().any(|abandoned| abandoned.name == file.name)
}

fn kind(history: &History, file: &StoredFile) -> &'static str {
    match file.name.is_snapshot() {
        _ if is_abandoned(history, file) => "abandoned",
        true => "snapshot",
        false => "incremental",
    }
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
