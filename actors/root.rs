//! RootSupervisor: starts everything, restarts what dies, and shuts everything down.
//!
//! # Messages in / out
//! In: [`RootMsg`] from outside the tree and from its children. Out: messages to every child.
//!
//! # Supervision
//! Each child has its own `walrust_engine::RestartPolicy`: a database that keeps crashing is
//! quarantined and nobody else notices. Shared actors are restarted behind their
//! [`Service`](crate::service::Service) handle; databases then offer again what they had offered.
//! Handlers here never fail: an error of the root would end the tree.
//!
//! # Shutdown
//! Every database ships what it has, writes its manifest, lets go of its files and reports with
//! [`RootMsg::Drained`]. When all have, or the deadline passes, the root answers with the names of
//! those that did not ship everything, and ends the tree. Nothing is lost either way: what was not shipped is
//! in the WAL, and the next start finds it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use walrust_engine::{RestartDecision, RestartPolicy};
use walrust_ltx::Txid;
use walrust_storage::ObjectStore;

use crate::blocking::{BlockingPool, Gate};
use crate::database::{DatabaseActor, DatabaseArguments, DatabaseMsg, Refusal};
use crate::retention::{RetentionActor, RetentionArguments, RetentionMsg};
use crate::services::Services;
use crate::settings::{DatabaseSettings, Settings};
use crate::snapshot_scheduler::{
    SnapshotSchedulerActor, SnapshotSchedulerArguments, SnapshotSchedulerMsg,
};
use crate::status::{DatabaseStatus, UploaderStatus};
use crate::uploader::{UploaderActor, UploaderArguments, UploaderMsg};
use crate::watcher::{Notified, WatchTarget, WatcherActor, WatcherMsg};
use crate::webhook::{WebhookActor, WebhookArguments};

/// Databases started in one turn, so that the root stays responsive while it starts many.
const SPAWNED_AT_ONCE: usize = 32;

/// What the root is told.
#[derive(Debug)]
pub(crate) enum RootMsg {
    /// Start the next few databases.
    SpawnNext,
    /// A child that died may be started again.
    RestartDue(Child),
    /// A database has let go of its files for the shutdown.
    Drained {
        /// Its name.
        name: String,
        /// Why not everything is shipped, if so.
        problem: Option<String>,
    },
    /// Take a snapshot of a database.
    Snapshot {
        /// Its name.
        name: String,
        /// Gets the TXID, or why there is no snapshot.
        reply: RpcReplyPort<Result<Txid, Refusal>>,
    },
    /// Ask a database for its status.
    Status {
        /// Its name.
        name: String,
        /// Gets the status; closed without an answer if there is no such database.
        reply: RpcReplyPort<DatabaseStatus>,
    },
    /// Ask the uploader for its status; closed without an answer while it is restarted.
    UploaderStatus(RpcReplyPort<UploaderStatus>),
    /// Ship everything and stop.
    Shutdown {
        /// How long shipping may take.
        timeout: Duration,
        /// Gets what was not shipped.
        reply: RpcReplyPort<Vec<NotShipped>>,
    },
    /// The shutdown has taken long enough.
    DeadlinePassed,
}

/// A database of which the last commits may not be in storage after a shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotShipped {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// A child of the root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Child {
    Uploader,
    Watcher,
    Snapshots,
    Retention,
    Webhook,
    Database(String),
}

/// The shared actors. The webhook comes first, so that it hears of the others.
const SERVICES: [Child; 5] =
    [Child::Webhook, Child::Uploader, Child::Watcher, Child::Snapshots, Child::Retention];

