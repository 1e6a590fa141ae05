//! Durations as users write them: `30s`, `5m`, `1h30m`, `7d`, `200ms`, or a bare number of seconds.

use std::borrow::Cow;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A duration in a configuration file or on the command line; at most [`Interval::LONGEST`], so that a
/// time may be that far away from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(pub Duration);

impl Interval {
    /// 100 years.
    pub const LONGEST: Duration = Duration::from_secs(100 * 31_557_600);

    fn new(duration: Duration) -> Result<Self, String> {
        match duration <= Self::LONGEST {
            true => Ok(Self(duration)),
            false => Err("must be at most 100 years; 0 disables where that is possible".to_owned()),
        }
    }
}

/// Parses a duration; usable as a parser of command line arguments.
///
/// # Errors
/// If the text is neither a number of seconds nor numbers with units.
pub fn parse_interval(text: &str) -> Result<Interval, String> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return from_seconds(seconds);
    }
    let invalid =
        || format!("{text:?} is not a duration; use 30s, 5m, 1h, 7d or a number of seconds");
    let span: Span = text.parse().map_err(|_| invalid())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| invalid())?;
    Interval::new(Duration::try_from(duration).map_err(|_| invalid())?)
}

fn from_seconds(seconds: f64) -> Result<Interval, String> {
    if seconds > Interval::LONGEST.as_secs_f64() {
        return Interval::new(Duration::MAX);
    }
    let duration = Duration::try_from_secs_f64(seconds);
    Interval::new(duration.map_err(|_| format!("{seconds} is not a duration in seconds"))?)
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct IntervalVisitor;
        impl Visitor<'_> for IntervalVisitor {
            type Value = Interval;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration such as \"30s\" or \"5m\", or a number of seconds")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Interval, E> {
                parse_interval(text).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Interval, E> {
                Interval::new(Duration::from_secs(seconds)).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Interval, E> {
                #[allow(clippy::cast_precision_loss, reason = "such intervals are not meant")]
                from_seconds(seconds as f64).map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Interval, E> {
                from_seconds(seconds).map_err(E::custom)
            }
        }
        input.deserialize_any(IntervalVisitor)
    }
}

impl JsonSchema for Interval {
    fn schema_name() -> Cow<'static, str> {
        "Interval".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A duration: \"200ms\", \"30s\", \"5m\", \"1h\", \"7d\", or a number of seconds.",
            "type": ["string", "number"],
            "minimum": 0
        })
    }
}
