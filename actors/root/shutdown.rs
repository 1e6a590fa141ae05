//! The end of the tree: every database ships what it has, then everything stops.

use std::sync::Arc;
use std::time::Duration;

use ractor::RpcReplyPort;
use walrust_storage::ObjectStore;

use super::{NotShipped, RootMsg, RootState, answer};
use crate::blocking::Gate;
use crate::database::{DatabaseMsg, Refusal};
use crate::watcher::WatcherMsg;

/// How long webhooks may hold up the end of a shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// How a shutdown ended.
#[derive(Debug)]
pub(crate) struct ShutdownReport {
    pub(crate) not_shipped: Vec<NotShipped>,
    /// Of the databases that are to be waited for. Whoever passes one knows that nothing uses the database any more.
    pub(crate) gates: Vec<Gate>,
    /// The store, if what uploads have left there is to be waited for.
    pub(crate) store: Option<Arc<dyn ObjectStore>>,
}

/// A shutdown under way.
#[derive(Debug)]
pub(super) struct Shutdown {
    /// Databases that have not reported.
    waiting: Vec<String>,
    not_shipped: Vec<NotShipped>,
    /// Nothing but the webhooks is waited for.
    flushing: bool,
    /// Nothing at all is waited for.
    hurried: bool,
    reply: Option<RpcReplyPort<ShutdownReport>>,
}

impl RootState {
    pub(super) async fn shut_down(
        &mut self,
        timeout: Duration,
        reply: RpcReplyPort<ShutdownReport>,
    ) {
        let mut shutdown = Shutdown {
            waiting: Vec::new(),
            not_shipped: self.retired_unshipped(),
            flushing: false,
            hurried: false,
            reply: Some(reply),
        };
        for (name, database) in &self.databases {
            if !database.is_stopped() {
                shutdown.waiting.push(name.clone());
            } else if let Some(problem) = database.problem_of_stopped() {
                shutdown.not_shipped.push(database.not_shipped(&problem));
            }
            self.services.watcher.cast(WatcherMsg::Unwatch { name: name.clone() });
        }
        self.shutdown = Some(shutdown);
        self.tell_all(|| DatabaseMsg::Drain).await;
        self.myself.send_after(timeout, || RootMsg::DeadlinePassed);
        self.finish_if_drained();
    }

    /// A database has let go of its files for the shutdown. Without an effect if it had reported.
    pub(super) fn drained_for_shutdown(&mut self, name: &str, problem: Option<Refusal>) {
        let Some(shutdown) = &mut self.shutdown else { return };
        let Some(index) = shutdown.waiting.iter().position(|waiting| waiting == name) else {
            return;
        };
        shutdown.waiting.swap_remove(index);
        if let (Some(problem), Some(database)) = (problem, self.databases.get(name)) {
            shutdown.not_shipped.push(database.not_shipped(&problem));
        }
        self.finish_if_drained();
    }

    pub(super) fn deadline_passed(&mut self) {
        self.stop_waiting("the deadline of the shutdown passed");
        self.finish_if_drained();
    }

    /// Somebody is in a hurry: not even webhooks and blocking jobs are waited for.
    pub(super) fn hurry_shutdown(&mut self) {
        self.stop_waiting("a second signal stopped the shutdown");
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.hurried = true;
        }
        self.flushed();
    }

    fn stop_waiting(&mut self, reason: &str) {
        let Some(shutdown) = &mut self.shutdown else { return };
        let waiting = std::mem::take(&mut shutdown.waiting);
        let databases = waiting.iter().filter_map(|name| self.databases.get(name));
        let late = databases
            .map(|database| database.not_shipped(&self.too_late(&database.settings.name, reason)));
        let late: Vec<_> = late.collect();
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.not_shipped.extend(late);
        }
    }

    fn finish_if_drained(&mut self) {
        let Some(shutdown) = &mut self.shutdown else { return };
        if !shutdown.waiting.is_empty() || shutdown.flushing {
            return;
        }
        shutdown.flushing = true;
        let (services, myself) = (self.services.clone(), self.myself.clone());
        tokio::spawn(async move {
            services.flush_webhooks(FLUSH_TIMEOUT).await;
            // Only a root that is ending takes no messages.
            let _ = myself.cast(RootMsg::Flushed);
        });
    }

    pub(super) fn flushed(&mut self) {
        let Some(shutdown) = &mut self.shutdown else { return };
        if let Some(reply) = shutdown.reply.take() {
            let mut not_shipped = std::mem::take(&mut shutdown.not_shipped);
            not_shipped.sort_by(|a, b| a.name.cmp(&b.name));
            let databases = self.databases.values().filter(|_| !shutdown.hurried);
            let gates = databases.map(|database| database.gate.clone()).collect();
            let store = (!shutdown.hurried).then(|| Arc::clone(&self.store));
            answer(reply, ShutdownReport { not_shipped, gates, store });
        }
        self.myself.stop(None);
    }
}
