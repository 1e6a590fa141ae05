//! Keys: relative, `/`-separated, and the same object in every store.
//!
//! Invariant: a key that passed [`check`] stays below the URL of its store. Names that start with
//! [`RESERVED`] belong to the directory store; they are refused everywhere, so that a tree can be
//! copied from one kind of store to another.

use crate::StorageError;

/// How names of the directory store's own files start.
pub(crate) const RESERVED: &str = ".walrust-";

/// Refuses keys that could leave the prefix or mean different objects in different stores.
pub(crate) fn check(operation: &'static str, url: &str, key: &str) -> Result<(), StorageError> {
    if key.is_empty() {
        return Err(StorageError::permanent(operation, url.to_owned(), key, "the key is empty"));
    }
    let refused = |why| Err(StorageError::permanent(operation, url.to_owned(), key, why));
    if key.contains(|each: char| each == '\\' || each.is_control()) {
        return refused("a key may not contain backslashes or control characters");
    }
    for segment in key.split('/') {
        if matches!(segment, "" | "." | "..") {
            return refused("a key may not be absolute or contain empty segments, \".\" or \"..\"");
        }
        if segment.starts_with(RESERVED) {
            return refused("names that start with \".walrust-\" are reserved");
        }
    }
    Ok(())
}

/// Refuses prefixes of listings that no key can have.
pub(crate) fn check_prefix(url: &str, prefix: &str) -> Result<(), StorageError> {
    let absolute = prefix.starts_with('/') || prefix.contains("//");
    if absolute || prefix.split('/').any(|segment| matches!(segment, "." | "..")) {
        let why = "a prefix may not be absolute or contain empty segments, \".\" or \"..\"";
        return Err(StorageError::permanent("list", url.to_owned(), prefix, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_leave_the_prefix_are_refused() {
        for key in ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\\b", "a\nb", "a/.walrust-x"] {
            assert!(check("put", "s3://b", key).is_err(), "{key:?}");
        }
        for key in ["a", "a/b.ltx", ".hidden/x", "a..b/...", "tenant 1/ä"] {
            assert!(check("put", "s3://b", key).is_ok(), "{key:?}");
        }
    }

    #[test]
    fn a_prefix_may_end_anywhere() {
        for prefix in ["", "a", "a/", "a/b", "a/b/"] {
            assert!(check_prefix("s3://b", prefix).is_ok(), "{prefix:?}");
        }
        for prefix in ["/", "/a", "a//", "..", "a/../"] {
            assert!(check_prefix("s3://b", prefix).is_err(), "{prefix:?}");
        }
    }
}
