//! The name under which a database is stored, in its local state.
//!
//! It says for which path it was found, so that a copy of a database together with its local state
//! does not claim the name of the original.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use walrust_engine::is_valid_name;

use crate::DatabaseError;
use crate::database_files::is_missing;
use crate::state_directory::{replace, state_path};

const FILE: &str = "name";

/// A name that was found for a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptName {
    /// The name.
    pub name: String,
    /// The prefix that it was found below, if any.
    pub below: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredName {
    name: String,
    below: Option<String>,
    path: String,
}

/// The name under which a database was stored before, as local state has it; `None` if it has none, or
/// one that was found for another path. The path of the database has no symbolic links.
///
/// # Errors
/// If there is a name that cannot be read: another one in its place would begin a second history.
pub fn kept_name(
    database: &Path,
    directory: Option<&Path>,
) -> Result<Option<KeptName>, DatabaseError> {
    read_name(&state_path(database, directory), database)
}

/// The name of a database in a state directory.
pub(crate) fn read_name(state: &Path, database: &Path) -> Result<Option<KeptName>, DatabaseError> {
    let path = state.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(DatabaseError::io("read the name of the database", &path)(error)),
    };
    let damaged = |problem: String| DatabaseError::DamagedState {
        path: path.clone(),
        problem,
        remedy: "in the configuration, set the prefix of the database to the name under which it was \
                 stored (`walrust list` shows the names); if the file is removed instead, a name is \
                 found again, which may be another one with a history of its own",
    };
    let stored: StoredName =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if !is_valid_name(&stored.name) {
        return Err(damaged(format!("{:?} cannot be a name in a bucket", stored.name)));
    }
    let ours = stored.path == database.to_string_lossy();
    Ok(ours.then_some(KeptName { name: stored.name, below: stored.below }))
}

/// Keeps the name under which a database is stored.
///
/// # Errors
/// If local state cannot be written.
pub fn keep_name(
    database: &Path,
    directory: Option<&Path>,
    kept: &KeptName,
) -> Result<(), DatabaseError> {
    let path = state_path(database, directory);
    fs::create_dir_all(&path).map_err(DatabaseError::io("create the state directory", &path))?;
    let stored = StoredName {
        name: kept.name.clone(),
        below: kept.below.clone(),
        path: database.to_string_lossy().into_owned(),
    };
    let bytes = serde_json::to_vec_pretty(&stored).expect("strings always have a JSON form");
    replace(&path, FILE, &bytes)
}
