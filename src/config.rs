//! What a user wrote in `walrust.toml`, checked.
//!
//! Invariant: every key that is accepted changes behaviour; any other is an error that names the
//! nearest key there is. figment is used here and nowhere else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Toml};
use serde::Deserialize;

use crate::Error;

mod duration;

pub use duration::{Interval, parse_interval};

/// The place of the file when none is named.
pub const SYSTEM_FILE: &str = "/etc/walrust/walrust.toml";
/// The place of the file beside the work, which is looked at first.
pub const LOCAL_FILE: &str = "walrust.toml";

/// A whole configuration file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where everything goes.
    pub s3: S3Section,
    /// When commits are shipped and WALs checkpointed.
    pub sync: SyncSection,
    /// The pace of failed uploads.
    pub retry: RetrySection,
    /// Bounds on the process.
    pub limits: LimitsSection,
    /// Where local state lives.
    pub state: StateSection,
    /// The databases.
    pub databases: Vec<DatabaseSection>,
}

/// `[s3]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3Section {
    /// Storage URL: `s3://bucket/prefix`, `bucket/prefix` or `file:///directory`.
    pub bucket: Option<String>,
    /// Endpoint of an S3-compatible store, with its scheme.
    pub endpoint: Option<String>,
    /// Region; `AWS_REGION`, else `us-east-1`.
    pub region: Option<String>,
    /// Bucket in the path instead of the host name; with an endpoint the default.
    pub path_style: Option<bool>,
    /// Whether the store checks conditions of uploads.
    pub conditional_writes: Option<ConditionalWrites>,
}

/// Values of `conditional_writes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConditionalWrites {
    /// The store checks them.
    Auto,
    /// It cannot: they are checked by a request before each upload, between which and the upload
    /// another writer may come.
    Off,
}

/// `[sync]`, and the same keys in `[[databases]]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncSection {
    /// The least time between two uploads of one database.
    pub wal_sync_interval: Option<Interval>,
    /// Checkpoint a WAL with frames this long after the last checkpoint; 0 never.
    pub checkpoint_interval: Option<Interval>,
    /// Checkpoint a WAL of this many pages; 0 never.
    pub min_checkpoint_page_count: Option<u32>,
    /// Stop the writers for a moment to checkpoint a WAL of this many pages, and shorten a WAL file
    /// of this size; 0 never.
    pub wal_truncate_threshold_pages: Option<u32>,
    /// Give the pin up when a WAL of this many pages cannot be checkpointed; 0 never.
    pub wal_limit_pages: Option<u32>,
    /// How the WAL is pinned.
    pub wal_pin: Option<WalPinKind>,
}

/// Values of `wal_pin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalPinKind {
    /// Detached where the system can, else with connections.
    Auto,
    /// With byte-range locks.
    Detached,
    /// With read transactions.
    Connection,
    /// Only while a file is made.
    None,
}

/// `[state]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateSection {
    /// Directory for the local state of all databases; beside each database by default.
    pub dir: Option<PathBuf>,
}

/// `[retry]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySection {
    /// Attempts after which a failure is logged as an error.
    pub max_retries: Option<u32>,
    /// Upper bound of the first delay in milliseconds.
    pub base_delay_ms: Option<u64>,
    /// Upper bound of every delay in milliseconds.
    pub max_delay_ms: Option<u64>,
    /// Whether requests to a failing endpoint are held back.
    pub circuit_breaker_enabled: Option<bool>,
    /// Failures in a row after which they are.
    pub circuit_breaker_threshold: Option<u32>,
    /// Milliseconds until one request probes the endpoint.
    pub circuit_breaker_cooldown_ms: Option<u64>,
}

/// `[limits]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Uploads at once, over all databases.
    pub upload_concurrency: Option<usize>,
}

