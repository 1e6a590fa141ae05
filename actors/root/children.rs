//! The children of the root: how each is started, and what follows when one dies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorId, ActorRef, RpcReplyPort};
use walrust_engine::{DeliveryPolicy, RestartDecision, RestartPolicy, RestartSettings};
use walrust_storage::ObjectStore;

use super::{RootMsg, RootState, SPAWNED_AT_ONCE};
use crate::blocking::Gate;
use crate::database::{
    Availability, Cause, DatabaseActor, DatabaseArguments, DatabaseMsg, Known, Refusal, Resting,
    Standing,
};
use crate::request_rate::PacedStore;
use crate::retention::{RetentionActor, RetentionArguments, RetentionMsg};
use crate::settings::DatabaseSettings;
use crate::snapshot_scheduler::{
    SnapshotSchedulerActor, SnapshotSchedulerArguments, SnapshotSchedulerMsg,
};
use crate::status::{DatabasePhase, DatabaseStatus};
use crate::uploader::{UploaderActor, UploaderArguments, UploaderMsg};
use crate::validation::{ValidationActor, ValidationArguments, ValidationMsg};
use crate::watcher::{Notified, WatchTarget, WatcherActor, WatcherMsg};
use crate::webhook::{WebhookActor, WebhookArguments};

/// A child of the root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Child {
    Uploader,
    Watcher,
    Snapshots,
    Retention,
    Validation,
    Webhook,
    Database(String),
}

/// The shared actors. The webhook comes first, so that it hears of the others.
pub(super) const SERVICES: [Child; 6] = [
    Child::Webhook,
    Child::Uploader,
    Child::Watcher,
    Child::Snapshots,
    Child::Retention,
    Child::Validation,
];

/// The longest pause of a shared actor that keeps crashing.
const SERVICE_PAUSE: Duration = Duration::from_secs(5);

/// What is to become of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// It is replicated.
    Run,
    /// It is let go of until somebody resumes it.
    Pause,
    /// It is let go of for good; its history stays.
    Remove,
    /// It is let go of and started with other settings.
    Replace,
}

/// One database: what outlives the incarnations of its actor.
#[derive(Debug)]
pub(super) struct DatabaseChild {
    pub(super) settings: DatabaseSettings,
    pub(super) actor: Option<ActorRef<DatabaseMsg>>,
    /// What is known of it while nothing happens to it; then it has no actor.
    pub(super) resting: Option<Box<Resting>>,
    /// Lets one incarnation work at a time.
    pub(super) gate: Gate,
    pub(super) notified: Notified,
    pub(super) availability: Availability,
    pub(super) standing: Standing,
    /// Number of the incarnation; the first is 1.
    pub(super) incarnation: u64,
    /// How often it was started or given other settings.
    pub(super) revision: u64,
    pub(super) wish: Wish,
    /// Who waits until it is paused.
    pub(super) waiters: Vec<RpcReplyPort<Option<String>>>,
    /// Why not everything was in storage when it was let go of, if so, until it is started again.
    pub(super) left_behind: Option<Refusal>,
    /// Why the last incarnation died, until the next one runs.
    crash: Option<String>,
    pub(super) quarantined: bool,
}

impl DatabaseChild {
    pub(super) fn new(settings: DatabaseSettings) -> Self {
        Self {
            settings,
            actor: None,
            resting: None,
            gate: Gate::new(),
            notified: Notified::default(),
            availability: Availability::default(),
            standing: Standing::default(),
            incarnation: 0,
            revision: 0,
            wish: Wish::Run,
            waiters: Vec::new(),
            left_behind: None,
            crash: None,
            quarantined: false,
        }
    }

    /// Why the last incarnation died, until the next one runs.
    pub(super) fn crash(&self) -> Option<&str> {
        self.crash.as_deref()
    }

    /// Whether nothing of it is open: it neither has an actor nor rests.
    pub(super) fn is_stopped(&self) -> bool {
        self.actor.is_none() && self.resting.is_none()
    }

    /// The status of a database whose actor does not run.
    pub(super) fn status(&self) -> DatabaseStatus {
        if let Some(resting) = &self.resting {
            let (incarnation, revision) = (self.incarnation, self.revision);
            return DatabaseStatus { incarnation, revision, ..resting.status(&self.settings) };
        }
        let phase = match (self.wish, self.quarantined) {
            (Wish::Pause, _) => return self.paused_status(),
            (_, true) => DatabasePhase::Quarantined,
            _ => DatabasePhase::Restarting,
        };
        DatabaseStatus {
            incarnation: self.incarnation,
            revision: self.revision,
            last_error: self.crash.clone(),
            ..DatabaseStatus::new(&self.settings, phase)
        }
    }

