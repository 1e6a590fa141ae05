//! The keys of objects: relative to the prefix of the store, with `/` between segments.
//!
//! Invariant: a key that [`check`] accepts names one object in every store and can neither leave
//! the prefix nor collide with the files that a directory store keeps for itself.

/// The longest key that S3 takes, in bytes.
const MAX_BYTES: usize = 1024;

/// How the names of files begin that a directory store keeps for itself.
pub(crate) const RESERVED: &str = ".walrust-";

/// Tells what is wrong with a key.
pub(crate) fn check(key: &str) -> Result<(), String> {
    if key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    if key.len() > MAX_BYTES {
        return Err(format!("the key is longer than {MAX_BYTES} bytes"));
    }
    key.split('/').try_for_each(check_segment)
}

/// Tells what is wrong with the beginning of keys; it may be empty or end in the middle of a
/// segment.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), String> {
    let Some((whole, _)) = prefix.rsplit_once('/') else { return Ok(()) };
    check(whole)
}

fn check_segment(segment: &str) -> Result<(), String> {
    let problem = match segment {
        "" => "an empty segment",
        "." | ".." => "a segment that is a relative path",
        _ if segment.starts_with(RESERVED) => "a segment with a reserved beginning",
        // XML 1.0 has no way to write them, so a listing could never return the key.
        _ if segment.chars().any(char::is_control) => "a control character",
        _ => return Ok(()),
    };
    Err(format!("the key has {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_keys_are_accepted() {
        for key in ["a", "app/manifest.json", "app/.hidden", "ä ö/1.ltx", "a..b/...", "a b"] {
            assert_eq!(check(key), Ok(()), "{key:?}");
        }
    }

    #[test]
    fn keys_that_leave_the_prefix_or_name_nothing_are_refused() {
        for key in
            ["", "/", "/a", "a/", "a//b", "..", "../a", "a/../b", "./a", "a\nb", ".walrust-lock"]
        {
            assert!(check(key).is_err(), "{key:?}");
        }
        assert!(check(&"k".repeat(1025)).is_err());
    }

    #[test]
    fn prefixes_may_end_anywhere_but_not_outside() {
        for prefix in ["", "a", "a/", "a/b", "a/b/."] {
            assert_eq!(check_prefix(prefix), Ok(()), "{prefix:?}");
        }
        for prefix in ["/", "/a", "../", "a//", "a/../"] {
            assert!(check_prefix(prefix).is_err(), "{prefix:?}");
        }
    }
}
