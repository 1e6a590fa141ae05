//! `walrust list`: what is in storage.

use clap::Args;
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde_json::{Value, json};
use walrust_engine::manifest::Writer;
use walrust_engine::{Layout, StoredFile, Tree, all_trees, restorable_txids};
use walrust_history::{History, RestorableRange, patiently};
use walrust_ltx::Txid;
use walrust_storage::ObjectStore;

use super::{StorageArgs, aligned, human_bytes, print, print_json, rfc3339, table};
use crate::Error;
use crate::config::Config;

/// Databases that are looked at together, if all are.
const HISTORIES: usize = 16;

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Show the files and states of this database only
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
    let listing = patiently(|| store.list("", None)).await?;
    let trees = all_trees(listing.iter().map(|entry| (entry.key.as_str(), entry.size)).collect());
    let summaries = trees.into_iter().map(|(name, tree)| async move {
        History::of_tree(store, &name, tree).await.map(|history| Summary::of(&history))
    });
    let summaries = futures_util::stream::iter(summaries).buffered(HISTORIES);
    let summaries: Vec<Summary> = summaries.try_collect().await?;
    if as_json {
        let databases: Vec<_> = summaries.iter().map(Summary::to_json).collect();
        return print_json(&json!({ "url": store.url(), "databases": databases }));
    }
    if summaries.is_empty() {
        return print(&format!("there are no databases in {}\n", store.url()));
    }
    let mut table = table(["NAME", "SNAPSHOTS", "FILES", "SIZE", "NEWEST TXID"]);
    for summary in summaries {
        let newest = summary.newest.map_or("none".to_owned(), |txid| txid.to_string());
        table.add_row([
            summary.name,
            summary.snapshots.to_string(),
            summary.files.to_string(),
            human_bytes(summary.size),
            newest,
        ]);
    }
    print(&format!("{}\n", aligned(table, &[1, 2, 3])))
}

async fn list_one(store: &dyn ObjectStore, name: &str, as_json: bool) -> Result<(), Error> {
    let history = History::read(store, name).await?;
    history.refuse_empty(store)?;
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
    let mut result = Summary::of(history).to_json();
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

/// What is told of each database.
struct Summary {
    name: String,
    layout: Layout,
    snapshots: usize,
    files: usize,
    size: u64,
    oldest: Option<Txid>,
    newest: Option<Txid>,
    states: usize,
}

impl Summary {
    fn of(History { name, tree, .. }: &History) -> Self {
        let states = restorable_txids(tree);
        Self {
            name: name.clone(),
            layout: tree.layout,
            snapshots: snapshots(tree),
            files: tree.files.len(),
            size: size(tree),
            oldest: states.first().copied(),
            newest: states.last().copied(),
            states: states.len(),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "layout": self.layout.to_string(),
            "snapshots": self.snapshots,
            "file_count": self.files,
            "size": self.size,
            "oldest_txid": self.oldest.map(|txid| txid.to_string()),
            "newest_txid": self.newest.map(|txid| txid.to_string()),
            "states": self.states,
        })
    }
}

fn snapshots(tree: &Tree) -> usize {
    tree.files.iter().filter(|file| file.name.is_snapshot()).count()
}

fn size(tree: &Tree) -> u64 {
    tree.files.iter().map(|file| file.size).sum()
}