    /// The status of a paused database: where it was when it was let go of.
    fn paused_status(&self) -> DatabaseStatus {
        let Known { txid, wal_pages, staged_files, staged_bytes, .. } = self.standing.known();
        let known = DatabaseStatus {
            txid,
            incarnation: self.incarnation,
            revision: self.revision,
            ..DatabaseStatus::new(&self.settings, DatabasePhase::Paused)
        };
        match &self.left_behind {
            None => known,
            Some(Refusal { reason, .. }) => DatabaseStatus {
                wal_pages,
                staged_files,
                staged_bytes,
                last_error: Some(reason.clone()),
                ..known
            },
        }
    }
}

impl RootState {
    pub(super) async fn spawn_next(&mut self) {
        for _ in 0..SPAWNED_AT_ONCE {
            let Some(name) = self.to_spawn.pop() else { return };
            self.restart(Child::Database(name)).await;
        }
        // Only a root that is ending takes no messages.
        let _ = self.myself.cast(RootMsg::SpawnNext);
    }

    /// A child may be started again, when it is its turn.
    pub(super) async fn restart_due(&mut self, child: Child) {
        let wait = self.restart_rate.admit(Instant::now());
        if wait.is_zero() {
            return self.restart(child).await;
        }
        self.myself.send_after(wait, move || RootMsg::RestartAdmitted(child));
    }

    /// Starts a child that does not run and is wanted.
    pub(super) async fn restart(&mut self, child: Child) {
        if let Child::Database(name) = &child {
            let database = self.databases.get(name);
            let wanted = |it: &DatabaseChild| it.is_stopped() && it.wish == Wish::Run;
            if self.shutdown.is_some() || !database.is_some_and(wanted) {
                return;
            }
        } else if self.alive.values().any(|alive| *alive == child) {
            // A change of the settings has started it while it waited for its turn.
            return;
        }
        if let Err(error) = self.start(child.clone()).await {
            tracing::error!(?child, error, "cannot be started");
            self.schedule_restart(child, &error);
        }
    }

    pub(super) async fn start(&mut self, child: Child) -> Result<(), String> {
        let id = match &child {
            Child::Uploader => {
                let arguments = UploaderArguments {
                    store: Arc::clone(&self.store),
                    retry: self.settings.retry,
                    limits: self.settings.limits,
                    breaker: self.settings.breaker,
                    rate: self.rate.clone(),
                    services: self.services.clone(),
                };
                let actor = self.spawn(UploaderActor, arguments).await?;
                self.services.uploader.set(actor.clone());
                self.tell_running(|| DatabaseMsg::UploaderRestarted);
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
                let root = self.myself.clone();
                let arguments = SnapshotSchedulerArguments { at_once, root };
                let actor = self.spawn(SnapshotSchedulerActor, arguments).await?;
                self.services.snapshots.set(actor.clone());
                self.tell_all(|| DatabaseMsg::SchedulerRestarted).await;
                actor.get_id()
            }
            Child::Retention => {
                let arguments = RetentionArguments { store: self.paced_store() };
                let actor = self.spawn(RetentionActor, arguments).await?;
                self.services.retention.set(actor.clone());
                self.tell_all(|| DatabaseMsg::RetentionRestarted).await;
                actor.get_id()
            }
            Child::Validation => {
                let arguments = ValidationArguments {
                    store: self.paced_store(),
                    services: self.services.clone(),
                    root: self.myself.clone(),
                };
                let actor = self.spawn(ValidationActor, arguments).await?;
                self.services.validation.set(actor.clone());
                self.tell_all(|| DatabaseMsg::ValidationRestarted).await;
                actor.get_id()
            }
            Child::Webhook => {
                let arguments = WebhookArguments {
                    webhooks: self.settings.webhooks.clone(),
                    policy: DeliveryPolicy::default(),
                };
                let actor = self.spawn(WebhookActor, arguments).await?;
                self.services.webhook.set(actor.clone());
                actor.get_id()
            }
            Child::Database(name) => {
                self.begin_incarnation(name);
                let Some(arguments) = self.arguments_of(name) else { return Ok(()) };
                let actor = self.spawn(DatabaseActor, (arguments, None)).await?;
                let id = actor.get_id();
                if let Some(database) = self.databases.get_mut(name) {
                    database.actor = Some(actor);
                    database.quarantined = false;
                }
                self.watch(name);
                id
            }
        };
        self.alive.insert(id, child);
        Ok(())
    }

