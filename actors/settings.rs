//! What the tree is told to do: validated settings, no raw configuration.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use walrust_engine::{
    BreakerSettings, CheckpointSettings, EventKind, RestartSettings, RetentionPolicy, RetryPolicy,
    SnapshotSettings,
};
use walrust_sqlite::{KeptName, WalPin};

use crate::webhook_url::WebhookUrl;

/// Settings of the whole tree.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The databases, each with its own settings.
    pub databases: Vec<DatabaseSettings>,
    /// Pace of failed uploads.
    pub retry: RetryPolicy,
    /// When requests to a failing endpoint are held back.
    pub breaker: BreakerSettings,
    /// Bounds of the uploads.
    pub limits: UploadLimits,
    /// Snapshots at once, over all databases; at least one.
    pub snapshots_at_once: usize,
    /// Who is told about events.
    pub webhooks: Vec<WebhookSettings>,
    /// When children that crash are started again.
    pub restart: RestartSettings,
    /// A database that nothing happens to for this long gives its actor up until something does.
    pub rest_after: Duration,
    /// The least time between two manifests of a database, snapshots and the end apart.
    pub manifest_interval: Duration,
    /// Name of this host, for `manifest.json`.
    pub host: String,
}

impl Settings {
    /// Some databases, and defaults for everything else.
    #[must_use]
    pub fn new(databases: Vec<DatabaseSettings>, host: String) -> Self {
        Self {
            databases,
            retry: RetryPolicy::default(),
            breaker: BreakerSettings::default(),
            limits: UploadLimits::default(),
            snapshots_at_once: 2,
            webhooks: Vec::new(),
            restart: RestartSettings::default(),
            rest_after: Duration::from_secs(5),
            manifest_interval: Duration::from_secs(60),
            host,
        }
    }
}

/// Bounds of the uploads of the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadLimits {
    /// Uploads at once.
    pub concurrency: usize,
    /// Bytes of the files that are being uploaded at once; 0: no limit. A larger file goes without
    /// another large one beside it.
    pub bytes_in_flight: u64,
    /// Requests a second that the process may make; 0: no limit. The parts of a large file are one, and
    /// so are the pages of a listing.
    pub requests_per_second: u32,
    /// Requests a second that the uploads of one database may make; 0: no limit.
    pub requests_per_second_per_database: u32,
    /// How long one upload may take, before time for its size is added.
    pub attempt_timeout: Duration,
}

impl Default for UploadLimits {
    fn default() -> Self {
        Self {
            concurrency: 8,
            bytes_in_flight: 64 * 1024 * 1024,
            requests_per_second: 0,
            requests_per_second_per_database: 0,
            // Longer than the time that a store gives one request: it knows better what failed.
            attempt_timeout: Duration::from_secs(120),
        }
    }
}

/// Settings of one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// Its name in the bucket; unique.
    pub name: String,
    /// Path of the database file; unique.
    pub path: PathBuf,
    /// The least time between two uploads of this database.
    pub sync_interval: Duration,
    /// How its WAL is pinned.
    pub wal_pin: WalPin,
    /// When its WAL is checkpointed.
    pub checkpoint: CheckpointSettings,
    /// When a snapshot is due.
    pub snapshot: SnapshotSettings,
    /// When its history is compacted.
    pub compaction: CompactionSettings,
    /// When its history is validated.
    pub validation: ValidationSettings,
    /// What local state keeps of the name, if it was found and not configured.
    pub kept_name: Option<KeptName>,
    /// Where its local state lives; beside it by default.
    pub state_directory: Option<PathBuf>,
}

impl DatabaseSettings {
    /// A database with defaults for everything but its name and path.
    #[must_use]
    pub fn new(name: String, path: PathBuf) -> Self {
        Self {
            name,
            path,
            sync_interval: Duration::from_secs(1),
            wal_pin: WalPin::Auto,
            checkpoint: CheckpointSettings::default(),
            snapshot: SnapshotSettings::default(),
            compaction: CompactionSettings::default(),
            validation: ValidationSettings::default(),
            kept_name: None,
            state_directory: None,
        }
    }
}

/// When the history of a database is compacted, and what of it stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionSettings {
    /// After each snapshot.
    pub after_snapshot: bool,
    /// This often; zero: never for this reason.
    pub interval: Duration,
    /// What stays.
    pub policy: RetentionPolicy,
}

impl CompactionSettings {
    /// Grace period of files that go, if there is no interval.
    const GRACE: Duration = Duration::from_secs(3600);

    /// Whether the history is compacted at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.after_snapshot || !self.interval.is_zero()
    }

    /// How long a file is kept after nothing needs it any more: one interval, or an hour without one.
    #[must_use]
    pub fn grace(&self) -> Duration {
        if self.interval.is_zero() { Self::GRACE } else { self.interval }
    }
}

/// When a history is validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidationSettings {
    /// This often; zero: never.
    pub interval: Duration,
    /// Bytes that are read in a second; 0: no limit.
    pub bytes_per_second: u64,
}

impl Default for ValidationSettings {
    fn default() -> Self {
        Self { interval: Duration::ZERO, bytes_per_second: 16 * 1024 * 1024 }
    }
}

/// One receiver of events.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// Where events are posted. Only its [origin](Self::origin) may be shown: the rest is often the
    /// secret itself.
    pub url: String,
    /// The events it gets; empty: all but [`EventKind::Heartbeat`].
    pub events: Vec<EventKind>,
    /// Signs the deliveries.
    pub secret: Option<Secret>,
    /// How often a heartbeat is sent to a receiver that wants them; zero: never.
    pub heartbeat_interval: Duration,
}

impl WebhookSettings {
    /// Scheme, host and port of the URL.
    #[must_use]
    pub fn origin(&self) -> String {
        WebhookUrl::parse(&self.url).map_or_else(|_| "?".to_owned(), |url| url.origin())
    }
}

impl fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookSettings")
            .field("url", &self.origin())
            .field("events", &self.events)
            .field("secret", &self.secret)
            .field("heartbeat_interval", &self.heartbeat_interval)
            .finish()
    }
}

/// A text that no log and no error may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
