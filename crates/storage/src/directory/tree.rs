//! Listing and deleting objects in a directory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::upload::{sync_directory, temporary_prefix};
use super::{Place, lock};
use crate::key::RESERVED;
use crate::{DeleteFailure, ListEntry, StorageError};

/// A temporary file that nobody has written for so long belongs to a process that is gone.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// Lists the objects whose keys start with the key of `place` and are greater than `after`.
pub(super) fn list(place: &Place, after: Option<&str>) -> Result<Vec<ListEntry>, StorageError> {
    let prefix = place.key.as_str();
    let mut entries = Vec::new();
    // Directories that are still to be read, with the start of the keys in them.
    let top = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
    let mut open: Vec<(PathBuf, String)> = vec![(place.root.join(top), top.to_owned())];
    while let Some((directory, start)) = open.pop() {
        let names = match fs::read_dir(&directory) {
            Ok(names) => names,
            // Nothing was stored here, or it has been removed since we saw it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(place.error(error)),
        };
        for entry in names {
            let entry = entry.map_err(|error| place.error(error))?;
            // What has no name in UTF-8 was not stored by walrust and cannot be a key.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with(RESERVED) {
                remove_if_abandoned(&entry.path(), &name);
                continue;
            }
            let key = format!("{start}{name}");
            let Some(found) =
                gone_is_none(fs::metadata(entry.path())).map_err(|error| place.error(error))?
            else {
                continue;
            };
            if found.is_dir() {
                let below = format!("{key}/");
                if below.starts_with(prefix) || prefix.starts_with(&below) {
                    open.push((entry.path(), below));
                }
            } else if found.is_file()
                && key.starts_with(prefix)
                && after.is_none_or(|after| key.as_str() > after)
            {
                entries.extend(describe(place, &entry.path(), key)?);
            }
        }
    }
    entries.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    Ok(entries)
}

/// The entry of an object, or nothing if it has been deleted meanwhile.
fn describe(place: &Place, path: &Path, key: String) -> Result<Option<ListEntry>, StorageError> {
    let about = Place { key, ..place.clone() };
    let found = gone_is_none(File::open(path)).and_then(|file| match file {
        Some(file) => about.describe(&file).map(Some),
        None => Ok(None),
    });
    let meta = found.map_err(|error| about.error(error))?;
    Ok(meta.map(|meta| ListEntry {
        key: meta.key,
        size: meta.size,
        etag: meta.etag,
        modified: meta.modified,
    }))
}

fn gone_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tidying up is a courtesy: if it fails, the file is still no object.
fn remove_if_abandoned(path: &Path, name: &str) {
    if !name.starts_with(&temporary_prefix()) {
        return;
    }
    let modified = fs::symlink_metadata(path).and_then(|found| found.modified());
    let age = modified.map(|modified| SystemTime::now().duration_since(modified));
    if matches!(age, Ok(Ok(age)) if age > ABANDONED) {
        let removed = fs::remove_file(path);
        tracing::debug!(path = %path.display(), ?removed, "an upload was abandoned");
    }
}

/// Deletes objects and returns those that may still be there. `whole` is the store.
pub(super) fn delete(
    whole: &Place,
    places: Vec<Place>,
) -> Result<Vec<DeleteFailure>, StorageError> {
    // Between the comparison and the rename of an upload nothing may be deleted, or it would be
    // back.
    let _lock = match lock::take(&whole.root) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(whole.error(error)),
    };
    let mut failures = Vec::new();
    let mut fail = |place: &Place, error| {
        failures.push(DeleteFailure { key: place.key.clone(), error: place.error(error) });
    };
    let mut changed: BTreeSet<PathBuf> = BTreeSet::new();
    let mut deleted = Vec::new();
    for place in places {
        let path = place.path();
        match fs::remove_file(&path) {
            Ok(()) => {
                changed.extend(path.parent().map(Path::to_owned));
                deleted.push(place);
            }
            // A file in place of a directory of the key: there is no such object either.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::NotADirectory
                        | io::ErrorKind::IsADirectory
                ) => {}
            Err(error) => fail(&place, error),
        }
    }
    for directory in changed {
        let Err(error) = sync_directory(&directory) else { continue };
        // They are gone for now, and might be back after a crash.
        let (kind, text) = (error.kind(), error.to_string());
        for place in deleted.iter().filter(|place| place.path().parent() == Some(&directory)) {
            fail(place, io::Error::new(kind, text.clone()));
        }
    }
    Ok(failures)
}
