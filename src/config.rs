//! What a user wrote in `walrust.toml`, checked.
//!
//! Invariant: every key that is accepted changes behaviour; any other is an error that names the
//! nearest key there is. figment is used here and nowhere else.

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Format, Toml};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;

mod check;
mod duration;
mod location;
mod size;

pub use duration::{Interval, parse_interval};
pub use location::line_of;
pub use size::{Size, parse_size};

/// The place of the file when none is named.
pub const SYSTEM_FILE: &str = "/etc/walrust/walrust.toml";
/// The place of the file beside the work, which is looked at first.
pub const LOCAL_FILE: &str = "walrust.toml";

/// A whole configuration file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The storage.
    pub s3: S3Section,
    /// When commits are uploaded, WALs checkpointed and snapshots taken.
    pub sync: SyncSection,
    /// How much of each history is kept.
    pub retention: RetentionSection,
    /// How failed uploads are retried.
    pub retry: RetrySection,
    /// Limits of the whole process.
    pub limits: LimitsSection,
    /// Where local state is kept, and for how long.
    pub state: StateSection,
    /// How commands reach the daemon.
    pub control: ControlSection,
    /// The receivers of events.
    pub webhooks: Vec<WebhookSection>,
    /// The databases.
    pub databases: Vec<DatabaseSection>,
}

/// `[s3]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct S3Section {
    /// Storage URL: `s3://bucket/prefix`, `bucket/prefix` or `file:///directory`.
    pub bucket: Option<String>,
    /// Endpoint of an S3-compatible store, starting with http:// or https://; `AWS_ENDPOINT_URL_S3` by
    /// default.
    pub endpoint: Option<String>,
    /// Region; `AWS_REGION` by default, else `us-east-1`.
    pub region: Option<String>,
    /// Whether the bucket is part of the path instead of the host name; true by default with an endpoint.
    pub path_style: Option<bool>,
    /// Whether the store supports conditional uploads.
    pub conditional_writes: Option<ConditionalWrites>,
}

/// Values of `conditional_writes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConditionalWrites {
    /// The store supports them.
    Auto,
    /// It does not: a request before each upload checks instead, which is weaker, since another writer
    /// may come in between.
    Off,
}

