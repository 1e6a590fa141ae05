//! Sizes as users write them: `64MiB`, `10MB`, `512k`, or a bare number of bytes.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A number of bytes in a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// Units, longest first, so that none is taken for the end of another.
const UNITS: [(&str, u64); 11] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("b", 1),
    ("", 1),
];

/// Parses a size.
///
/// # Errors
/// If the text is not a whole number with or without a unit.
pub fn parse_size(text: &str) -> Result<Size, String> {
    let invalid = || format!("{text:?} is not a size; use 64MiB, 10MB or a number of bytes");
    let lower = text.trim().to_ascii_lowercase();
    let unit = UNITS.iter().find(|(unit, _)| lower.ends_with(unit));
    let (unit, factor) = unit.expect("every text ends with nothing");
    let number: u64 = lower[..lower.len() - unit.len()].trim().parse().map_err(|_| invalid())?;
    number.checked_mul(*factor).map(Size).ok_or_else(invalid)
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = Size;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a size such as \"64MiB\", or a number of bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                parse_size(text).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                let bytes = u64::try_from(bytes);
                bytes.map(Size).map_err(|_| E::custom("a size must not be negative"))
            }
        }
        input.deserialize_any(SizeVisitor)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A size: \"64MiB\", \"10MB\", or a number of bytes.",
            "type": ["string", "integer"],
            "minimum": 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_or_are_bytes() {
        let parsed = |text| parse_size(text).unwrap().0;
        assert_eq!(parsed("12"), 12);
        assert_eq!(parsed("64MiB"), 64 << 20);
        assert_eq!(parsed("64 mib"), 64 << 20);
        assert_eq!(parsed("10MB"), 10_000_000);
        assert_eq!(parsed("2k"), 2048);
        assert_eq!(parsed("7B"), 7);
        for text in ["", "MiB", "-1", "1.5MB", "12 parsecs", "99999999999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
