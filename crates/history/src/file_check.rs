//! Whether one file is in storage as it was stored.

use std::sync::Arc;

use walrust_engine::{ErrorClass, StoredFile, object_key};
use walrust_ltx::{FileName, Mode};
use walrust_storage::ObjectStore;

use crate::file_walk::wrong_sha256;
use crate::inspection::{Reading, inspect};
use crate::{HistoryError, Problem, patiently};

/// Reads a file of ours, whole; what is wrong with it, if anything is.
///
/// # Errors
/// If storage fails.
pub async fn check_file(
    store: &Arc<dyn ObjectStore>,
    database: &str,
    name: FileName,
) -> Result<Option<Problem>, HistoryError> {
    let key = object_key(database, name);
    let size = match patiently(|| store.head(&key)).await {
        Ok(meta) => meta.size,
        Err(error) if error.class() == ErrorClass::NotFound && !error.is_missing_bucket() => {
            return Ok(Some(Problem::Missing));
        }
        Err(error) => return Err(error.into()),
    };
    let file = StoredFile { key, name, level: 0, size };
    let reading = Reading { mode: Mode::Strict, bytes_per_second: None };
    Ok(match inspect(Arc::clone(store), &file, reading, false, |_| {}).await? {
        Ok(found) => wrong_sha256(found.recorded_sha256().map(str::to_owned), &found.sha256),
        Err(problem) => Some(problem),
    })
}