/// The keys of the tables that `[[databases]]` may override: once for both places.
macro_rules! keys_of_databases {
    ($(
        #[doc = $name:literal]
        $section:ident, $of_database:ident {
            $($(#[doc = $doc:literal])+ $key:ident: $kind:ty,)+
        }
    )+) => {
        $(
            #[doc = $name]
            #[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
            #[serde(deny_unknown_fields, default)]
            pub struct $section {
                $($(#[doc = $doc])+ pub $key: Option<$kind>,)+
            }

            impl $section {
                /// The values of `self`, else those of `other`.
                #[must_use]
                pub fn or(&self, other: &Self) -> Self {
                    Self { $($key: self.$key.or(other.$key),)+ }
                }
            }

            impl DatabaseSection {
                /// The keys of the table that this database overrides.
                #[must_use]
                pub fn $of_database(&self) -> $section {
                    $section { $($key: self.$key,)+ }
                }
            }
        )+

        /// `[[databases]]`
        #[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct DatabaseSection {
            /// Path of the database file, or a pattern: `*`, `?` and `[...]` within a name, `**` for any
            /// directories.
            pub path: PathBuf,
            /// Name in the bucket; the file name without its extension by default. For a pattern: what
            /// precedes the name of each match.
            #[serde(default)]
            pub prefix: Option<String>,
            $($(
                $(#[doc = $doc])+
                #[doc = concat!(" Overrides ", $name, ".")]
                #[serde(default)]
                pub $key: Option<$kind>,
            )+)+
        }
    };
}

keys_of_databases! {
    /// `[sync]`
    SyncSection, sync {
        /// Minimum time between two uploads of one database.
        wal_sync_interval: Interval,
        /// Checkpoint a WAL this long after its previous checkpoint; 0 disables.
        checkpoint_interval: Interval,
        /// Checkpoint a WAL that has this many pages; 0 disables.
        min_checkpoint_page_count: u32,
        /// Checkpoint a WAL that has this many pages even under writes that never pause, by making the
        /// writers wait for some milliseconds, and truncate a WAL file of this size; 0 disables.
        wal_truncate_threshold_pages: u32,
        /// Give the pin up when a WAL that has this many pages cannot be checkpointed; 0 disables.
        wal_limit_pages: u32,
        /// How the WAL is pinned.
        wal_pin: WalPinKind,
        /// Take a snapshot this long after the previous one, if the database changed; 0 disables.
        snapshot_interval: Interval,
        /// Take a snapshot after this many commits; 0 disables.
        max_changes: u64,
        /// Take a snapshot at most this long after the first commit since the last snapshot; 0 disables.
        max_interval: Interval,
        /// Take a snapshot when a database that changed has been idle for this long; 0 disables.
        on_idle: Interval,
        /// Take a snapshot at startup, if the database changed since its last one.
        on_startup: bool,
        /// Apply the retention after each snapshot.
        compact_after_snapshot: bool,
        /// Apply the retention this often; 0 disables.
        compact_interval: Interval,
        /// Verify this often that what is in storage can be restored; 0 disables.
        validation_interval: Interval,
    }
    /// `[retention]`
    RetentionSection, retention {
        /// Keep the newest snapshot of each of the last N hours, and every state in them; 0 keeps none.
        hourly: u32,
        /// Keep the newest snapshot of each of the last N days; 0 keeps none.
        daily: u32,
        /// Keep the newest snapshot of each of the last N ISO weeks; 0 keeps none.
        weekly: u32,
        /// Keep the newest snapshot of each of the last N months; 0 keeps none.
        monthly: u32,
    }
}

/// Values of `wal_pin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WalPinKind {
    /// `detached` where the system supports it, else `connection`.
    Auto,
    /// With byte-range locks.
    Detached,
    /// With read transactions.
    Connection,
    /// Only while a file is made.
    None,
}

/// `[state]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StateSection {
    /// Directory for the local state of all databases; by default it is beside each database.
    pub dir: Option<PathBuf>,
    /// How long the local state of a database is kept after the file that a pattern matched is gone, and
    /// its name reserved; at least 1m, or 0 to keep it forever.
    pub keep_deleted: Option<Interval>,
}

impl StateSection {
    /// How long local state of deleted databases stays by default.
    const KEEP_DELETED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

    /// How long local state of deleted databases stays; `None` for ever.
    #[must_use]
    pub fn keep_deleted(&self) -> Option<Duration> {
        let keep = self.keep_deleted.map_or(Self::KEEP_DELETED, |interval| interval.0);
        (!keep.is_zero()).then_some(keep)
    }
}

/// `[retry]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySection {
    /// Log a failing upload as an error after this many attempts; it is retried all the same.
    pub max_retries: Option<u32>,
    /// Upper bound of the delay before the first retry, in milliseconds.
    pub base_delay_ms: Option<u64>,
    /// Upper bound of the delay before any retry, in milliseconds.
    pub max_delay_ms: Option<u64>,
    /// Whether requests to a failing endpoint are held back.
    pub circuit_breaker_enabled: Option<bool>,
    /// Hold them back after this many failures in a row.
    pub circuit_breaker_threshold: Option<u32>,
    /// How long to wait until one request tests the endpoint again, in milliseconds.
    pub circuit_breaker_cooldown_ms: Option<u64>,
}

/// `[limits]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Concurrent uploads over all databases.
    pub upload_concurrency: Option<usize>,
    /// Total size of the files that are uploaded concurrently; a larger file is uploaded alone.
    pub bytes_in_flight: Option<Size>,
    /// Requests per second over all databases; 0 for no limit.
    pub requests_per_second: Option<u32>,
    /// Requests per second of each database; 0 for no limit.
    pub requests_per_second_per_database: Option<u32>,
    /// Concurrent snapshots over all databases.
    pub snapshots_at_once: Option<usize>,
    /// Bytes per second that validations read; 0 for no limit.
    pub validation_bytes_per_second: Option<Size>,
}