/// What the root gets.
#[derive(Debug)]
pub(crate) struct RootArguments {
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn ObjectStore>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RootSupervisor;

/// The children and what is needed to start them again.
#[derive(Debug)]
pub(crate) struct RootState {
    myself: ActorRef<RootMsg>,
    settings: Settings,
    store: Arc<dyn ObjectStore>,
    pool: BlockingPool,
    services: Services,
    databases: BTreeMap<String, DatabaseChild>,
    /// Names that were not started yet.
    to_spawn: Vec<String>,
    policies: HashMap<Child, RestartPolicy>,
    alive: HashMap<ActorId, Child>,
    shutdown: Option<Shutdown>,
}

#[derive(Debug)]
struct DatabaseChild {
    settings: DatabaseSettings,
    actor: Option<ActorRef<DatabaseMsg>>,
    gate: Gate,
    notified: Notified,
}

#[derive(Debug)]
struct Shutdown {
    /// Databases that have not reported.
    waiting: Vec<String>,
    not_shipped: Vec<NotShipped>,
    reply: Option<RpcReplyPort<Vec<NotShipped>>>,
}

impl Actor for RootSupervisor {
    type Msg = RootMsg;
    type State = RootState;
    type Arguments = RootArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<RootMsg>,
        arguments: RootArguments,
    ) -> Result<RootState, ActorProcessingErr> {
        let mut state = RootState::new(myself, arguments);
        for service in SERVICES {
            state.start(service).await?;
        }
        state.myself.cast(RootMsg::SpawnNext)?;
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ActorRef<RootMsg>,
        message: RootMsg,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMsg::SpawnNext => state.spawn_next().await,
            RootMsg::RestartDue(child) => state.restart(child).await,
            RootMsg::Drained { name, problem } => state.drained(&name, problem),
            RootMsg::Snapshot { name, reply } => state.snapshot(&name, reply),
            RootMsg::Status { name, reply } => state.status(&name, reply),
            RootMsg::UploaderStatus(reply) => state.uploader_status(reply),
            RootMsg::Shutdown { timeout, reply } => state.shut_down(timeout, reply),
            RootMsg::DeadlinePassed => state.deadline_passed(),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<RootMsg>,
        event: SupervisionEvent,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                state.child_died(cell.get_id(), &error.to_string());
            }
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                state.child_died(cell.get_id(), reason.as_deref().unwrap_or("it stopped"));
            }
            _ => {}
        }
        Ok(())
    }
}

impl RootState {
    fn new(myself: ActorRef<RootMsg>, arguments: RootArguments) -> Self {
        let RootArguments { settings, store } = arguments;
        let databases: BTreeMap<_, _> = settings
            .databases
            .iter()
            .map(|database| (database.name.clone(), DatabaseChild::new(database.clone())))
            .collect();
        Self {
            myself,
            store,
            pool: BlockingPool::new(),
            services: Services::new(),
            to_spawn: databases.keys().rev().cloned().collect(),
            databases,
            policies: HashMap::new(),
            alive: HashMap::new(),
            shutdown: None,
            settings,
        }
    }

    async fn spawn_next(&mut self) {
        for _ in 0..SPAWNED_AT_ONCE {
            let Some(name) = self.to_spawn.pop() else { return };
            self.restart(Child::Database(name)).await;
        }
        // Only a root that is ending takes no messages.
        let _ = self.myself.cast(RootMsg::SpawnNext);
    }

    async fn restart(&mut self, child: Child) {
        if self.shutdown.is_some() && matches!(child, Child::Database(_)) {
            return;
        }
        if let Err(error) = self.start(child.clone()).await {
            tracing::error!(?child, error, "cannot be started");
            self.schedule_restart(child);
        }
    }

