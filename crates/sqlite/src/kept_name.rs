//! The name under which a database is stored, in its local state.
//!
//! It says for which path it was found, so that a copy of a database together with its local state
//! does not claim the name of the original.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::DatabaseError;
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

/// The name under which a database was stored before, as local state has it. The path of the
/// database has no symbolic links.
#[must_use]
pub fn kept_name(database: &Path, directory: Option<&Path>) -> Option<KeptName> {
    let bytes = fs::read(state_path(database, directory).join(FILE)).ok()?;
    let stored: StoredName = serde_json::from_slice(&bytes).ok()?;
    let ours = stored.path == database.to_string_lossy() && !stored.name.is_empty();
    ours.then_some(KeptName { name: stored.name, below: stored.below })
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