/// `[control]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ControlSection {
    /// Path of the control socket.
    pub socket: Option<PathBuf>,
}

/// `[[webhooks]]`
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSection {
    /// URL that events are posted to, starting with http:// or https://.
    pub url: String,
    /// Events to send; all but `heartbeat` by default.
    #[serde(default)]
    pub events: Vec<String>,
    /// Key that signs the deliveries with HMAC-SHA256.
    #[serde(default)]
    pub secret: Option<String>,
    /// How often to send `heartbeat`, if it is listed in `events`.
    #[serde(default)]
    pub heartbeat_interval: Option<Interval>,
}

impl fmt::Debug for WebhookSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookSection").field("events", &self.events).finish_non_exhaustive()
    }
}

/// Finds the configuration file: the named one, which must exist, else the first that exists of
/// `./walrust.toml` and `/etc/walrust/walrust.toml`.
///
/// # Errors
/// If the named file does not exist.
pub fn find(named: Option<&Path>) -> Result<Option<PathBuf>, Error> {
    match named {
        Some(file) if !file.is_file() => Err(Error::ConfigFile {
            file: file.display().to_string(),
            problem: "no such configuration file".to_owned(),
        }),
        Some(file) => Ok(Some(file.to_owned())),
        None => {
            let file = [LOCAL_FILE, SYSTEM_FILE].iter().map(Path::new).find(|file| file.is_file());
            Ok(file.map(Path::to_owned))
        }
    }
}

/// Reads the configuration from the file that [`find`] finds; defaults if there is none.
///
/// # Errors
/// If the named file does not exist, or a file is not a valid configuration.
pub fn load(named: Option<&Path>) -> Result<Config, Error> {
    match find(named)? {
        Some(file) => read(&file),
        None => Ok(Config::default()),
    }
}

/// Reads a configuration file.
///
/// # Errors
/// If it cannot be read, or is not a valid configuration.
pub fn read(file: &Path) -> Result<Config, Error> {
    let wrong = |problem| Error::ConfigFile { file: file.display().to_string(), problem };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    if let Some(problem) = location::syntax_error(&text) {
        return Err(wrong(problem));
    }
    let config = Figment::from(Toml::string(&text)).extract();
    let config = config.map_err(|error| wrong(describe(error, &text)))?;
    let problems = check::problems(&config, &text);
    if problems.is_empty() { Ok(config) } else { Err(wrong(problems.join("; "))) }
}

/// The tables and keys of a text; empty if it is no TOML.
pub(crate) fn parse(text: &str) -> serde_json::Map<String, serde_json::Value> {
    Figment::from(Toml::string(text)).extract().unwrap_or_default()
}

fn describe(error: figment::Error, text: &str) -> String {
    let problems = error.into_iter().map(|error| {
        let key = error.path.join(".");
        let problem = match &error.kind {
            Kind::UnknownField(field, known) => {
                let place = error.path.iter().take(error.path.len().saturating_sub(1));
                let place: Vec<_> = place.map(String::as_str).chain([field.as_str()]).collect();
                let hint = match nearest(field, known) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("known here: {}", known.join(", ")),
                };
                format!("unknown key `{}`; {hint}", place.join("."))
            }
            // What was written for a webhook is a secret, or often holds one.
            Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected)
                if key.starts_with("webhooks.") =>
            {
                format!("`{key}`: expected {expected}")
            }
            kind if key.is_empty() => kind.to_string(),
            kind => format!("`{key}`: {kind}"),
        };
        match line_of(text, &error.path) {
            Some(line) => format!("line {line}: {problem}"),
            None => problem,
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
