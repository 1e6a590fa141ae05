//! From what was configured and typed to what the supervision tree is told.
//!
//! Invariant: nothing below sees a raw flag or key. A flag wins over the environment, the environment
//! over the file, an entry of `[[databases]]` over `[sync]`, and everything over the default.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use walrust_actors::{
    CompactionSettings, DatabaseSettings, Secret, Settings, UploadLimits, ValidationSettings,
    WebhookSettings, WebhookUrl,
};
use walrust_engine::{
    BreakerSettings, CheckpointSettings, RetentionPolicy, RetryPolicy, SnapshotSettings,
};
use walrust_sqlite::WalPin;

use crate::Error;
use crate::config::{
    Config, DatabaseSection, Interval, RetentionSection, SyncSection, WalPinKind, WebhookSection,
};
use crate::names::Name;
use crate::tenant::Tenant;

/// How often heartbeats are sent by default.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(60);

/// What was typed.
#[derive(Clone, Debug, Default)]
pub struct Typed {
    /// Database files and patterns.
    pub databases: Vec<PathBuf>,
    /// Flags, or their variables, that are keys of `[sync]` as well.
    pub sync: SyncSection,
    /// The same of `[retention]`.
    pub retention: RetentionSection,
    /// Attempts after which a failing upload is an error.
    pub max_retries: Option<u32>,
}

/// The entries of the file and what was typed, each with an absolute path.
pub(crate) fn sections(config: &Config, typed: &Typed) -> Result<Vec<DatabaseSection>, Error> {
    let typed_sections = typed
        .databases
        .iter()
        .map(|path| DatabaseSection { path: path.clone(), ..DatabaseSection::default() });
    let (mut sections, mut known) = (Vec::new(), HashSet::new());
    for mut section in config.databases.iter().cloned().chain(typed_sections) {
        section.path = absolute(&section.path)?;
        let file = section.path.canonicalize().unwrap_or_else(|_| section.path.clone());
        // A path that is typed and configured is one database, with the configured name.
        if known.insert(file) {
            sections.push(section);
        }
    }
    Ok(sections)
}

/// The settings of the tree, with these databases and their names.
///
/// # Errors
/// If a webhook cannot be used.
pub(crate) fn of_tenants(
    tenants: Vec<(Tenant, Name)>,
    config: &Config,
    typed: &Typed,
) -> Result<Settings, Error> {
    let databases = databases(tenants, typed, config);
    let retry = RetryPolicy::default();
    let breaker = BreakerSettings::default();
    let limits = UploadLimits::default();
    let defaults = Settings::new(databases, host_name());
    Ok(Settings {
        retry: RetryPolicy {
            max_retries: typed
                .max_retries
                .or(config.retry.max_retries)
                .unwrap_or(retry.max_retries),
            base_delay: config.retry.base_delay_ms.map_or(retry.base_delay, Duration::from_millis),
            max_delay: config.retry.max_delay_ms.map_or(retry.max_delay, Duration::from_millis),
        },
        breaker: BreakerSettings {
            enabled: config.retry.circuit_breaker_enabled.unwrap_or(breaker.enabled),
            threshold: config.retry.circuit_breaker_threshold.unwrap_or(breaker.threshold),
            cooldown: config
                .retry
                .circuit_breaker_cooldown_ms
                .map_or(breaker.cooldown, Duration::from_millis),
        },
        limits: UploadLimits {
            concurrency: config.limits.upload_concurrency.unwrap_or(limits.concurrency),
            bytes_in_flight: config
                .limits
                .bytes_in_flight
                .map_or(limits.bytes_in_flight, |it| it.0),
            requests_per_second: config
                .limits
                .requests_per_second
                .unwrap_or(limits.requests_per_second),
            requests_per_second_per_database: config
                .limits
                .requests_per_second_per_database
                .unwrap_or(limits.requests_per_second_per_database),
            ..limits
        },
        snapshots_at_once: config.limits.snapshots_at_once.unwrap_or(defaults.snapshots_at_once),
        webhooks: config.webhooks.iter().map(webhook).collect::<Result<_, _>>()?,
        ..defaults
    })
}

