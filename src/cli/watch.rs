//! `walrust watch`: the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use walrust_actors::{DatabaseSettings, NotShipped, Replicator, Settings, UploadLimits};
use walrust_engine::{BreakerSettings, CheckpointSettings, NameRequest, RetryPolicy, assign_names};
use walrust_sqlite::{WalPin, check_database};

use super::StorageArgs;
use crate::Error;
use crate::config::{
    Config, DatabaseSection, Interval, SyncDefaults, SyncSection, WalPinKind, parse_interval,
};

/// How long shipping may take after the first signal.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Database files, in addition to those of the configuration file
    #[arg(value_name = "DATABASE")]
    databases: Vec<PathBuf>,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    sync: SyncArgs,
    /// Attempts after which a failing upload is logged as an error [default: 5]
    #[arg(long, value_name = "N", env = "WALRUST_MAX_RETRIES")]
    max_retries: Option<u32>,
}

/// Flags that are keys of `[sync]` as well.
#[derive(Clone, Debug, Default, Args)]
struct SyncArgs {
    /// The least time between two uploads of one database [default: 1s]
    #[arg(long, value_name = "DURATION", env = "WALRUST_WAL_SYNC_INTERVAL", value_parser = parse_interval)]
    wal_sync_interval: Option<Interval>,
    /// Checkpoint a WAL this long after its last checkpoint; 0 never [default: 60s]
    #[arg(long, value_name = "DURATION", env = "WALRUST_CHECKPOINT_INTERVAL", value_parser = parse_interval)]
    checkpoint_interval: Option<Interval>,
    /// Checkpoint a WAL of this many pages; 0 never [default: 1000]
    #[arg(long, value_name = "PAGES", env = "WALRUST_MIN_CHECKPOINT_PAGES")]
    min_checkpoint_pages: Option<u32>,
    /// Stop the writers for a moment to checkpoint a WAL of this many pages; 0 never
    /// [default: 121359]
    #[arg(long, value_name = "PAGES", env = "WALRUST_WAL_TRUNCATE_THRESHOLD")]
    wal_truncate_threshold: Option<u32>,
}

impl SyncArgs {
    fn section(&self) -> SyncSection {
        SyncSection {
            wal_sync_interval: self.wal_sync_interval,
            checkpoint_interval: self.checkpoint_interval,
            min_checkpoint_page_count: self.min_checkpoint_pages,
            wal_truncate_threshold_pages: self.wal_truncate_threshold,
            ..SyncSection::default()
        }
    }
}

pub(super) async fn run(args: WatchArgs, config: &Config) -> Result<(), Error> {
    let mut settings = settings(&args.databases, &args.sync.section(), config)?;
    settings.retry.max_retries = args.max_retries.unwrap_or(settings.retry.max_retries);
    if settings.databases.is_empty() {
        let problem =
            "no database is named; give paths, or [[databases]] in the configuration file";
        return Err(Error::Usage(problem.to_owned()));
    }
    refuse_hopeless(&settings)?;
    let store = args.storage.open(config).await?;
    let mut signals = Signals::new()?;
    let prefix = format!("{}/", settings.databases[0].name);
    let listed = tokio::select! {
        listed = store.list(&prefix, None) => listed,
        () = signals.next() => {
            let reason = "stopped before storage had answered";
            let not_shipped = settings
                .databases
                .iter()
                .map(|database| NotShipped {
                    name: database.name.clone(),
                    reason: reason.to_owned(),
                })
                .collect();
            return Err(Error::NotShipped(not_shipped));
        }
    };
    if let Err(error) = listed {
        // A store that is away for a while must not keep the daemon from starting.
        if !error.class().is_retryable() {
            return Err(error.into());
        }
        tracing::warn!(%error, "storage is away, databases wait for it");
    }
    let (databases, url) = (settings.databases.len(), store.url());
    tracing::info!(databases, %url, "replicating");
    let replicator = Replicator::start(settings, store).await?;
    signals.next().await;
    tracing::info!("stopping; a second signal stops at once");
    let not_shipped = tokio::select! {
        not_shipped = replicator.shut_down(SHUTDOWN_TIMEOUT) => not_shipped?,
        () = signals.next() => {
            let reason = "a second signal stopped the shutdown".to_owned();
            vec![NotShipped { name: "databases".to_owned(), reason }]
        }
    };
    if not_shipped.is_empty() {
        tracing::info!("stopped, everything is in storage");
        return Ok(());
    }
    Err(Error::NotShipped(not_shipped))
}