/// `[[databases]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSection {
    /// Path of the database file.
    pub path: PathBuf,
    /// Name in the bucket; the file's stem by default.
    #[serde(default)]
    pub prefix: Option<String>,
    /// Overrides `[sync]` for this database.
    #[serde(default)]
    pub wal_sync_interval: Option<Interval>,
    /// Overrides `[sync]` for this database.
    #[serde(default)]
    pub checkpoint_interval: Option<Interval>,
    /// Overrides `[sync]` for this database.
    #[serde(default)]
    pub min_checkpoint_page_count: Option<u32>,
    /// Overrides `[sync]` for this database.
    #[serde(default)]
    pub wal_truncate_threshold_pages: Option<u32>,
    /// Overrides `[sync]` for this database.
    #[serde(default)]
    pub wal_limit_pages: Option<u32>,
    /// Overrides `[sync]` for this database.
    #[serde(default)]
    pub wal_pin: Option<WalPinKind>,
}

impl SyncSection {
    /// The values of `self`, else those of `other`.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            wal_sync_interval: self.wal_sync_interval.or(other.wal_sync_interval),
            checkpoint_interval: self.checkpoint_interval.or(other.checkpoint_interval),
            min_checkpoint_page_count: self
                .min_checkpoint_page_count
                .or(other.min_checkpoint_page_count),
            wal_truncate_threshold_pages: self
                .wal_truncate_threshold_pages
                .or(other.wal_truncate_threshold_pages),
            wal_limit_pages: self.wal_limit_pages.or(other.wal_limit_pages),
            wal_pin: self.wal_pin.or(other.wal_pin),
        }
    }
}

impl DatabaseSection {
    /// The keys of `[sync]` that this database overrides.
    #[must_use]
    pub fn sync(&self) -> SyncSection {
        SyncSection {
            wal_sync_interval: self.wal_sync_interval,
            checkpoint_interval: self.checkpoint_interval,
            min_checkpoint_page_count: self.min_checkpoint_page_count,
            wal_truncate_threshold_pages: self.wal_truncate_threshold_pages,
            wal_limit_pages: self.wal_limit_pages,
            wal_pin: self.wal_pin,
        }
    }
}

/// The defaults of `[sync]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncDefaults;

impl SyncDefaults {
    /// `wal_sync_interval`
    pub const WAL_SYNC_INTERVAL: Duration = Duration::from_secs(1);
    /// `checkpoint_interval`
    pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);
    /// `min_checkpoint_page_count`
    pub const MIN_CHECKPOINT_PAGES: u32 = 1000;
    /// `wal_truncate_threshold_pages`
    pub const WAL_TRUNCATE_THRESHOLD_PAGES: u32 = 121_359;
    /// `wal_limit_pages`
    pub const WAL_LIMIT_PAGES: u32 = 485_436;
    /// `upload_concurrency`
    pub const UPLOAD_CONCURRENCY: usize = 8;
}

/// Reads the configuration: the named file, which must exist, else the first that exists of
/// `./walrust.toml` and `/etc/walrust/walrust.toml`, else nothing.
///
/// # Errors
/// If the named file does not exist, or a file is not a valid configuration.
pub fn load(named: Option<&Path>) -> Result<Config, Error> {
    let file = match named {
        Some(file) if !file.is_file() => {
            return Err(Error::ConfigFile {
                file: file.display().to_string(),
                problem: "no such configuration file".to_owned(),
            });
        }
        Some(file) => file.to_owned(),
        None => match [LOCAL_FILE, SYSTEM_FILE].iter().map(Path::new).find(|file| file.is_file()) {
            Some(file) => file.to_owned(),
            None => return Ok(Config::default()),
        },
    };
    Figment::from(Toml::file_exact(&file)).extract().map_err(|error| Error::ConfigFile {
        file: file.display().to_string(),
        problem: describe(error),
    })
}

fn describe(error: figment::Error) -> String {
    let problems = error.into_iter().map(|error| {
        let key = error.path.join(".");
        match &error.kind {
            figment::error::Kind::UnknownField(field, known) => {
                let place = error.path.iter().take(error.path.len().saturating_sub(1));
                let place: Vec<_> = place.map(String::as_str).chain([field.as_str()]).collect();
                let hint = match nearest(field, known) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("known here: {}", known.join(", ")),
                };
                format!("unknown key `{}`; {hint}", place.join("."))
            }
            kind if key.is_empty() => kind.to_string(),
            kind => format!("`{key}`: {kind}"),
        }
    });
    problems.collect::<Vec<_>>().join("; ")
}

fn nearest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let candidates = known.iter().map(|known| (strsim::jaro_winkler(typed, known), *known));
    candidates
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests;
