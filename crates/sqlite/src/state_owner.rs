//! Which database a state directory belongs to, and since when its file is gone.
//!
//! Invariant: a file counts as gone only if it is known not to be there: its directories can be looked
//! at, and the file system that it was on is mounted. Not synced: a record that is lost or torn is
//! written again when the database is opened, and nothing is removed without one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::DatabaseError;
use crate::database_files::is_missing;

const FILE: &str = "database";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateOwner {
    /// The path under which the database is known, perhaps through symbolic links.
    pub(crate) given: PathBuf,
    /// Its path without symbolic links.
    pub(crate) path: PathBuf,
    /// The topmost directory of the file system that it is on.
    mount: PathBuf,
    /// When it was first seen that the file is gone, seconds since the Unix epoch.
    gone_since: Option<u64>,
}

impl StateOwner {
    /// The record of a database that is there; `None` if it cannot be written down.
    pub(crate) fn of(given: &Path, path: &Path) -> Option<Self> {
        // It is written as text.
        let is_text = given.to_str().is_some() && path.to_str().is_some();
        let mount = mount_of(path).filter(|_| is_text)?;
        Some(Self { given: given.to_owned(), path: path.to_owned(), mount, gone_since: None })
    }

    /// The record in a state directory, if there is one that is whole.
    pub(crate) fn read(state: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(state.join(FILE)).ok()?).ok()
    }

    /// Writes the record into a state directory, unless it is there.
    pub(crate) fn write(&self, state: &Path) -> Result<(), DatabaseError> {
        if Self::read(state).as_ref() == Some(self) {
            return Ok(());
        }
        let (path, temporary) = (state.join(FILE), state.join(format!("{FILE}.tmp")));
        let bytes = serde_json::to_vec_pretty(self).expect("only paths that are UTF-8 are kept");
        fs::write(&temporary, bytes)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(DatabaseError::io("save whose state this is", &path))
    }

    /// Whether the file is gone.
    pub(crate) fn is_gone(&self) -> bool {
        let is_missing =
            |path: &PathBuf| matches!(fs::metadata(path), Err(error) if is_missing(&error));
        is_missing(&self.given) && is_missing(&self.path) && is_mounted(&self.mount)
    }

    /// For how long the file has been gone, as far as that was noted. A time that lies ahead was noted
    /// by a clock that was wrong.
    pub(crate) fn gone_for(&self, now: SystemTime) -> Option<Duration> {
        let since = UNIX_EPOCH.checked_add(Duration::from_secs(self.gone_since?))?;
        now.duration_since(since).ok()
    }

    /// The same with the note that the file is gone from now on, or is there.
    pub(crate) fn gone_since(self, since: Option<SystemTime>) -> Self {
        let seconds = |time: SystemTime| Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs());
        Self { gone_since: since.and_then(seconds), ..self }
    }
}

/// The topmost directory on the file system of a file that is there.
fn mount_of(path: &Path) -> Option<PathBuf> {
    let device = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
    let of_file = device(path)?;
    let same = path.ancestors().take_while(|ancestor| device(ancestor) == Some(of_file));
    same.last().map(Path::to_owned)
}

/// Whether something is mounted at a place that once was the top of a file system.
fn is_mounted(place: &Path) -> bool {
    let Some(parent) = place.parent() else { return true };
    match (fs::metadata(place), fs::metadata(parent)) {
        (Ok(place), Ok(parent)) => place.dev() != parent.dev(),
        _ => false,
    }
}
