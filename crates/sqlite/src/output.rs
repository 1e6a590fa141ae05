//! The file that a restore creates or replaces.
//!
//! Invariant: nothing under the name of the output, or beside it, changes before the new file is
//! complete and on the disk. Then it gets the name in one step, and whatever belongs to a database
//! that it replaces goes (`set_aside.rs`).

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::RestoreError;
use crate::database_files::sidecar;
use crate::set_aside::{SIDECARS, SetAside};

/// A file that has not got its name yet.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    force: bool,
    temporary: NamedTempFile,
}

/// Refuses an output that exists, or beside which there are sidecars that SQLite would replay.
///
/// # Errors
/// If `force` is false and something is there, or the output or a sidecar is a directory.
pub fn check_output(output: &Path, force: bool) -> Result<(), RestoreError> {
    let sidecars = SIDECARS.map(|suffix| sidecar(output, suffix));
    for path in std::iter::once(output).chain(sidecars.iter().map(PathBuf::as_path)) {
        if path.is_dir() {
            return Err(RestoreError::OutputIsDirectory { path: path.to_owned() });
        }
        // A dangling symbolic link is in the way as well.
        if !force && path.symlink_metadata().is_ok() {
            return Err(RestoreError::OutputExists { path: path.to_owned() });
        }
    }
    Ok(())
}

impl Output {
    /// Begins a file that is going to be at `path`; the directories above it are created.
    ///
    /// # Errors
    /// If something is in the way and `force` is false, or the file cannot be created.
    pub(crate) fn begin(path: &Path, force: bool) -> Result<Self, RestoreError> {
        check_output(path, force)?;
        let directory = directory_of(path);
        fs::create_dir_all(directory)
            .map_err(RestoreError::io("create the directory", directory))?;
        let temporary = tempfile::Builder::new()
            .prefix(".walrust-restore-")
            // The umask decides, as for files of other programs.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory)
            .map_err(RestoreError::io("create a temporary file in", directory))?;
        Ok(Self { path: path.to_owned(), force, temporary })
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        self.temporary.as_file()
    }

    /// Where the file is going to be.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the file is now.
    pub(crate) fn temporary_path(&self) -> &Path {
        self.temporary.path()
    }

    /// Gives the file, which is complete and synced, its name.
    ///
    /// # Errors
    /// If something is in the way, or the name cannot be given. The output is untouched then. Only
    /// if at last the name cannot be brought to the disk the new file is there all the same.
    pub(crate) fn publish(self) -> Result<(), RestoreError> {
        check_output(&self.path, self.force)?;
        let directory = directory_of(&self.path);
        let create =
            |error: tempfile::PersistError| RestoreError::io("create", &self.path)(error.error);
        if self.force {
            let aside = SetAside::sidecars_of(&self.path)?;
            // After a loss of power no WAL of the old file may be beside the new one.
            sync_directory(directory)?;
            self.temporary.persist(&self.path).map_err(create)?;
            aside.remove();
        } else {
            self.temporary.persist_noclobber(&self.path).map_err(create)?;
        }
        sync_directory(directory)
    }
}

/// The directory that a file is in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn sync_directory(directory: &Path) -> Result<(), RestoreError> {
    let sync = File::open(directory).and_then(|directory| directory.sync_all());
    sync.map_err(RestoreError::io("sync the directory", directory))
}
