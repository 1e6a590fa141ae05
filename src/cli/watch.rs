//! `walrust watch`: the daemon.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use walrust_actors::{NotShipped, Replicator, Settings};
use walrust_sqlite::check_database;

use super::StorageArgs;
use super::control::SocketArgs;
use crate::Error;
use crate::config::{self, Config, Interval, RetentionSection, SyncSection, parse_interval};
use crate::control::{Served, Server};
use crate::follower::{Follower, Origin};
use crate::runtime::{descriptor_limit, give_memory_back, needed_descriptors};
use crate::settings::{self, Typed};
use crate::tenants::{Tenants, is_pattern};

/// How long shipping may take after the first signal.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Database files, or patterns in quotes, in addition to those of the configuration file
    #[arg(value_name = "DATABASE")]
    databases: Vec<PathBuf>,
    #[command(flatten)]
    keys: KeyArgs,
}

/// Flags that are keys of the configuration as well.
#[derive(Clone, Debug, Args)]
pub(super) struct KeyArgs {
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    sync: SyncArgs,
    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    socket: SocketArgs,
    /// Attempts after which a failing upload is logged as an error [default: 5]
    #[arg(long, value_name = "N", env = "WALRUST_MAX_RETRIES")]
    max_retries: Option<u32>,
}

impl KeyArgs {
    /// The place of the files, and what was typed of everything else.
    pub(super) fn split(self, databases: Vec<PathBuf>) -> (StorageArgs, Typed) {
        let (sync, retention) = (self.sync.section(), self.retention.section());
        let max_retries = self.max_retries;
        (self.storage, Typed { databases, sync, retention, max_retries })
    }
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
    /// A database that changed gets a snapshot this long after its last one; 0 never [default: 1h]
    #[arg(long, value_name = "DURATION", env = "WALRUST_SNAPSHOT_INTERVAL", value_parser = parse_interval)]
    snapshot_interval: Option<Interval>,
    /// A snapshot after this many commits; 0 never [default: 0]
    #[arg(long, value_name = "COMMITS", env = "WALRUST_MAX_CHANGES")]
    max_changes: Option<u64>,
    /// A snapshot at the latest this long after the first commit behind the last; 0 never
    /// [default: 0]
    #[arg(long, value_name = "DURATION", env = "WALRUST_MAX_INTERVAL", value_parser = parse_interval)]
    max_interval: Option<Interval>,
    /// A snapshot when a database that changed has been idle this long; 0 never [default: 0]
    #[arg(long, value_name = "DURATION", env = "WALRUST_ON_IDLE", value_parser = parse_interval)]
    on_idle: Option<Interval>,
    /// A snapshot at the start, of databases that changed since their last [default: false]
    #[arg(long, value_name = "BOOL", env = "WALRUST_ON_STARTUP")]
    on_startup: Option<bool>,
    /// Merge and remove what is old in a history after each snapshot [default: false]
    #[arg(long, value_name = "BOOL", env = "WALRUST_COMPACT_AFTER_SNAPSHOT", num_args = 0..=1, default_missing_value = "true")]
    compact_after_snapshot: Option<bool>,
    /// Merge and remove what is old in a history this often; 0 never [default: 0]
    #[arg(long, value_name = "DURATION", env = "WALRUST_COMPACT_INTERVAL", value_parser = parse_interval)]
    compact_interval: Option<Interval>,
    /// Prove this often that what is in storage can be restored; 0 never [default: 0]
    #[arg(long, value_name = "DURATION", env = "WALRUST_VALIDATION_INTERVAL", value_parser = parse_interval)]
    validation_interval: Option<Interval>,
}

/// Flags that are keys of `[retention]` as well.
#[derive(Clone, Debug, Default, Args)]
struct RetentionArgs {
    /// The newest snapshot of each of so many hours stays, and every state of these hours
    /// [default: 24]
    #[arg(long, value_name = "HOURS", env = "WALRUST_RETAIN_HOURLY")]
    retain_hourly: Option<u32>,
    /// The newest snapshot of each of so many days stays [default: 7]
    #[arg(long, value_name = "DAYS", env = "WALRUST_RETAIN_DAILY")]
    retain_daily: Option<u32>,
    /// The newest snapshot of each of so many ISO weeks stays [default: 12]
    #[arg(long, value_name = "WEEKS", env = "WALRUST_RETAIN_WEEKLY")]
    retain_weekly: Option<u32>,
    /// The newest snapshot of each of so many months stays [default: 12]
    #[arg(long, value_name = "MONTHS", env = "WALRUST_RETAIN_MONTHLY")]
    retain_monthly: Option<u32>,
}

