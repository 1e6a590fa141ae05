//! Local state of a database whose file is gone.
//!
//! Invariant: it is removed only if the file has been gone for long enough, nobody has the state
//! locked, and nothing is staged: a staged file may be the only copy of its commits. Everything else
//! in it costs the database, should it come back, a comparison of its pages, and perhaps its name.
//! What tells whose state it is goes last, so that a crash leaves what the next attempt finds.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::DatabaseError;
use crate::database_files::is_owned;
use crate::kept_name::{KeptName, read_name};
use crate::staging::staged_names;
use crate::state_directory::state_path;
use crate::state_owner::StateOwner;

/// Local state of a database whose file was gone when it was looked for.
#[derive(Clone, Debug)]
pub struct Orphan {
    state: PathBuf,
    owner: StateOwner,
}

/// What became of an orphan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrphanFate {
    /// The database is there again, or somebody has its state locked.
    Adopted,
    /// It has not been gone for long enough.
    Waiting,
    /// So many files are staged that storage may not have.
    Staged(usize),
    /// It was removed.
    Removed,
}

impl Orphan {
    /// All in a directory for the local state of all databases.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn all_in(directory: &Path) -> Result<Vec<Self>, DatabaseError> {
        let failed = |error| DatabaseError::io("look for local state", directory)(error);
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let state = entry.map_err(failed)?.path();
            found.extend(Self::of_state(state, Some(directory)));
        }
        Ok(found)
    }

    /// The one beside the place of a database, if there is one.
    #[must_use]
    pub fn beside(database: &Path) -> Option<Self> {
        let parent = database.parent()?.canonicalize().ok()?;
        Self::of_state(state_path(&parent.join(database.file_name()?), None), None)
    }

    fn of_state(state: PathBuf, directory: Option<&Path>) -> Option<Self> {
        let owner = StateOwner::read(&state)?;
        // A copy, or a directory that was renamed, says nothing of the file that it was made for.
        let is_orphan = state_path(&owner.path, directory) == state && owner.is_gone();
        is_orphan.then_some(Self { state, owner })
    }

    /// Path of the database, as it was configured.
    #[must_use]
    pub fn database(&self) -> &Path {
        &self.owner.given
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The name that was found for the database, if one was.
    ///
    /// # Errors
    /// If the name cannot be read.
    pub fn kept_name(&self) -> Result<Option<KeptName>, DatabaseError> {
        read_name(&self.state, &self.owner.path)
    }

    /// Removes the state if the file has been gone for a while; else notes that it is gone. Not to be
    /// called for a database that this process may still have open.
    ///
    /// # Errors
    /// If the state cannot be looked at, noted or removed.
    pub fn remove_after(
        &self,
        while_gone: Duration,
        now: SystemTime,
    ) -> Result<OrphanFate, DatabaseError> {
        let lock_path = self.state.join("lock");
        let lock =
            File::create(&lock_path).map_err(DatabaseError::io("create the lock", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(OrphanFate::Adopted),
            Err(fs::TryLockError::Error(error)) => {
                return Err(DatabaseError::io("lock the state directory", &lock_path)(error));
            }
        }
        // Nobody begins to replicate the database from here on.
        let owner = StateOwner::read(&self.state).filter(StateOwner::is_gone);
        let Some(owner) = owner else { return Ok(OrphanFate::Adopted) };
        let Some(gone_for) = owner.gone_for(now) else {
            owner.gone_since(Some(now)).write(&self.state)?;
            return Ok(OrphanFate::Waiting);
        };
        if gone_for < while_gone {
            return Ok(OrphanFate::Waiting);
        }
        if is_owned(&owner.path)? {
            return Ok(OrphanFate::Adopted);
        }
        match staged_names(&self.state.join("staging"))?.len() {
            0 => self.remove().map(|()| OrphanFate::Removed),
            staged => Ok(OrphanFate::Staged(staged)),
        }
    }

    fn remove(&self) -> Result<(), DatabaseError> {
        let remove = || {
            for entry in fs::read_dir(&self.state)? {
                let entry = entry?;
                let is_last = ["database", "lock"].iter().any(|last| entry.file_name() == *last);
                match entry.file_type()?.is_dir() {
                    _ if is_last => {}
                    true => fs::remove_dir_all(entry.path())?,
                    false => fs::remove_file(entry.path())?,
                }
            }
            fs::remove_dir_all(&self.state)
        };
        remove().map_err(DatabaseError::io("remove local state", &self.state))
    }
}

#[cfg(test)]
mod tests;
