//! Changes of what is replicated while the tree runs.
//!
//! Invariant: a database that a change does not concern keeps its actor, its pin and its position.
//! One that goes ships what it can first, but never holds up a change for longer than
//! [`DRAIN_TIMEOUT`]: what it has not shipped is in its WAL and in local state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ractor::RpcReplyPort;
use walrust_engine::Diff;
use walrust_storage::ObjectStore;

use super::children::{DatabaseChild, SERVICES, Wish};
use super::{Child, RootMsg, RootState, answer};
use crate::database::{Cause, DatabaseMsg, Refusal};
use crate::service::Service;
use crate::settings::{DatabaseSettings, Settings};
use crate::status::DatabasePhase;
use crate::watcher::WatcherMsg;
use crate::webhook::WebhookMsg;

/// How long a database may ship before it has to go.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What a change of the settings came to, by name of database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Replicated from now on.
    pub added: Vec<String>,
    /// Not replicated any more; their history stays.
    pub removed: Vec<String>,
    /// Replicated with other settings.
    pub changed: Vec<String>,
}

impl RootState {
    pub(super) async fn reconfigure(
        &mut self,
        settings: Settings,
        store: Option<Arc<dyn ObjectStore>>,
        reply: RpcReplyPort<Applied>,
    ) {
        self.config_error = None;
        let by_name = |databases: &[DatabaseSettings]| -> BTreeMap<String, DatabaseSettings> {
            databases.iter().map(|it| (it.name.clone(), it.clone())).collect()
        };
        let new = by_name(&settings.databases);
        let wanted = self.databases.values().filter(|it| it.wish != Wish::Remove);
        let old = wanted.map(|it| (it.settings.name.clone(), it.settings.clone())).collect();
        let settings = Settings { databases: Vec::new(), ..settings };
        let before = std::mem::replace(&mut self.settings, settings);
        let new_store = store.is_some();
        self.store = store.unwrap_or_else(|| Arc::clone(&self.store));
        self.rate.set(self.settings.limits.requests_per_second);
        self.restart_services(&before, new_store).await;
        if new_store {
            self.move_to_new_store().await;
        }
        let Diff { add, remove, change } = walrust_engine::diff(&old, &new);
        for name in &remove {
            self.retire(name, Wish::Remove).await;
        }
        for name in &change {
            self.change(new[name].clone()).await;
        }
        for name in &add {
            self.add(new[name].clone());
        }
        let _ = self.myself.cast(RootMsg::SpawnNext);
        answer(reply, Applied { added: add, removed: remove, changed: change });
    }

    /// Starts the shared actors anew whose settings changed.
    async fn restart_services(&mut self, before: &Settings, new_store: bool) {
        for service in SERVICES {
            let now = &self.settings;
            let changed = match service {
                Child::Uploader => {
                    new_store
                        || (before.retry, before.limits, before.breaker)
                            != (now.retry, now.limits, now.breaker)
                }
                Child::Retention | Child::Validation => new_store,
                Child::Snapshots => before.snapshots_at_once != now.snapshots_at_once,
                // It changes its receivers while it runs, and keeps what they have not got yet.
                Child::Webhook => {
                    if before.webhooks != now.webhooks {
                        let webhooks = now.webhooks.clone();
                        self.services.webhook.cast(WebhookMsg::Reconfigure(webhooks));
                    }
                    false
                }
                Child::Watcher | Child::Database(_) => false,
            };
            if !changed {
                continue;
            }
            if new_store && service == Child::Uploader {
                // Whoever still works on the old store keeps the old handle, behind which there
                // will be nobody: nothing of it can get into the new store.
                self.services.uploader = Service::new();
            }
            self.replace_service(service).await;
        }
    }

    /// The store is another one: every database looks up its position there.
    async fn move_to_new_store(&mut self) {
        for name in self.databases.keys().cloned().collect::<Vec<_>>() {
            let database = &self.databases[&name];
            let runs = database.actor.is_some() || database.resting.is_some();
            let wish = database.wish;
            self.stop_actor(&name);
            match wish {
                Wish::Run => self.to_spawn.push(name),
                // It was about to go, and what it had left to ship belongs to the old store.
                _ if runs => {
                    let problem = Refusal::new(Cause::Storage, "the store was changed meanwhile");
                    self.let_go(&name, Some(problem)).await;
                }
                _ => {}
            }
        }
    }

    fn add(&mut self, settings: DatabaseSettings) {
        let name = settings.name.clone();
        match self.databases.get_mut(&name) {
            // It is still letting go.
            Some(database) => {
                database.settings = settings;
                database.wish = Wish::Replace;
            }
            None => {
                self.databases.insert(name.clone(), DatabaseChild::new(settings));
                self.to_spawn.push(name);
            }
        }
    }

    async fn change(&mut self, settings: DatabaseSettings) {
        let Some(database) = self.databases.get_mut(&settings.name) else { return };
        let (name, before) = (settings.name.clone(), &database.settings);
        let same_files = (&before.path, before.wal_pin, &before.state_directory)
            == (&settings.path, settings.wal_pin, &settings.state_directory);
        database.settings = settings.clone();
        if !same_files && database.wish != Wish::Pause {
            return self.retire(&name, Wish::Replace).await;
        }
        database.revision += 1;
        let revision = database.revision;
        // One that does not run gets them when it is started.
        self.forward(&name, DatabaseMsg::Reconfigured { settings: Box::new(settings), revision })
            .await;
    }