fn databases(
    tenants: Vec<(Tenant, Name)>,
    typed: &Typed,
    config: &Config,
) -> Vec<DatabaseSettings> {
    let databases = tenants.into_iter().map(|(Tenant { section, .. }, Name { name, kept })| {
        // A flag wins over the whole file, also over a database's own key.
        let sync = typed.sync.or(&section.sync()).or(&config.sync);
        let retention = typed.retention.or(&section.retention()).or(&config.retention);
        let database = database(name, section.path, &sync, &retention);
        let rate = config.limits.validation_bytes_per_second;
        DatabaseSettings {
            validation: ValidationSettings {
                bytes_per_second: rate.map_or(database.validation.bytes_per_second, |rate| rate.0),
                ..database.validation
            },
            state_directory: config.state.dir.clone(),
            kept_name: kept,
            ..database
        }
    });
    databases.collect()
}

/// The settings of a database of which the file says nothing.
pub(crate) fn of_any_database(config: &Config, typed: &Typed) -> DatabaseSettings {
    let (sync, retention) = (typed.sync.or(&config.sync), typed.retention.or(&config.retention));
    database(String::new(), PathBuf::new(), &sync, &retention)
}

fn database(
    name: String,
    path: PathBuf,
    sync: &SyncSection,
    retention: &RetentionSection,
) -> DatabaseSettings {
    let interval = |interval: Option<Interval>, default| interval.map_or(default, |set| set.0);
    let defaults = DatabaseSettings::new(name, path);
    let (checkpoint, snapshot) = (defaults.checkpoint, defaults.snapshot);
    let validation = defaults.validation;
    DatabaseSettings {
        sync_interval: interval(sync.wal_sync_interval, defaults.sync_interval),
        checkpoint: CheckpointSettings {
            min_pages: sync.min_checkpoint_page_count.unwrap_or(checkpoint.min_pages),
            interval: interval(sync.checkpoint_interval, checkpoint.interval),
            truncate_pages: sync.wal_truncate_threshold_pages.unwrap_or(checkpoint.truncate_pages),
            limit_pages: sync.wal_limit_pages.unwrap_or(checkpoint.limit_pages),
        },
        wal_pin: match sync.wal_pin {
            None | Some(WalPinKind::Auto) => WalPin::Auto,
            Some(WalPinKind::Detached) => WalPin::Detached,
            Some(WalPinKind::Connection) => WalPin::Connection,
            Some(WalPinKind::None) => WalPin::None,
        },
        snapshot: SnapshotSettings {
            interval: interval(sync.snapshot_interval, snapshot.interval),
            max_changes: sync.max_changes.unwrap_or(snapshot.max_changes),
            max_interval: interval(sync.max_interval, snapshot.max_interval),
            on_idle: interval(sync.on_idle, snapshot.on_idle),
            on_startup: sync.on_startup.unwrap_or(snapshot.on_startup),
        },
        compaction: CompactionSettings {
            after_snapshot: sync.compact_after_snapshot.unwrap_or_default(),
            interval: interval(sync.compact_interval, Duration::ZERO),
            policy: retention_policy(retention),
        },
        validation: ValidationSettings {
            interval: interval(sync.validation_interval, validation.interval),
            ..validation
        },
        ..defaults
    }
}

/// The policy of a table, with defaults for what it does not say.
pub(crate) fn retention_policy(section: &RetentionSection) -> RetentionPolicy {
    let defaults = RetentionPolicy::default();
    RetentionPolicy {
        hourly: section.hourly.unwrap_or(defaults.hourly),
        daily: section.daily.unwrap_or(defaults.daily),
        weekly: section.weekly.unwrap_or(defaults.weekly),
        monthly: section.monthly.unwrap_or(defaults.monthly),
    }
}

fn webhook(section: &WebhookSection) -> Result<WebhookSettings, Error> {
    let wrong = |problem: String| Error::Usage(format!("[[webhooks]]: {problem}"));
    WebhookUrl::parse(&section.url).map_err(|error| wrong(error.to_string()))?;
    let events = section.events.iter().map(|name| name.parse());
    let events = events.collect::<Result<_, walrust_engine::UnknownEvent>>();
    Ok(WebhookSettings {
        url: section.url.clone(),
        events: events.map_err(|error| wrong(error.to_string()))?,
        secret: section.secret.clone().map(Secret::new),
        heartbeat_interval: section.heartbeat_interval.map_or(HEARTBEAT_INTERVAL, |it| it.0),
    })
}

/// The absolute path of a database. Symbolic links stay: where they lead may change.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::Io {
        what: format!("{}: cannot be made absolute", path.display()),
        source,
    })
}

/// Whether two paths lead to one file.
pub(crate) fn is_same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|_| "unknown".to_owned())
}
