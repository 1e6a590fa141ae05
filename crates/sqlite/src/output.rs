//! The file that a restore creates or replaces.
//!
//! Invariant: nothing under the name of the output, or beside it, changes before the new file is
//! complete and on the disk. Then it gets the name in one step, and whatever belongs to a database
//! that it replaces goes (`set_aside.rs`).
//!
//! Until then it is a temporary file beside the output. That goes, with the directories that were
//! made for it, on every way out but a kill or a loss of power; what these leave, the next restore to
//! the same directory removes.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::RestoreError;
use crate::database_files::sidecar;
use crate::set_aside::{SIDECARS, SetAside, settle};

/// How names of temporary files begin, and how long they are.
const PREFIX: &str = ".walrust-restore-";
const LENGTH: usize = PREFIX.len() + 6;

/// A file that has not got its name yet.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    force: bool,
    /// Locked, so that nobody takes it for one that was left behind.
    temporary: NamedTempFile,
    /// Goes after the file that is in them.
    directories: MadeDirectories,
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
        let directories = MadeDirectories::make(directory)
            .map_err(RestoreError::io("create the directory", directory))?;
        let temporary = create_locked(directory)
            .map_err(RestoreError::io("create a temporary file in", directory))?;
        remove_left_behind(directory);
        Ok(Self { path: path.to_owned(), force, temporary, directories })
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        self.temporary.as_file()
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
        let Self { path, force, temporary, directories } = self;
        check_output(&path, force)?;
        let directory = directory_of(&path);
        let create = |error: tempfile::PersistError| RestoreError::io("create", &path)(error.error);
        if force {
            settle(&path);
            let aside = SetAside::sidecars_of(&path)?;
            // After a loss of power no WAL of the old file may be beside the new one.
            sync_directory(directory)?;
            temporary.persist(&path).map_err(create)?;
            aside.remove();
        } else {
            temporary.persist_noclobber(&path).map_err(create)?;
        }
        directories.keep();
        sync_directory(directory)
    }
}

/// Directories that were made for a file, the outermost first. Dropped, those that are empty go.
#[derive(Debug, Default)]
struct MadeDirectories(Vec<PathBuf>);

impl MadeDirectories {
    /// Makes a directory and those above it, as far as they are missing.
    fn make(directory: &Path) -> io::Result<Self> {
        let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.is_dir();
        let missing: Vec<&Path> = directory.ancestors().take_while(missing).collect();
        let mut made = Self::default();
        for path in missing.into_iter().rev() {
            match fs::create_dir(path) {
                Ok(()) => made.0.push(path.to_owned()),
                // Somebody else was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(made)
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for MadeDirectories {
    fn drop(&mut self) {
        for path in self.0.drain(..).rev() {
            match fs::remove_dir(&path) {
                // Somebody else has put something into it.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return,
                Err(error) => {
                    let path = path.display();
                    tracing::warn!(%path, %error, "cannot remove a directory that was made");
                }
                Ok(()) => {}
            }
        }
    }
}

/// Creates a temporary file and locks it, where the file system has locks.
fn create_locked(directory: &Path) -> io::Result<NamedTempFile> {
    const ATTEMPTS: u32 = 16;
    for _ in 0..ATTEMPTS {
        let file = tempfile::Builder::new()
            .prefix(PREFIX)
            // The umask decides, as for files of other programs.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory)?;
        if let Err(fs::TryLockError::WouldBlock) = file.as_file().try_lock() {
            continue;
        }
        // Somebody who cleaned up may have had the lock, and removed the file, in between.
        let inode = file.as_file().metadata()?.ino();
        if fs::symlink_metadata(file.path()).is_ok_and(|found| found.ino() == inode) {
            return Ok(file);
        }
    }
    Err(io::Error::other("others remove temporary files as fast as they are made"))
}

/// Removes what restores have left in a directory that were killed: nobody holds their locks.
fn remove_left_behind(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let is_temporary = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX) && name.len() == LENGTH);
        if !is_temporary || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.path();
        // One that cannot be opened or locked is somebody else's affair.
        let Ok(file) = File::options().read(true).write(true).open(&path) else { continue };
        if file.try_lock().is_ok()
            && let Err(error) = fs::remove_file(&path)
        {
            let path = path.display();
            tracing::warn!(%path, %error, "cannot remove what a restore that was killed has left");
        }
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