    pub(super) async fn pause(&mut self, name: &str, reply: RpcReplyPort<Option<String>>) {
        // Dropping the reply tells the caller that there is no such database.
        let Some(database) = self.databases.get_mut(name) else { return };
        match database.wish {
            Wish::Pause if database.is_stopped() => {
                answer(reply, database.problem_of_stopped().map(|problem| problem.reason));
            }
            Wish::Remove => {}
            Wish::Run | Wish::Pause | Wish::Replace => {
                database.waiters.push(reply);
                self.retire(name, Wish::Pause).await;
            }
        }
    }

    pub(super) async fn resume(&mut self, name: &str, reply: RpcReplyPort<DatabasePhase>) {
        let Some(database) = self.databases.get_mut(name) else { return };
        if database.wish != Wish::Pause {
            return match &database.actor {
                None => answer(reply, database.status().phase),
                // A dead one drops the question, as it does any other.
                Some(actor) => drop(actor.cast(DatabaseMsg::Resume(reply))),
            };
        }
        let stopped = database.is_stopped();
        database.wish = if stopped { Wish::Run } else { Wish::Replace };
        if stopped {
            tracing::info!(db = name, "resumed");
            self.restart(Child::Database(name.to_owned())).await;
        }
        answer(reply, DatabasePhase::Paused);
    }

    /// Has a database ship what it can and let go of its files; then the wish comes true.
    async fn retire(&mut self, name: &str, wish: Wish) {
        let Some(database) = self.databases.get_mut(name) else { return };
        let stopped = database.problem_of_stopped();
        database.wish = wish;
        self.wake(name).await;
        let Some(database) = self.databases.get_mut(name) else { return };
        let Some(actor) = &database.actor else { return self.let_go(name, stopped).await };
        self.services.watcher.cast(WatcherMsg::Unwatch { name: name.to_owned() });
        // A dead one is heard of in another way.
        let _ = actor.cast(DatabaseMsg::Drain);
        let (name, incarnation) = (name.to_owned(), database.incarnation);
        self.myself.send_after(DRAIN_TIMEOUT, move || RootMsg::DrainOverdue { name, incarnation });
    }

    pub(super) async fn drained(&mut self, name: &str, problem: Option<Refusal>) {
        if self.shutdown.is_some() {
            return self.drained_for_shutdown(name, problem);
        }
        self.let_go(name, problem).await;
    }

    pub(super) async fn drain_overdue(&mut self, name: &str, incarnation: u64) {
        let same = |it: &DatabaseChild| {
            it.actor.is_some() && it.incarnation == incarnation && it.wish != Wish::Run
        };
        if self.shutdown.is_none() && self.databases.get(name).is_some_and(same) {
            let problem = self.too_late(name, "not everything was in storage in time");
            self.let_go(name, Some(problem)).await;
        }
    }

    /// A database has let go of its files, or does so now: what was wished for it comes true.
    pub(super) async fn let_go(&mut self, name: &str, problem: Option<Refusal>) {
        self.stop_actor(name);
        let Some(database) = self.databases.get_mut(name) else { return };
        if let Some(problem) = &problem {
            let problem = &problem.reason;
            tracing::warn!(db = name, problem, "let go of before everything was shipped");
        }
        for waiter in std::mem::take(&mut database.waiters) {
            answer(waiter, problem.as_ref().map(|problem| problem.reason.clone()));
        }
        match database.wish {
            Wish::Pause => {
                database.left_behind = problem;
                tracing::info!(db = name, "paused");
            }
            Wish::Remove => {
                if let Some(gone) = self.databases.remove(name) {
                    self.retired.went(&gone, problem.as_ref());
                }
                self.policies.remove(&Child::Database(name.to_owned()));
                tracing::info!(db = name, "not replicated any more; its history stays");
            }
            Wish::Run | Wish::Replace => {
                database.wish = Wish::Run;
                self.restart(Child::Database(name.to_owned())).await;
            }
        }
    }

    /// Ends the actor of a database; its end is not a death. A job that it has begun runs on, and
    /// the gate keeps a successor waiting for it.
    fn stop_actor(&mut self, name: &str) {
        let Some(database) = self.databases.get_mut(name) else { return };
        let rested = database.resting.take().is_some();
        let Some(actor) = database.actor.take() else {
            if rested {
                self.forget(name);
            }
            return;
        };
        self.alive.remove(&actor.get_id());
        actor.stop(None);
        self.forget(name);
    }

    /// Ends a shared actor after what it was told already, and starts its successor.
    async fn replace_service(&mut self, service: Child) {
        let old = self.alive.iter().find(|(_, child)| **child == service).map(|(id, _)| *id);
        if let Some(old) = old {
            self.alive.remove(&old);
            if let Some(cell) = self.myself.get_children().into_iter().find(|it| it.get_id() == old)
                && let Err(error) = cell.drain()
            {
                tracing::debug!(?service, %error, "it had ended already");
            }
        }
        if let Err(error) = self.start(service.clone()).await {
            tracing::error!(?service, error, "cannot be started");
            self.schedule_restart(service, &error);
        }
    }
}
