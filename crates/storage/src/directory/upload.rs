//! Bringing one object into a directory: temporary file, sync, name, sync.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;
use walrust_engine::ErrorClass;

use super::attributes::Attributes;
use super::{Place, STEP, lock};
use crate::key::RESERVED;
use crate::{Condition, Metadata, PutReceipt, StorageError};

/// How names of temporary files start.
pub(super) fn temporary_prefix() -> String {
    format!("{RESERVED}tmp-")
}

/// Stores an object.
pub(super) fn put(
    place: &Place,
    body: &mut dyn Read,
    metadata: Metadata,
    condition: &Condition,
) -> Result<PutReceipt, StorageError> {
    let fail = |error| failed(place, error);
    let path = place.path();
    let directory = path.parent().unwrap_or(&place.root);
    // Before the bytes are copied: what exists already need not be copied to be refused.
    if *condition == Condition::IfAbsent && path.try_exists().map_err(fail)? {
        return Err(exists(place, directory));
    }
    make_directories(directory).map_err(fail)?;
    // The file removes itself if anything below fails.
    let mut file = tempfile::Builder::new()
        .prefix(&temporary_prefix())
        // The umask decides, as for files of other programs.
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .map_err(fail)?;
    copy(body, file.as_file_mut()).map_err(fail)?;
    let mut attributes = Attributes::new(metadata);
    attributes.set(file.as_file()).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    let etag = attributes.etag(&file.as_file().metadata().map_err(fail)?);
    publish(place, directory, file, condition)?;
    sync_directory(directory).map_err(fail)?;
    Ok(PutReceipt { etag })
}

/// Gives the temporary file its name, if the condition holds.
fn publish(
    place: &Place,
    directory: &Path,
    file: NamedTempFile,
    condition: &Condition,
) -> Result<(), StorageError> {
    let fail = |error| failed(place, error);
    if *condition == Condition::IfAbsent {
        return match file.persist_noclobber(place.path()) {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Err(exists(place, directory))
            }
            Err(error) => Err(fail(error.error)),
        };
    }
    let _lock = lock::take(&place.root).map_err(fail)?;
    if let Condition::IfMatch(wanted) = condition {
        match place.open() {
            Ok((_, meta)) if meta.etag == *wanted => {}
            Ok(_) => return Err(refused(place, "the object has changed")),
            Err(error) if error.class() == ErrorClass::NotFound => {
                return Err(refused(place, "the object to replace is gone"));
            }
            Err(error) => return Err(error),
        }
    }
    file.persist(place.path()).map(drop).map_err(|error| fail(error.error))
}

/// The object is there. Whoever compares it with what it wanted to store may take it for its own
/// earlier attempt, which may have ended before the name was synced.
fn exists(place: &Place, directory: &Path) -> StorageError {
    match sync_directory(directory) {
        Ok(()) => refused(place, "the object exists already"),
        Err(error) => failed(place, error),
    }
}

/// A directory that vanishes during an upload can be made again: this is no missing object.
fn failed(place: &Place, error: io::Error) -> StorageError {
    match error.kind() {
        io::ErrorKind::NotFound => {
            let class = ErrorClass::Transient;
            StorageError::new(place.operation, place.url(), &place.key, class, error)
        }
        _ => place.error(error),
    }
}

fn refused(place: &Place, reason: &str) -> StorageError {
    let class = ErrorClass::Precondition;
    StorageError::new(place.operation, place.url(), &place.key, class, reason)
}

fn copy(from: &mut dyn Read, to: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; STEP];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes a directory and those above it. Each new name is synced, or a crash could take it away
/// together with objects that were reported as stored.
fn make_directories(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().ok_or(io::ErrorKind::NotFound)?;
    make_directories(parent)?;
    match fs::create_dir(directory) {
        Ok(()) => sync_directory(parent),
        // Another upload was faster; that its name is on disk is as important to us.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {
            sync_directory(parent)
        }
        Err(error) => Err(error),
    }
}

/// Brings the names in a directory to disk.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