    async fn start(&mut self, child: Child) -> Result<(), String> {
        let id = match &child {
            Child::Uploader => {
                let arguments = UploaderArguments {
                    store: Arc::clone(&self.store),
                    retry: self.settings.retry,
                    limits: self.settings.limits,
                    breaker: self.settings.breaker,
                    services: self.services.clone(),
                };
                let actor = self.spawn(UploaderActor, arguments).await?;
                self.services.uploader.set(actor.clone());
                self.tell_all(|| DatabaseMsg::UploaderRestarted);
                actor.get_id()
            }
            Child::Watcher => {
                let actor = self.spawn(WatcherActor, ()).await?;
                self.services.watcher.set(actor.clone());
                for name in self.databases.keys() {
                    self.watch(name);
                }
                actor.get_id()
            }
            Child::Snapshots => {
                let at_once = self.settings.snapshots_at_once;
                let arguments = SnapshotSchedulerArguments { at_once };
                let actor = self.spawn(SnapshotSchedulerActor, arguments).await?;
                self.services.snapshots.set(actor.clone());
                actor.get_id()
            }
            Child::Retention => {
                let arguments = RetentionArguments { store: Arc::clone(&self.store) };
                let actor = self.spawn(RetentionActor, arguments).await?;
                self.services.retention.set(actor.clone());
                actor.get_id()
            }
            Child::Webhook => {
                let arguments = WebhookArguments { webhooks: self.settings.webhooks.clone() };
                let actor = self.spawn(WebhookActor, arguments).await?;
                self.services.webhook.set(actor.clone());
                actor.get_id()
            }
            Child::Database(name) => {
                let Some(arguments) = self.arguments_of(name) else { return Ok(()) };
                let actor = self.spawn(DatabaseActor, arguments).await?;
                let id = actor.get_id();
                if let Some(database) = self.databases.get_mut(name) {
                    database.actor = Some(actor);
                }
                self.watch(name);
                id
            }
        };
        self.alive.insert(id, child);
        Ok(())
    }

    async fn spawn<A: Actor>(
        &self,
        actor: A,
        arguments: A::Arguments,
    ) -> Result<ActorRef<A::Msg>, String> {
        let supervisor = self.myself.get_cell();
        let spawned = Actor::spawn_linked(None, actor, arguments, supervisor).await;
        spawned.map(|(actor, _)| actor).map_err(|error| error.to_string())
    }

    /// Tells the shared actors that a database is not replicated at the moment.
    fn forget(&self, name: &str) {
        let database = || name.to_owned();
        self.services.uploader.cast(UploaderMsg::Forget { database: database() });
        self.services.snapshots.cast(SnapshotSchedulerMsg::Forget { database: database() });
        self.services.retention.cast(RetentionMsg::Forget { database: database() });
    }

    fn arguments_of(&self, name: &str) -> Option<DatabaseArguments> {
        let database = self.databases.get(name)?;
        // What an earlier incarnation was told and did not take is lost with it.
        database.notified.clear();
        Some(DatabaseArguments {
            settings: database.settings.clone(),
            store: Arc::clone(&self.store),
            services: self.services.clone(),
            root: self.myself.clone(),
            pool: self.pool.clone(),
            gate: database.gate.clone(),
            notified: database.notified.clone(),
            host: self.settings.host.clone(),
        })
    }

    fn watch(&self, name: &str) {
        let Some(database) = self.databases.get(name) else { return };
        let Some(actor) = &database.actor else { return };
        let target = WatchTarget {
            database: database.settings.path.clone(),
            actor: actor.clone(),
            notified: database.notified.clone(),
        };
        self.services.watcher.cast(WatcherMsg::Watch { name: name.to_owned(), target });
    }

    fn child_died(&mut self, id: ActorId, reason: &str) {
        let Some(child) = self.alive.remove(&id) else { return };
        if let Child::Database(name) = &child {
            self.forget(name);
            if let Some(database) = self.databases.get_mut(name) {
                database.actor = None;
            }
            if self.shutdown.is_some() {
                // Without an effect if it had reported.
                let problem = Some(format!("its actor died: {reason}"));
                let name = name.clone();
                return self.drained(&name, problem);
            }
        }
        tracing::error!(?child, reason, "an actor died");
        self.schedule_restart(child);
    }

