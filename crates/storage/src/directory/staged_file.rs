//! A file on its way to become an object.
//!
//! Invariant: a key names a whole object or none. Bytes and metadata are written to a hidden file
//! in the same directory and synced; only then does the file get its name. A crash leaves the hidden
//! file, which listings pass over and remove a day later.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use tempfile::NamedTempFile;
use walrust_engine::ErrorClass;

use super::fault::Fault;
use super::lock::DirectoryLock;
use super::stored_file;
use crate::{Condition, Metadata};

/// How the names of hidden files begin.
pub(super) const PREFIX: &str = ".walrust-tmp-";

/// How much of a body is in memory at once.
const STEP_BYTES: usize = 64 * 1024;

/// A synced file without a name of its own.
pub(super) struct StagedFile<'a> {
    file: NamedTempFile,
    directory: &'a Path,
    etag: String,
}

impl<'a> StagedFile<'a> {
    /// Writes `size` bytes of `body` and the metadata to a hidden file in `directory`.
    pub(super) fn write(
        directory: &'a Path,
        body: impl Read,
        size: u64,
        metadata: &Metadata,
    ) -> Result<Self, Fault> {
        create_directories(directory)?;
        // As any other file that the user creates; tempfile would make it private.
        let mut file = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory)
            .map_err(|error| Fault::io("create a file in", directory, &error))?;
        let failed = |error: io::Error| Fault::io("write to", directory, &error);
        let written = copy(body.take(size), &mut file).map_err(failed)?;
        if written != size {
            let reason = format!("the file has {written} bytes, {size} were expected");
            return Err(Fault::new(ErrorClass::Permanent, reason));
        }
        stored_file::write_metadata(file.as_file(), metadata).map_err(failed)?;
        file.as_file().set_modified(SystemTime::now()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        let etag = stored_file::etag(&file.as_file().metadata().map_err(failed)?);
        Ok(Self { file, directory, etag })
    }

    /// Gives the file its name, if the condition holds, and returns its `ETag`.
    pub(super) fn publish(self, path: &Path, condition: &Condition) -> Result<String, Fault> {
        match condition {
            Condition::IfAbsent => self.link(path)?,
            Condition::IfMatch(etag) => {
                let _lock = DirectoryLock::acquire(self.directory)?;
                if current_etag(path)?.as_deref() != Some(etag) {
                    return Err(not_met("the object has been replaced or is gone"));
                }
                rename(self.file, path)?;
            }
            Condition::None => {
                let _lock = DirectoryLock::acquire(self.directory)?;
                rename(self.file, path)?;
            }
        }
        sync_directory(self.directory)?;
        Ok(self.etag)
    }
}

impl StagedFile<'_> {
    fn link(&self, path: &Path) -> Result<(), Fault> {
        match fs::hard_link(self.file.path(), path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // The caller may take it for its own earlier put, whose directory entry never
                // reached the disk.
                sync_directory(self.directory)?;
                Err(not_met("an object exists already"))
            }
            Err(error) => Err(Fault::io("name", path, &error)),
        }
    }
}

/// Fails if `path` exists, before anything large is written for nothing.
pub(super) fn refuse_existing(path: &Path, condition: &Condition) -> Result<(), Fault> {
    match (condition, path.parent()) {
        (Condition::IfAbsent, Some(directory)) if path.symlink_metadata().is_ok() => {
            sync_directory(directory)?;
            Err(not_met("an object exists already"))
        }
        _ => Ok(()),
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> Result<(), Fault> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Fault::io("sync", directory, &error))
}

fn not_met(reason: &str) -> Fault {
    Fault::new(ErrorClass::Precondition, reason)
}

fn current_etag(path: &Path) -> Result<Option<String>, Fault> {
    match fs::metadata(path) {
        Ok(status) => Ok(Some(stored_file::etag(&status))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Fault::io("read", path, &error)),
    }
}

fn rename(file: NamedTempFile, path: &Path) -> Result<(), Fault> {
    file.persist(path).map_err(|failed| Fault::io("name", path, &failed.error))?;
    Ok(())
}

fn copy(from: impl Read, to: &mut impl Write) -> io::Result<u64> {
    let mut from = BufReader::with_capacity(STEP_BYTES, from);
    let mut written = 0;
    loop {
        let step = from.fill_buf()?;
        if step.is_empty() {
            return Ok(written);
        }
        to.write_all(step)?;
        let length = step.len();
        written += length as u64;
        from.consume(length);
    }
}

/// Creates a directory with its parents and makes each of their names durable.
fn create_directories(directory: &Path) -> Result<(), Fault> {
    if directory.is_dir() {
        return Ok(());
    }
    let Some(parent) = directory.parent() else { return Ok(()) };
    create_directories(parent)?;
    match fs::create_dir(directory) {
        // Whoever creates it at the same time may crash before the sync.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
        Err(error) => return Err(Fault::io("create", directory, &error)),
        Ok(()) => {}
    }
    sync_directory(parent)
}