    pub(super) fn spawn<A: Actor>(
        &self,
        actor: A,
        arguments: A::Arguments,
    ) -> impl Future<Output = Result<ActorRef<A::Msg>, String>> + Send + use<A> {
        let supervisor = self.myself.get_cell();
        async move {
            let spawned = Actor::spawn_linked(None, actor, arguments, supervisor).await;
            spawned.map(|(actor, _)| actor).map_err(|error| error.to_string())
        }
    }

    fn begin_incarnation(&mut self, name: &str) {
        let Some(database) = self.databases.get_mut(name) else { return };
        // What an earlier incarnation was told and did not take is lost with it.
        database.notified.clear();
        database.left_behind = None;
        database.incarnation += 1;
        database.revision += 1;
    }

    pub(super) fn arguments_of(&self, name: &str) -> Option<DatabaseArguments> {
        let database = self.databases.get(name)?;
        Some(DatabaseArguments {
            settings: database.settings.clone(),
            incarnation: database.incarnation,
            revision: database.revision,
            store: self.paced_store(),
            services: self.services.clone(),
            root: self.myself.clone(),
            pool: self.pool.clone(),
            openings: Arc::clone(&self.openings),
            gate: database.gate.clone(),
            notified: database.notified.clone(),
            availability: database.availability.clone(),
            standing: database.standing.clone(),
            rest_after: self.settings.rest_after,
            manifest_interval: self.settings.manifest_interval,
            host: self.settings.host.clone(),
        })
    }

    /// The store for everybody but the uploader, which looks at the rate itself.
    fn paced_store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(PacedStore::new(Arc::clone(&self.store), self.rate.clone()))
    }

    fn watch(&self, name: &str) {
        let Some(database) = self.databases.get(name) else { return };
        if database.is_stopped() {
            return;
        }
        let target = WatchTarget {
            name: name.to_owned(),
            database: database.settings.path.clone(),
            root: self.myself.clone(),
            notified: database.notified.clone(),
        };
        self.services.watcher.cast(WatcherMsg::Watch { name: name.to_owned(), target });
    }

    /// Tells the shared actors that a database is not replicated at the moment.
    pub(super) fn forget(&self, name: &str) {
        let database = || name.to_owned();
        self.services.uploader.cast(UploaderMsg::Forget { database: database() });
        self.services.snapshots.cast(SnapshotSchedulerMsg::Forget { database: database() });
        self.services.retention.cast(RetentionMsg::Forget { database: database() });
        self.services.validation.cast(ValidationMsg::Forget { database: database() });
    }

    pub(super) async fn child_died(&mut self, id: ActorId, reason: &str, crashed: bool) {
        let Some(child) = self.alive.remove(&id) else { return };
        if let Child::Database(name) = &child {
            let Some(database) = self.databases.get_mut(name) else { return };
            if database.actor.as_ref().is_none_or(|actor| actor.get_id() != id) {
                if crashed {
                    tracing::error!(?child, reason, "an actor died");
                }
                return self.see_off(name).await;
            }
            tracing::error!(?child, reason, "an actor died");
            self.forget(name);
            let Some(database) = self.databases.get_mut(name) else { return };
            database.actor = None;
            database.crash = Some(format!("its actor died: {reason}"));
            let problem = database.crash.clone().map(|crash| Refusal::new(Cause::Other, crash));
            if self.shutdown.is_some() {
                return self.drained_for_shutdown(name, problem);
            }
            if database.wish != Wish::Run {
                return self.let_go(name, problem).await;
            }
        } else {
            tracing::error!(?child, reason, "an actor died");
        }
        self.schedule_restart(child, reason);
    }

    pub(super) fn schedule_restart(&mut self, child: Child, reason: &str) {
        let settings = match &child {
            Child::Database(_) => self.settings.restart,
            // Everybody needs it: it is never left alone for long.
            _ => RestartSettings {
                max_delay: self.settings.restart.max_delay.min(SERVICE_PAUSE),
                quarantine: self.settings.restart.quarantine.min(SERVICE_PAUSE),
                ..self.settings.restart
            },
        };
        let policy =
            self.policies.entry(child.clone()).or_insert_with(|| RestartPolicy::new(settings));
        let delay = match policy.crashed(Instant::now(), fastrand::f64()) {
            RestartDecision::Restart(delay) => delay,
            RestartDecision::Quarantine(delay) => {
                tracing::error!(?child, ?delay, reason, "crashes too often and is left alone");
                self.quarantined(&child, reason, delay);
                delay
            }
        };
        self.myself.send_after(delay, move || RootMsg::RestartDue(child));
    }
}
