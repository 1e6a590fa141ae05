//! Takes files that a history has left behind out of its tree.
//!
//! Invariant: planners go by names, and see only files whose names cannot lead them from one branch
//! to another. Where names leave no doubt, nothing is read.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use walrust_engine::manifest::{FileEntry, Manifest};
use walrust_engine::{
    Branches, ErrorClass, Layout, StateChange, StateChanges, StoredFile, Tree, find_branches,
};
use walrust_ltx::FileName;
use walrust_storage::ObjectStore;

use crate::file_description::{HEADERS, read_ends};
use crate::{HistoryError, patiently};

/// Takes the files that are not on the branch that goes on out of a tree and returns them; see
/// [`walrust_engine::find_branches`]. Files that retention has given up are left alone.
///
/// # Errors
/// If storage fails.
pub(crate) async fn take_abandoned(
    store: &dyn ObjectStore,
    tree: &mut Tree,
    manifest: Option<&Manifest>,
) -> Result<Vec<StoredFile>, HistoryError> {
    let abandoned = find_abandoned(store, tree, manifest, &BTreeSet::new()).await?;
    Ok(tree.files.extract_if(.., |file| abandoned.contains(&file.name)).collect())
}

/// The files of a tree that are not on the branch that goes on, as whoever owns the name sees it: `own`
/// are the files that it vouches for.
///
/// # Errors
/// If storage fails.
pub async fn find_abandoned(
    store: &dyn ObjectStore,
    tree: &Tree,
    manifest: Option<&Manifest>,
    own: &BTreeSet<FileName>,
) -> Result<BTreeSet<FileName>, HistoryError> {
    if tree.layout != Layout::Walrust {
        // Another program's files overlap where they will, and have levels.
        return Ok(BTreeSet::new());
    }
    let retired = manifest.map(Manifest::retired_names).unwrap_or_default();
    let files: BTreeMap<FileName, &StoredFile> = tree
        .files
        .iter()
        .filter(|file| !retired.contains(&file.name))
        .map(|file| (file.name, file))
        .collect();
    let mut changes = StateChanges::new();
    loop {
        match find_branches(files.keys().copied(), &changes) {
            Branches::Abandoned(abandoned) => return Ok(abandoned),
            Branches::Unknown(names) => {
                changes.extend(recorded(&names, &files, manifest));
                let unknown = names.iter().filter(|name| !changes.contains_key(name));
                let unknown = unknown.filter_map(|name| files.get(name).copied());
                let read = read(store, unknown).await?;
                changes.extend(read);
                for (name, change) in &mut changes {
                    if let Some(change) = change {
                        change.is_own = own.contains(name);
                    }
                }
            }
        }
    }
}

/// What the manifest says of some files, as far as they have the size that they should have.
fn recorded(
    names: &BTreeSet<FileName>,
    files: &BTreeMap<FileName, &StoredFile>,
    manifest: Option<&Manifest>,
) -> StateChanges {
    let entries = manifest.iter().flat_map(|manifest| &manifest.files);
    let known = entries.filter_map(|entry| {
        let name = entry.file_name().filter(|name| names.contains(name))?;
        files.get(&name).filter(|file| file.size == entry.size)?;
        Some((name, Some(state_change(entry)?)))
    });
    known.collect()
}

fn state_change(entry: &FileEntry) -> Option<StateChange> {
    let from = match &entry.pre {
        Some(pre) => Some(pre.parse().ok()?),
        None => None,
    };
    let timestamp_ms = entry.created.parse::<Timestamp>().ok()?.as_millisecond();
    Some(StateChange { from, to: entry.post.parse().ok()?, timestamp_ms, is_own: false })
}

/// What files say of themselves.
async fn read(
    store: &dyn ObjectStore,
    files: impl Iterator<Item = &StoredFile>,
) -> Result<StateChanges, HistoryError> {
    let reads = files.map(|file| async move {
        let ends = match patiently(|| read_ends(store, file)).await {
            // It was deleted meanwhile: a plan that wants it says so.
            Err(error) if error.class() == ErrorClass::NotFound => None,
            ends => ends?,
        };
        let change = ends.and_then(|ends| {
            let (from, timestamp_ms) = (ends.header.pre_apply, ends.header.timestamp_ms);
            Some(StateChange { from, to: ends.post_apply?, timestamp_ms, is_own: false })
        });
        Ok::<_, HistoryError>((file.name, change))
    });
    let reads: Vec<_> = reads.collect();
    futures_util::stream::iter(reads).buffered(HEADERS).try_collect().await
}