    fn schedule_restart(&mut self, child: Child) {
        let settings = self.settings.restart;
        let policy =
            self.policies.entry(child.clone()).or_insert_with(|| RestartPolicy::new(settings));
        let delay = match policy.crashed(Instant::now(), fastrand::f64()) {
            RestartDecision::Restart(delay) => delay,
            RestartDecision::Quarantine(delay) => {
                tracing::error!(?child, ?delay, "crashes too often and is left alone");
                delay
            }
        };
        self.myself.send_after(delay, move || RootMsg::RestartDue(child));
    }

    fn snapshot(&self, name: &str, reply: RpcReplyPort<Result<Txid, Refusal>>) {
        // Dropping the reply tells the caller that there is no such database.
        if let Some(actor) = self.actor_of(name) {
            let _ = actor.cast(DatabaseMsg::Snapshot(reply));
        }
    }

    fn status(&self, name: &str, reply: RpcReplyPort<DatabaseStatus>) {
        if let Some(actor) = self.actor_of(name) {
            let _ = actor.cast(DatabaseMsg::Status(reply));
        }
    }

    fn uploader_status(&self, reply: RpcReplyPort<UploaderStatus>) {
        self.services.uploader.cast(UploaderMsg::Status(reply));
    }

    fn actor_of(&self, name: &str) -> Option<&ActorRef<DatabaseMsg>> {
        self.databases.get(name)?.actor.as_ref()
    }

    fn tell_all(&self, message: impl Fn() -> DatabaseMsg) {
        for actor in self.databases.values().filter_map(|database| database.actor.as_ref()) {
            // A dead one begins anew anyway.
            let _ = actor.cast(message());
        }
    }

    fn shut_down(&mut self, timeout: Duration, reply: RpcReplyPort<Vec<NotShipped>>) {
        let running = self.databases.iter().filter(|(_, database)| database.actor.is_some());
        let waiting = running.map(|(name, _)| name.clone()).collect();
        let stopped = self.databases.iter().filter(|(_, database)| database.actor.is_none());
        let not_shipped = stopped.map(|(name, _)| NotShipped {
            name: name.clone(),
            reason: "it was not running".to_owned(),
        });
        let not_shipped = not_shipped.collect();
        self.shutdown = Some(Shutdown { waiting, not_shipped, reply: Some(reply) });
        for name in self.databases.keys() {
            self.services.watcher.cast(WatcherMsg::Unwatch { name: name.clone() });
        }
        self.tell_all(|| DatabaseMsg::Drain);
        self.myself.send_after(timeout, || RootMsg::DeadlinePassed);
        self.finish_if_drained();
    }

    fn drained(&mut self, name: &str, problem: Option<String>) {
        let Some(shutdown) = &mut self.shutdown else { return };
        let Some(index) = shutdown.waiting.iter().position(|waiting| waiting == name) else {
            return;
        };
        shutdown.waiting.swap_remove(index);
        if let Some(reason) = problem {
            shutdown.not_shipped.push(NotShipped { name: name.to_owned(), reason });
        }
        self.finish_if_drained();
    }

    fn deadline_passed(&mut self) {
        let Some(shutdown) = &mut self.shutdown else { return };
        for name in std::mem::take(&mut shutdown.waiting) {
            let reason = "the deadline of the shutdown passed".to_owned();
            shutdown.not_shipped.push(NotShipped { name, reason });
        }
        self.finish_if_drained();
    }

    fn finish_if_drained(&mut self) {
        let Some(shutdown) = &mut self.shutdown else { return };
        if !shutdown.waiting.is_empty() {
            return;
        }
        if let Some(reply) = shutdown.reply.take() {
            let mut not_shipped = std::mem::take(&mut shutdown.not_shipped);
            not_shipped.sort_by(|a, b| a.name.cmp(&b.name));
            if reply.send(not_shipped).is_err() {
                tracing::debug!("nobody waits for the shutdown any more");
            }
        }
        self.myself.stop(None);
    }
}

impl DatabaseChild {
    fn new(settings: DatabaseSettings) -> Self {
        Self { settings, actor: None, gate: Gate::new(), notified: Notified::default() }
    }
}
