//! RootSupervisor: starts everything, restarts what dies, follows the settings, and shuts everything
//! down.
//!
//! # Messages in / out
//! In: [`RootMsg`] from outside the tree and from its children. Out: messages to every child.
//!
//! # Supervision
//! Each child has its own `walrust_engine::RestartPolicy`: a database that keeps crashing is
//! quarantined and nobody else notices. `walrust_engine::RestartRate` spreads the restarts of all of
//! them. Shared actors are restarted behind their [`Service`](crate::service::Service) handle;
//! databases then offer again what they had offered. Handlers here never fail and wait for nothing
//! but the start of an actor: an error of the root would end the tree, and with it the process.
//!
//! # Shutdown
//! Every database ships what it has, writes its manifest, lets go of its files and reports with
//! [`RootMsg::Drained`]. When all have, or the deadline passes, webhooks get a few seconds to deliver
//! what is queued. Then the root answers with the names of the databases that did not ship everything,
//! those that were paused or removed before included, and ends the tree. Nothing is lost either way:
//! what was not shipped is in the WAL, and the next start finds it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use walrust_engine::{EventKind, RestartPolicy, RestartRate};
use walrust_ltx::Txid;
use walrust_storage::ObjectStore;

use crate::blocking::BlockingPool;
use crate::database::{DatabaseMsg, Openings, Refusal, Resting};
use crate::event::Event;
use crate::lost_state::LostState;
use crate::request_rate::RequestRate;
use crate::services::Services;
use crate::settings::Settings;
use crate::status::{DatabasePhase, DatabaseStatus, UploaderStatus};
use crate::uploader::UploaderMsg;

mod changes;
mod children;
mod quarantine;
mod resting;
mod shutdown;
mod unshipped;

pub use changes::Applied;
pub(crate) use children::Child;
use children::{DatabaseChild, SERVICES};
use shutdown::Shutdown;
pub(crate) use shutdown::ShutdownReport;
pub use unshipped::NotShipped;
use unshipped::Retired;

/// Databases started in one turn, so that the root stays responsive while it starts many.
const SPAWNED_AT_ONCE: usize = 32;

/// Restarts a second, over all children.
const RESTARTS_PER_SECOND: u32 = 50;

/// What the root is told.
#[derive(Debug)]
pub(crate) enum RootMsg {
    /// Start the next few databases.
    SpawnNext,
    /// The time has come to start a child again that died.
    RestartDue(Child),
    /// It is its turn.
    RestartAdmitted(Child),
    /// A database has shipped what it can and let go of its files.
    Drained {
        /// Its name.
        name: String,
        /// Why not everything is shipped, if so.
        problem: Option<Refusal>,
    },
    /// The WAL of a database may have changed.
    WalChanged(String),
    /// A snapshot of a database is due.
    SnapshotDue(String),
    /// Storage cannot give the newest state of a database back.
    StateLost {
        /// Its name.
        name: String,
        /// What was found out.
        lost: LostState,
    },
    /// Nothing happens to a database, and its actor gives it up.
    Rested {
        /// Its name.
        name: String,
        /// The actor.
        actor: ActorId,
        /// What it knew.
        resting: Box<Resting>,
    },
    /// A message reached an actor that had given its database up.
    SentBack {
        /// Name of the database.
        name: String,
        /// The message.
        message: Box<DatabaseMsg>,
    },
    /// A database was told to let go of its files long enough ago.
    DrainOverdue {
        /// Its name.
        name: String,
        /// The incarnation that was told.
        incarnation: u64,
    },
    /// Take a snapshot of a database.
    Snapshot {
        /// Its name.
        name: String,
        /// Gets the TXID, or why there is no snapshot.
        reply: RpcReplyPort<Result<Txid, Refusal>>,
    },
    /// Ship everything that a database has committed.
    Sync {
        /// Its name.
        name: String,
        /// Gets the TXID that storage has then.
        reply: RpcReplyPort<Result<Option<Txid>, Refusal>>,
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
    /// Who is there?
    Roster(RpcReplyPort<Roster>),
    /// Let a database go until it is resumed.
    Pause {
        /// Its name.
        name: String,
        /// Gets why not everything was shipped before, if so; closed without an answer if there is
        /// no such database.
        reply: RpcReplyPort<Option<String>>,
    },
    /// Replicate a database again that was paused, or that another writer has stopped.
    Resume {
        /// Its name.
        name: String,
        /// Gets what the database was doing; closed without an answer if there is no such database.
        reply: RpcReplyPort<DatabasePhase>,
    },
    /// Follow other settings, and another store if one is given.
    Reconfigure {
        /// All settings.
        settings: Box<Settings>,
        /// The new store.
        store: Option<Arc<dyn ObjectStore>>,
        /// Gets what was changed.
        reply: RpcReplyPort<Applied>,
    },
    /// A changed configuration is not valid.
    ConfigRejected(String),
    /// Ship everything and stop.
    Shutdown {
        /// How long shipping may take.
        timeout: Duration,
        /// Gets what was not shipped.
        reply: RpcReplyPort<ShutdownReport>,
    },
    /// The shutdown has taken long enough.
    DeadlinePassed,
    /// The shutdown is to end at once.
    HurryShutdown,
    /// Webhooks have delivered what was queued, or had their time.
    Flushed,
}

/// The databases as the root sees them.
#[derive(Debug)]
pub(crate) struct Roster {
    /// Those that run and can be asked, and what is known of them if they do not answer.
    pub(crate) running: Vec<(DatabaseStatus, ActorRef<DatabaseMsg>)>,
    /// Those that do not.
    pub(crate) stopped: Vec<DatabaseStatus>,
    /// Why the newest configuration was not applied, if it was not.
    pub(crate) config_error: Option<String>,
}

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
    rate: RequestRate,
    pool: BlockingPool,
    openings: Arc<Openings>,
    services: Services,
    databases: BTreeMap<String, DatabaseChild>,
    retired: Retired,
    /// Names that were not started yet.
    to_spawn: Vec<String>,
    policies: HashMap<Child, RestartPolicy>,
    restart_rate: RestartRate,
    alive: HashMap<ActorId, Child>,
    config_error: Option<String>,
    shutdown: Option<Shutdown>,
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
            RootMsg::RestartDue(child) => state.restart_due(child).await,
            RootMsg::RestartAdmitted(child) => state.restart(child).await,
            RootMsg::Drained { name, problem } => state.drained(&name, problem).await,
            RootMsg::DrainOverdue { name, incarnation } => {
                state.drain_overdue(&name, incarnation).await;
            }
            RootMsg::WalChanged(name) => state.forward(&name, DatabaseMsg::WalChanged).await,
            RootMsg::SnapshotDue(name) => state.forward(&name, DatabaseMsg::SnapshotDue).await,
            RootMsg::StateLost { name, lost } => {
                state.forward(&name, DatabaseMsg::StateLost(lost)).await;
            }
            RootMsg::Rested { name, actor, resting } => state.rested(&name, actor, resting),
            RootMsg::SentBack { name, message } => state.sent_back(&name, *message).await,
            RootMsg::Snapshot { name, reply } => {
                state.forward(&name, DatabaseMsg::Snapshot(reply)).await;
            }
            RootMsg::Sync { name, reply } => {
                state.forward(&name, DatabaseMsg::Sync(reply)).await;
            }
            RootMsg::Status { name, reply } => state.status(&name, reply),
            RootMsg::UploaderStatus(reply) => {
                state.services.uploader.cast(UploaderMsg::Status(reply));
            }
            RootMsg::Roster(reply) => state.roster(reply),
            RootMsg::Pause { name, reply } => state.pause(&name, reply).await,
            RootMsg::Resume { name, reply } => state.resume(&name, reply).await,
            RootMsg::Reconfigure { settings, store, reply } => {
                state.reconfigure(*settings, store, reply).await;
            }
            RootMsg::ConfigRejected(error) => state.config_rejected(error),
            RootMsg::Shutdown { timeout, reply } => state.shut_down(timeout, reply).await,
            RootMsg::DeadlinePassed => state.deadline_passed(),
            RootMsg::HurryShutdown => state.hurry_shutdown(),
            RootMsg::Flushed => state.flushed(),
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
                state.child_died(cell.get_id(), &error.to_string(), true).await;
            }
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                let reason = reason.as_deref().unwrap_or("it stopped");
                state.child_died(cell.get_id(), reason, false).await;
            }
            _ => {}
        }
        Ok(())
    }
}

