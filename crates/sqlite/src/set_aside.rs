//! The sidecars of a database that is going to be replaced.
//!
//! A WAL holds commits that the database file has not got, and SQLite replays it into whatever file
//! has that name. No system call replaces two files at once, so first SQLite brings everything into
//! one file, as it does for an application that closes. The replacement is then one rename, and
//! whenever the program dies the database is either the old one with all its commits or the new one.
//!
//! That needs a database which SQLite can read and nobody else has open. Otherwise its sidecars get
//! other names before the new file comes, and their own ones back if it does not come. A program that
//! dies between these two renames leaves the old file under its name, and beside it what belongs to
//! it: `<database>-wal.walrust-<random>`. Never is a WAL of the old database beside the new one.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::RestoreError;
use crate::connection::open_as_application;
use crate::database_files::sidecar;

/// The sidecars that SQLite would replay into, or trust beside, a database.
pub(crate) const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// How long others may hold the locks of the database.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

/// Sidecars that have other names for a moment. Dropped, they get their own ones back.
#[derive(Debug, Default)]
pub(crate) struct SetAside {
    /// Their own names, and those that they have.
    moved: Vec<(PathBuf, PathBuf)>,
}

impl SetAside {
    /// Gives other names to the sidecars of a database.
    ///
    /// # Errors
    /// If one of them cannot be renamed. They have their own names then.
    pub(crate) fn sidecars_of(database: &Path) -> Result<Self, RestoreError> {
        let mut aside = Self::default();
        for own in SIDECARS.map(|suffix| sidecar(database, suffix)) {
            let other = other_name(&own);
            match fs::rename(&own, &other) {
                Ok(()) => aside.moved.push((own, other)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(RestoreError::io("rename", &own)(error)),
            }
        }
        Ok(aside)
    }

    /// Removes them: the database that they belonged to is gone.
    pub(crate) fn remove(mut self) {
        for (_, path) in std::mem::take(&mut self.moved) {
            if let Err(error) = fs::remove_file(&path) {
                // The new database is in place, and SQLite looks at no file of this name.
                let path = path.display();
                tracing::warn!(%path, %error, "cannot remove what is left of the replaced database");
            }
        }
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        for (own, other) in &self.moved {
            if let Err(error) = fs::rename(other, own) {
                let (own, other) = (own.display(), other.display());
                tracing::error!(%own, %other, %error, "rename it back: it belongs to the database");
            }
        }
    }
}

/// Whether a database has commits, or pages to roll back, beside its file.
fn holds_commits(database: &Path) -> bool {
    // SQLite would follow a link, and what is replaced is the link.
    fs::symlink_metadata(database).is_ok_and(|found| found.is_file())
        && ["-wal", "-journal"].iter().any(|suffix| sidecar(database, suffix).exists())
}

/// Has SQLite bring into a database what its sidecars hold: opens it and closes it as an application
/// does. What cannot be read, or is in use, stays as it is.
pub(crate) fn settle(database: &Path) {
    if !holds_commits(database) {
        return;
    }
    let path = database.display();
    let settle = || -> rusqlite::Result<()> {
        let connection = open_as_application(database)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        connection.close().map_err(|(_, error)| error)
    };
    match settle() {
        // It may be replaced because it is damaged.
        Err(error) => tracing::warn!(%path, %error, "the database that is replaced is unreadable"),
        Ok(()) if sidecar(database, "-wal").exists() => tracing::warn!(
            %path,
            "the database that is replaced is in use: what its users write from now on is lost when \
             they close it; have them open it anew"
        ),
        Ok(()) => {}
    }
}

/// A name that no file has.
fn other_name(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".walrust-");
    name.push((0..6).map(|_| fastrand::alphanumeric()).collect::<String>());
    PathBuf::from(name)
}
