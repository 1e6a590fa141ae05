//! A database that is made only to be looked at.
//!
//! Invariant: its file has no name but for the moment in which SQLite opens it, so that nothing stays
//! behind, even of a process that is killed. Where the system has no files without a name it has one
//! for as long as it is needed.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempPath;

use crate::integrity_check::open_immutable;

const PREFIX: &str = ".walrust-scratch-";

/// The file of a database in the directory for temporary files.
#[derive(Debug)]
pub(crate) struct ScratchDatabase {
    directory: PathBuf,
    file: File,
    /// Its name, if it has to have one.
    name: Option<TempPath>,
}

impl ScratchDatabase {
    /// Creates an empty file in a directory.
    pub(crate) fn create(directory: &Path) -> io::Result<Self> {
        if let Some(file) = create_unnamed(directory) {
            return Ok(Self { directory: directory.to_owned(), file, name: None });
        }
        let file = tempfile::Builder::new().prefix(PREFIX).tempfile_in(directory)?;
        let (file, name) = file.into_parts();
        Ok(Self { directory: directory.to_owned(), file, name: Some(name) })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Where the file is, for messages.
    pub(crate) fn path(&self) -> &Path {
        self.name.as_deref().unwrap_or(&self.directory)
    }

    /// Opens the database, of which nothing more is written.
    pub(crate) fn open(&self) -> rusqlite::Result<Connection> {
        match &self.name {
            Some(name) => open_immutable(name),
            None => {
                let name = self.link().map_err(|error| {
                    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
                    rusqlite::Error::SqliteFailure(code, Some(error.to_string()))
                })?;
                // SQLite has it open when the name goes.
                open_immutable(&name)
            }
        }
    }

    /// Gives the file a name for a moment.
    fn link(&self) -> io::Result<TempPath> {
        use rustix::fs::{AtFlags, CWD, linkat};
        let from = path_of_descriptor(&self.file);
        let link = |name: &Path| Ok(linkat(CWD, &from, CWD, name, AtFlags::SYMLINK_FOLLOW)?);
        let linked = tempfile::Builder::new().prefix(PREFIX).make_in(&self.directory, link)?;
        Ok(linked.into_temp_path())
    }
}

/// A file without a name, to which one can be given later.
fn create_unnamed(directory: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(open(directory, flags, Mode::RUSR | Mode::WUSR).ok()?);
    // Without /proc nothing leads to it.
    let (seen, open) = (fs::metadata(path_of_descriptor(&file)).ok()?, file.metadata().ok()?);
    ((seen.dev(), seen.ino()) == (open.dev(), open.ino())).then_some(file)
}

fn path_of_descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