/// Turns what was typed and what the file says into settings of the tree.
pub(super) fn settings(
    paths: &[PathBuf],
    flags: &SyncSection,
    config: &Config,
) -> Result<Settings, Error> {
    let typed = paths.iter().map(|path| DatabaseSection {
        path: path.clone(),
        prefix: None,
        wal_sync_interval: None,
        checkpoint_interval: None,
        min_checkpoint_page_count: None,
        wal_truncate_threshold_pages: None,
        wal_limit_pages: None,
        wal_pin: None,
    });
    let mut sections: Vec<DatabaseSection> = Vec::new();
    for mut section in config.databases.iter().cloned().chain(typed) {
        section.path = absolute(&section.path)?;
        // A path that is typed and configured is one database, with the configured name.
        if !sections.iter().any(|known| is_same_file(&known.path, &section.path)) {
            sections.push(section);
        }
    }
    let requests: Vec<_> = sections
        .iter()
        .map(|section| NameRequest { path: section.path.clone(), prefix: section.prefix.clone() })
        .collect();
    let names = assign_names(&requests)?;
    let databases = sections.into_iter().zip(names).map(|(section, name)| {
        // A flag wins over the whole file, also over a database's own key.
        let sync = flags.or(&section.sync()).or(&config.sync);
        DatabaseSettings {
            state_directory: config.state.dir.clone(),
            ..database_settings(name, section.path, &sync)
        }
    });
    let (retry, breaker) = (RetryPolicy::default(), BreakerSettings::default());
    Ok(Settings {
        breaker: BreakerSettings {
            enabled: config.retry.circuit_breaker_enabled.unwrap_or(breaker.enabled),
            threshold: config.retry.circuit_breaker_threshold.unwrap_or(breaker.threshold),
            cooldown: config
                .retry
                .circuit_breaker_cooldown_ms
                .map_or(breaker.cooldown, Duration::from_millis),
        },
        retry: RetryPolicy {
            max_retries: config.retry.max_retries.unwrap_or(retry.max_retries),
            base_delay: config.retry.base_delay_ms.map_or(retry.base_delay, Duration::from_millis),
            max_delay: config.retry.max_delay_ms.map_or(retry.max_delay, Duration::from_millis),
        },
        limits: UploadLimits {
            concurrency: config
                .limits
                .upload_concurrency
                .unwrap_or(SyncDefaults::UPLOAD_CONCURRENCY),
            ..UploadLimits::default()
        },
        ..Settings::new(databases.collect(), host_name())
    })
}

fn database_settings(name: String, path: PathBuf, sync: &SyncSection) -> DatabaseSettings {
    let interval = |interval: Option<Interval>, default| interval.map_or(default, |set| set.0);
    DatabaseSettings {
        sync_interval: interval(sync.wal_sync_interval, SyncDefaults::WAL_SYNC_INTERVAL),
        checkpoint: CheckpointSettings {
            min_pages: sync.min_checkpoint_page_count.unwrap_or(SyncDefaults::MIN_CHECKPOINT_PAGES),
            interval: interval(sync.checkpoint_interval, SyncDefaults::CHECKPOINT_INTERVAL),
            truncate_pages: sync
                .wal_truncate_threshold_pages
                .unwrap_or(SyncDefaults::WAL_TRUNCATE_THRESHOLD_PAGES),
            limit_pages: sync.wal_limit_pages.unwrap_or(SyncDefaults::WAL_LIMIT_PAGES),
        },
        wal_pin: match sync.wal_pin {
            None | Some(WalPinKind::Auto) => WalPin::Auto,
            Some(WalPinKind::Detached) => WalPin::Detached,
            Some(WalPinKind::Connection) => WalPin::Connection,
            Some(WalPinKind::None) => WalPin::None,
        },
        ..DatabaseSettings::new(name, path)
    }
}

/// One database that cannot be replicated is degraded and tried again; if that is so of all of
/// them, it is better to say so at once.
fn refuse_hopeless(settings: &Settings) -> Result<(), Error> {
    let checks = settings.databases.iter().map(|database| check_database(&database.path));
    let mut errors: Vec<_> = checks.filter_map(Result::err).collect();
    if errors.len() < settings.databases.len() {
        return Ok(());
    }
    match (errors.pop(), errors.is_empty()) {
        (Some(error), true) => Err(Error::Database(error)),
        (Some(error), false) => {
            errors.push(error);
            Err(Error::AllDatabases(errors))
        }
        (None, _) => Ok(()),
    }
}

/// The absolute path of a database. Symbolic links stay: where they lead may change.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::Io {
        what: format!("{}: cannot be made absolute", path.display()),
        source,
    })
}

/// Whether two paths lead to one file.
pub(super) fn is_same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|_| "unknown".to_owned())
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let listen = |kind| {
            signal(kind).map_err(|source| Error::Io {
                what: "cannot listen for signals".to_owned(),
                source,
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
