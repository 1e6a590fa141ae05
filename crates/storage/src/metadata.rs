//! The user metadata of an object.
//!
//! Invariant: what [`check`] accepts survives every store unchanged, so it must fit an HTTP header
//! as well as an extended attribute.

use std::collections::BTreeMap;

/// User metadata of an object; names without the `x-amz-meta-` prefix.
///
/// Names are lower-case ASCII letters, digits and hyphens, because stores fold the case. Values are
/// printable ASCII without spaces at their ends. All of it is at most 2048 bytes.
pub type Metadata = BTreeMap<String, String>;

/// What S3 allows for the names and values of one object together, in bytes.
const MAX_BYTES: usize = 2048;

/// Tells what is wrong with metadata that a store could change or refuse.
pub(crate) fn check(metadata: &Metadata) -> Result<(), String> {
    for (name, value) in metadata {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(format!(
                "metadata name {name:?} is not made of lower-case letters, digits and hyphens"
            ));
        }
        let printable = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if !printable || value.trim() != value {
            return Err(format!("metadata value of {name:?} is not plain printable ASCII"));
        }
    }
    let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_BYTES {
        return Err(format!("metadata of {bytes} bytes is larger than {MAX_BYTES}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Metadata {
        Metadata::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn what_every_store_keeps_is_accepted() {
        assert_eq!(check(&Metadata::new()), Ok(()));
        assert_eq!(check(&one("sha256", "00ff")), Ok(()));
        assert_eq!(check(&one("created-at", "2024-01-01 00:00")), Ok(()));
        assert_eq!(check(&one("empty", "")), Ok(()));
    }

    #[test]
    fn what_a_store_could_change_is_refused() {
        for (name, value) in [
            ("", "x"),
            ("Sha256", "x"),
            ("a=b", "x"),
            ("a\nb", "x"),
            ("name", " x"),
            ("name", "x\n"),
            ("name", "ü"),
            ("name", &"x".repeat(2045)),
        ] {
            assert!(check(&one(name, value)).is_err(), "{name:?} = {value:?}");
        }
    }
}
