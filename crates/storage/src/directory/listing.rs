//! The objects below a directory.
//!
//! Invariant: what cannot be read fails the listing; only what is gone by now, what is no regular
//! file and what the store hides is left out.

use std::fs::{self, DirEntry, FileType};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::fault::Fault;
use super::staged_file;
use super::stored_file;
use crate::ListEntry;
use crate::object_key::{self, RESERVED};

/// After this time nobody writes to a hidden file any more.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// Lists what is below `root`, sorted by key.
pub(super) fn list(
    root: &Path,
    prefix: &str,
    after: Option<&str>,
) -> Result<Vec<ListEntry>, Fault> {
    let mut listing = Listing { prefix, after, found: Vec::new(), pending: Vec::new() };
    // Only the directory that the prefix names, not the databases next to it.
    let start = prefix.rsplit_once('/').map_or("", |(start, _)| start);
    listing.pending.push((root.join(start), String::from(&prefix[..start.len()])));
    while let Some((directory, key)) = listing.pending.pop() {
        listing.read(&directory, &key)?;
    }
    listing.found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(listing.found)
}

struct Listing<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    found: Vec<ListEntry>,
    /// Directories to read, with their keys.
    pending: Vec<(PathBuf, String)>,
}

impl Listing<'_> {
    fn read(&mut self, directory: &Path, parent_key: &str) -> Result<(), Fault> {
        let failed = |error: &io::Error| Fault::io("list", directory, error);
        let entries = match fs::read_dir(directory) {
            Err(error) if is_gone(&error) => return Ok(()),
            entries => entries.map_err(|error| failed(&error))?,
        };
        for entry in entries {
            let entry = entry.map_err(|error| failed(&error))?;
            let kind = match entry.file_type() {
                Err(error) if is_gone(&error) => continue,
                kind => kind.map_err(|error| failed(&error))?,
            };
            self.add(&entry, kind, parent_key)?;
        }
        Ok(())
    }

    fn add(&mut self, entry: &DirEntry, kind: FileType, parent_key: &str) -> Result<(), Fault> {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { return Ok(()) };
        if name.starts_with(RESERVED) {
            remove_if_abandoned(entry, name);
            return Ok(());
        }
        let key = match parent_key {
            "" => name.to_owned(),
            parent => format!("{parent}/{name}"),
        };
        if kind.is_dir() {
            let inside = format!("{key}/");
            if inside.starts_with(self.prefix) || self.prefix.starts_with(&inside) {
                self.pending.push((entry.path(), key));
            }
            return Ok(());
        }
        let wanted = key.starts_with(self.prefix) && self.after.is_none_or(|after| *key > *after);
        if !wanted || !kind.is_file() || object_key::check(&key).is_err() {
            return Ok(());
        }
        match entry.metadata() {
            Ok(status) => self.found.push(stored_file::list_entry(key, &status)),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(Fault::io("read", &entry.path(), &error)),
        }
        Ok(())
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Removes what a crash left; a store that is only read may not allow it, which harms nothing.
fn remove_if_abandoned(entry: &DirEntry, name: &str) {
    if !name.starts_with(staged_file::PREFIX) {
        return;
    }
    let modified = entry.metadata().and_then(|status| status.modified());
    let age = modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    if age.is_some_and(|age| age > ABANDONED) {
        let path = entry.path();
        match fs::remove_file(&path) {
            Ok(()) => tracing::debug!(path = %path.display(), "removed an abandoned file"),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "cannot remove an abandoned file");
            }
        }
    }
}
