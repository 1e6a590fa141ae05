//! `walrust watch`: the daemon.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use clap::Args;
use walrust_actors::{NotShipped, Replicator, Settings};
use walrust_sqlite::check_database;

use super::control::SocketArgs;
use super::keys::KeyArgs;
use super::signals::{Signals, hangup};
use crate::Error;
use crate::config::{self, Config};
use crate::control::{Listening, Served};
use crate::follower::{Follower, Origin};
use crate::pattern::is_pattern;
use crate::problems::Problems;
use crate::resolver::{Resolution, Resolver};
use crate::runtime::{check_descriptors, give_memory_back};

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

pub(super) async fn run(args: WatchArgs, file: Option<&Path>) -> Result<(), Error> {
    let file = config::find(file)?;
    let config = file.as_deref().map_or_else(|| Ok(Config::default()), config::read)?;
    let WatchArgs { databases, keys } = args;
    let socket = keys.socket.clone();
    let (storage, typed) = keys.split(databases);
    let mut resolver = Resolver::default();
    let Resolution { settings, left_out } = resolver.resolve(&config, &typed)?;
    let patterns = config.databases.iter().map(|section| &section.path).chain(&typed.databases);
    let patterns = patterns.filter(|path| is_pattern(path)).count();
    if settings.databases.is_empty() && patterns == 0 && !left_out.is_empty() {
        return Err(Error::AllDatabases(left_out.into_iter().map(|it| it.error).collect()));
    }
    check_start(&settings, patterns)?;
    let store = storage.open(&config).await?;
    let mut signals = Signals::new()?;
    let mut hangup = hangup()?;
    // A name that no object has: the answer is short, and tells whether the store can be used.
    let name = settings.databases.first().map_or("walrust", |first| &first.name);
    let prefix = format!("{name}/");
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
        tracing::warn!(%error, "storage cannot be reached; databases wait for it");
    }
    let (databases, url) = (settings.databases.len(), store.url());
    tracing::info!(databases, %url, "replicating");
    // Before anything is replicated: who finds a database replicated can ask who does it.
    let listening = listen(&socket, &config).await?;
    let replicator = Replicator::start(settings.clone(), store).await?;
    let served = Arc::new(Served {
        replicator: replicator.clone(),
        storage: ArcSwap::from_pointee(url),
        problems: ArcSwap::from_pointee(Problems::default()),
    });
    let _control = listening.map(|listening| listening.serve(Arc::clone(&served)));
    let mut follower = Follower::new(Origin { file, typed, storage }, config, resolver, settings);
    follower.leave_out(&served, &left_out);
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
async fn listen(socket: &SocketArgs, config: &Config) -> Result<Option<Listening>, Error> {
    let socket = socket.resolve(config);
    let path = socket.path().display();
    match Listening::on(&socket).await {
        Ok(listening) => Ok(Some(listening)),
        Err(source) if socket.is_named() => {
            let what = format!("cannot listen on the control socket {path}");
            Err(Error::Io { what, source })
        }
        Err(error) => {
            tracing::warn!(%path, %error, "running without a control socket; choose another with --control-socket");
            Ok(None)
        }
    }
}

/// Refuses to start where that can be said without storage. New databases may match `patterns`.
pub(super) fn check_start(settings: &Settings, patterns: usize) -> Result<(), Error> {
    if settings.databases.is_empty() && patterns == 0 {
        let problem =
            "no databases given; name paths, or add [[databases]] to the configuration file";
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