impl RootState {
    fn new(myself: ActorRef<RootMsg>, arguments: RootArguments) -> Self {
        let RootArguments { mut settings, store } = arguments;
        // With many databases one copy of their settings is enough.
        let databases: BTreeMap<_, _> = std::mem::take(&mut settings.databases)
            .into_iter()
            .map(|database| (database.name.clone(), DatabaseChild::new(database)))
            .collect();
        Self {
            myself,
            store,
            rate: RequestRate::new(settings.limits.requests_per_second),
            pool: BlockingPool::new(),
            openings: Arc::new(Openings::new()),
            services: Services::new(),
            to_spawn: databases.keys().rev().cloned().collect(),
            databases,
            retired: Retired::default(),
            policies: HashMap::new(),
            restart_rate: RestartRate::new(RESTARTS_PER_SECOND),
            alive: HashMap::new(),
            config_error: None,
            shutdown: None,
            settings,
        }
    }

    /// Dropping the question tells who asked that there is no such database.
    fn status(&self, name: &str, reply: RpcReplyPort<DatabaseStatus>) {
        let Some(database) = self.databases.get(name) else { return };
        match &database.actor {
            None => answer(reply, database.status()),
            // A dead one drops the question as well.
            Some(actor) => drop(actor.cast(DatabaseMsg::Status(reply))),
        }
    }

    fn roster(&self, reply: RpcReplyPort<Roster>) {
        let databases = self.databases.values();
        let running = databases.clone().filter_map(|it| Some((it.status(), it.actor.clone()?)));
        let running = running.collect();
        let stopped = databases.filter(|database| database.actor.is_none());
        let stopped = stopped.map(DatabaseChild::status).collect();
        answer(reply, Roster { running, stopped, config_error: self.config_error.clone() });
    }

    fn config_rejected(&mut self, error: String) {
        self.services.raise(Event::new(EventKind::ConfigRejected).error(&error));
        self.config_error = Some(error);
    }

    fn actor_of(&self, name: &str) -> Option<&ActorRef<DatabaseMsg>> {
        self.databases.get(name)?.actor.as_ref()
    }

    /// Tells it to the databases that do not rest.
    fn tell_running(&self, message: impl Fn() -> DatabaseMsg) {
        for actor in self.databases.values().filter_map(|database| database.actor.as_ref()) {
            // A dead one begins anew anyway.
            let _ = actor.cast(message());
        }
    }
}

/// Answers somebody who may have stopped waiting.
fn answer<T: Send + 'static>(reply: RpcReplyPort<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::debug!("nobody waits for an answer any more");
    }
}

#[cfg(test)]
mod tests;
