//! User metadata of objects: what every store can keep.

use std::collections::BTreeMap;

use crate::StorageError;

/// User metadata of an object: names in lower case, without the `x-amz-meta-` of S3; values are
/// printable ASCII.
pub type Metadata = BTreeMap<String, String>;

/// Refuses metadata that would not come back as it was given: S3 sends it as headers.
pub(crate) fn check(url: &str, key: &str, metadata: &Metadata) -> Result<(), StorageError> {
    for (name, value) in metadata {
        let refused = |why| {
            let reason = format!("metadata {name:?} cannot be kept: {why}");
            Err(StorageError::permanent("put", url.to_owned(), key, reason))
        };
        let in_name = |each: char| {
            each.is_ascii_lowercase() || each.is_ascii_digit() || matches!(each, '-' | '_')
        };
        if name.is_empty() || !name.chars().all(in_name) {
            return refused("a name has lower-case letters, digits, hyphens and underscores");
        }
        let printable = value.chars().all(|each| each == ' ' || each.is_ascii_graphic());
        if !printable || value.trim() != value {
            return refused("a value is printable ASCII without spaces at its ends");
        }
    }
    Ok(())
}