impl RetentionArgs {
    fn section(&self) -> RetentionSection {
        RetentionSection {
            hourly: self.retain_hourly,
            daily: self.retain_daily,
            weekly: self.retain_weekly,
            monthly: self.retain_monthly,
        }
    }
}

impl SyncArgs {
    fn section(&self) -> SyncSection {
        SyncSection {
            wal_sync_interval: self.wal_sync_interval,
            checkpoint_interval: self.checkpoint_interval,
            min_checkpoint_page_count: self.min_checkpoint_pages,
            wal_truncate_threshold_pages: self.wal_truncate_threshold,
            snapshot_interval: self.snapshot_interval,
            max_changes: self.max_changes,
            max_interval: self.max_interval,
            on_idle: self.on_idle,
            on_startup: self.on_startup,
            compact_after_snapshot: self.compact_after_snapshot,
            compact_interval: self.compact_interval,
            validation_interval: self.validation_interval,
            ..SyncSection::default()
        }
    }
}

pub(super) async fn run(args: WatchArgs, file: Option<&Path>) -> Result<(), Error> {
    let file = config::find(file)?;
    let config = file.as_deref().map_or_else(|| Ok(Config::default()), config::read)?;
    let WatchArgs { databases, keys } = args;
    let socket = keys.socket.clone();
    let (storage, typed) = keys.split(databases);
    let mut tenants = Tenants::default();
    let settings = settings::resolve(&config, &typed, &mut tenants)?;
    let patterns = config.databases.iter().map(|section| &section.path).chain(&typed.databases);
    let patterns = patterns.filter(|path| is_pattern(path)).count();
    check_start(&settings, patterns)?;
    let store = storage.open(&config).await?;
    let mut signals = Signals::new()?;
    let mut hangup = listen_for(SignalKind::hangup())?;
    // A name that no object has: the answer is short, and tells whether the store can be used.
    let prefix = format!("{}/", settings.databases.first().map_or("", |first| &first.name));
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
    let replicator = Replicator::start(settings.clone(), store).await?;
    let served =
        Arc::new(Served { replicator: replicator.clone(), storage: ArcSwap::from_pointee(url) });
    let _control = listen(&socket, &config, &served).await?;
    let mut follower = Follower::new(Origin { file, typed, storage }, config, tenants, settings);
    tokio::select! {
        () = signals.next() => {}
        () = give_memory_back() => {}
        () = follower.follow(&served, &mut hangup) => {}
        () = replicator.ended() => return Err(Error::TreeFailed),
    }
    tracing::info!("stopping; a second signal stops at once");
    let mut ending = pin!(replicator.shut_down(SHUTDOWN_TIMEOUT));
    let not_shipped = tokio::select! {
        not_shipped = &mut ending => not_shipped?,
        () = signals.next() => {
            replicator.hurry_shutdown()?;
            ending.await?
        }
    };
    if not_shipped.is_empty() {
        tracing::info!("stopped, everything is in storage");
        return Ok(());
    }
    Err(Error::NotShipped(not_shipped))
}

/// Opens the control socket. A daemon goes on without one if nobody asked for it by name: a second
/// daemon of the same user has no place for its own.
async fn listen(
    socket: &SocketArgs,
    config: &Config,
    served: &Arc<Served>,
) -> Result<Option<Server>, Error> {
    let (path, named) = socket.resolve(config);
    match Server::start(&path, Arc::clone(served)).await {
        Ok(server) => Ok(Some(server)),
        Err(source) if named => {
            let what = format!("cannot listen on the control socket {}", path.display());
            Err(Error::Io { what, source })
        }
        Err(error) => {
            let path = path.display();
            tracing::warn!(%path, %error, "no control socket; name another with --control-socket");
            Ok(None)
        }
    }
}

/// Refuses to start where that can be said without storage. New databases may match `patterns`.
pub(super) fn check_start(settings: &Settings, patterns: usize) -> Result<(), Error> {
    if settings.databases.is_empty() && patterns == 0 {
        let problem =
            "no database is named; give paths, or [[databases]] in the configuration file";
        return Err(Error::Usage(problem.to_owned()));
    }
    refuse_hopeless(settings)?;
    check_descriptors(settings.databases.len())
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

/// Better one clear sentence at the start than a few hundred databases that cannot be opened.
fn check_descriptors(databases: usize) -> Result<(), Error> {
    let (needed, limit) = (needed_descriptors(databases), descriptor_limit());
    if needed > limit {
        return Err(Error::DescriptorLimit { databases, needed, limit });
    }
    Ok(())
}

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self {
            terminate: listen_for(SignalKind::terminate())?,
            interrupt: listen_for(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn listen_for(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind)
        .map_err(|source| Error::Io { what: "cannot listen for signals".to_owned(), source })
}
