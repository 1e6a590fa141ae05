//! The tree as one value: start it, ask it, shut it down.

use std::sync::Arc;
use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{Actor, ActorRef, RpcReplyPort};
use tokio::sync::{oneshot, watch};
use walrust_ltx::Txid;
use walrust_storage::ObjectStore;

use crate::database::{Cause, DatabaseMsg, Refusal};
use crate::root::{
    Applied, NotShipped, RootArguments, RootMsg, RootSupervisor, Roster, ShutdownReport,
};
use crate::settings::Settings;
use crate::status::{DatabasePhase, DatabaseStatus, Status, UploaderStatus};

/// How long a question about one database may take; actors never block, so an answer that takes
/// longer means that its actor is being restarted.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the end of the tree waits for what still uses a database.
const LETTING_GO: Duration = Duration::from_secs(1);

/// How long the end of the tree waits for storage to remove the parts of uploads that were given up.
const SETTLING: Duration = Duration::from_secs(3);

/// A running supervision tree; clones are the same tree.
#[derive(Clone, Debug)]
pub struct Replicator {
    root: ActorRef<RootMsg>,
    /// Closed when the tree has ended.
    ended: watch::Receiver<()>,
}

/// Why the tree did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicatorError {
    /// It could not be started.
    #[error("cannot start the supervision tree: {0}")]
    Start(String),
    /// There is no database with this name, or its actor is being restarted.
    #[error("{name}: no such database is running")]
    NotRunning {
        /// The name.
        name: String,
    },
    /// The database is paused.
    #[error("{name} is paused; `walrust resume {name}` resumes it")]
    Paused {
        /// The name.
        name: String,
    },
    /// The database could not do it.
    #[error("{name}: {reason}")]
    Refused {
        /// The name.
        name: String,
        /// Why.
        reason: String,
        /// What stands in the way.
        cause: Cause,
    },
    /// The tree has ended.
    #[error("the supervision tree has ended")]
    Ended,
}

impl Replicator {
    /// Starts replicating. Returns before the databases are open.
    ///
    /// # Errors
    /// If the shared actors cannot be started.
    pub async fn start(
        settings: Settings,
        store: Arc<dyn ObjectStore>,
    ) -> Result<Self, ReplicatorError> {
        let arguments = RootArguments { settings, store };
        let (root, task) = Actor::spawn(None, RootSupervisor, arguments)
            .await
            .map_err(|error| ReplicatorError::Start(error.to_string()))?;
        let (running, ended) = watch::channel(());
        tokio::spawn(async move {
            if let Err(error) = task.await {
                tracing::error!(%error, "the root did not end as it should");
            }
            drop(running);
        });
        Ok(Self { root, ended })
    }

    /// The status of one database.
    ///
    /// # Errors
    /// If there is no such database at the moment.
    pub async fn status(&self, name: &str) -> Result<DatabaseStatus, ReplicatorError> {
        let message = |reply| RootMsg::Status { name: name.to_owned(), reply };
        self.ask(name, message, Some(ANSWER_TIMEOUT)).await
    }

    /// The status of the tree.
    ///
    /// # Errors
    /// If the tree has ended.
    pub async fn overview(&self) -> Result<Status, ReplicatorError> {
        let roster = self.call(RootMsg::Roster, Some(ANSWER_TIMEOUT)).await?;
        let mut databases = roster.stopped;
        // All are asked before any answer is waited for.
        let ask = |(known, actor)| (known, ask_for_status(&actor));
        let answers: Vec<_> = roster.running.into_iter().map(ask).collect();
        let deadline = tokio::time::Instant::now() + ANSWER_TIMEOUT;
        for (known, answer) in answers {
            let status = match tokio::time::timeout_at(deadline, answer).await {
                Ok(Ok(status)) => Some(status),
                // Its actor has ended meanwhile; the root knows whether it died or came to rest.
                Ok(Err(_)) => self.status(&known.name).await.ok(),
                Err(_) => None,
            };
            let silent = Some("its actor does not answer".to_owned());
            databases.push(status.unwrap_or(DatabaseStatus { last_error: silent, ..known }));
        }
        databases.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Status { databases, config_error: roster.config_error })
    }

    /// The names of all databases.
    ///
    /// # Errors
    /// If the tree has ended.
    pub async fn names(&self) -> Result<Vec<String>, ReplicatorError> {
        let Roster { running, stopped, .. } =
            self.call(RootMsg::Roster, Some(ANSWER_TIMEOUT)).await?;
        let running = running.into_iter().map(|(status, _)| status);
        let mut names: Vec<_> = running.chain(stopped).map(|status| status.name).collect();
        names.sort();
        Ok(names)
    }

    /// The uploads of all databases.
    ///
    /// # Errors
    /// If the uploader is being restarted.
    pub async fn uploader_status(&self) -> Result<UploaderStatus, ReplicatorError> {
        self.ask("uploader", RootMsg::UploaderStatus, Some(ANSWER_TIMEOUT)).await
    }

    /// Takes a snapshot of the newest state of a database and waits until storage has it.
    ///
    /// # Errors
    /// If the database cannot be replicated, or there is no such database.
    pub async fn snapshot(&self, name: &str) -> Result<Txid, ReplicatorError> {
        let message = |reply| RootMsg::Snapshot { name: name.to_owned(), reply };
        self.ask_unless_paused(name, message).await
    }

    /// Ships everything that a database has committed, and waits until storage has it. Returns the
    /// TXID that storage has then.
    ///
    /// # Errors
    /// If the database cannot be replicated, or there is no such database.
    pub async fn sync(&self, name: &str) -> Result<Option<Txid>, ReplicatorError> {
        let message = |reply| RootMsg::Sync { name: name.to_owned(), reply };
        self.ask_unless_paused(name, message).await
    }

    /// Ships what a database has committed and lets go of it, until [`resume`](Self::resume). Returns
    /// why not everything is in storage, if so; it is paused all the same.
    ///
    /// # Errors
    /// If there is no such database.
    pub async fn pause(&self, name: &str) -> Result<Option<String>, ReplicatorError> {
        self.ask(name, |reply| RootMsg::Pause { name: name.to_owned(), reply }, None).await
    }

    /// Replicates a database again that was paused, and has one that another writer has stopped claim
    /// its name anew; nothing else is changed by it. Returns what the database was doing when it was
    /// asked.
    ///
    /// # Errors
    /// If there is no such database.
    pub async fn resume(&self, name: &str) -> Result<DatabasePhase, ReplicatorError> {
        let message = |reply| RootMsg::Resume { name: name.to_owned(), reply };
        self.ask(name, message, Some(ANSWER_TIMEOUT)).await
    }

    /// Follows other settings, and another store if one is given. Databases that the change does not
    /// concern keep their actor and their pin. Returns as soon as every database concerned was told.
    ///
    /// # Errors
    /// If the tree has ended.
    pub async fn reconfigure(
        &self,
        settings: Settings,
        store: Option<Arc<dyn ObjectStore>>,
    ) -> Result<Applied, ReplicatorError> {
        let settings = Box::new(settings);
        self.call(|reply| RootMsg::Reconfigure { settings, store, reply }, None).await
    }

    /// A changed configuration is not valid: nothing changes, receivers of events are told, and the
    /// status says why until a valid one comes.
    ///
    /// # Errors
    /// If the tree has ended.
    pub fn config_rejected(&self, error: String) -> Result<(), ReplicatorError> {
        self.root.cast(RootMsg::ConfigRejected(error)).map_err(|_| ReplicatorError::Ended)
    }

    /// Waits until the tree has ended. Unless it is shut down it does so only if its root fails.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // Nothing is ever sent: the one change is the end of the sender.
        while ended.changed().await.is_ok() {}
    }

    /// Ships everything and ends the tree, within `timeout` and at most five seconds more if events
    /// wait for their webhooks, and three if storage is slow to remove the parts of a snapshot that was
    /// given up. Then nothing uses the databases any more, unless the disk hangs.
    ///
    /// Returns the databases of which something may not be in storage.
    ///
    /// # Errors
    /// If the tree has ended already.
    pub async fn shut_down(&self, timeout: Duration) -> Result<Vec<NotShipped>, ReplicatorError> {
        let message = |reply| RootMsg::Shutdown { timeout, reply };
        let answer = self.root.call(message, None).await;
        let Ok(CallResult::Success(ShutdownReport { not_shipped, gates, store })) = answer else {
            return Err(ReplicatorError::Ended);
        };
        self.ended().await;
        // The root does not wait for what was under way in its children: a job that runs on, a
        // message that brings a capture back.
        let let_go = async {
            for gate in &gates {
                gate.enter().await;
            }
        };
        if tokio::time::timeout(LETTING_GO, let_go).await.is_err() {
            tracing::warn!("a database is still in use; its files are let go of with the process");
        }
        if let Some(store) = store
            && tokio::time::timeout(SETTLING, store.settle()).await.is_err()
        {
            tracing::warn!(
                url = store.url(),
                "parts of an upload that was given up stay in storage"
            );
        }
        Ok(not_shipped)
    }

    /// Has a shutdown that is under way end at once: nothing is shipped, delivered or waited for any
    /// more.
    ///
    /// # Errors
    /// If the tree has ended.
    pub fn hurry_shutdown(&self) -> Result<(), ReplicatorError> {
        self.root.cast(RootMsg::HurryShutdown).map_err(|_| ReplicatorError::Ended)
    }

    /// Asks something that a paused database cannot do.
    async fn ask_unless_paused<T: Send + 'static>(
        &self,
        name: &str,
        message: impl FnOnce(RpcReplyPort<Result<T, Refusal>>) -> RootMsg,
    ) -> Result<T, ReplicatorError> {
        match self.ask(name, message, None).await {
            Ok(answer) => answer.map_err(|refusal| refused(name, refusal)),
            Err(error @ ReplicatorError::NotRunning { .. }) => match self.status(name).await {
                Ok(DatabaseStatus { phase: DatabasePhase::Paused, .. }) => {
                    Err(ReplicatorError::Paused { name: name.to_owned() })
                }
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        name: &str,
        message: impl FnOnce(RpcReplyPort<T>) -> RootMsg,
        timeout: Option<Duration>,
    ) -> Result<T, ReplicatorError> {
        match self.root.call(message, timeout).await {
            Ok(CallResult::Success(answer)) => Ok(answer),
            Ok(_) => Err(ReplicatorError::NotRunning { name: name.to_owned() }),
            Err(_) => Err(ReplicatorError::Ended),
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        message: impl FnOnce(RpcReplyPort<T>) -> RootMsg,
        timeout: Option<Duration>,
    ) -> Result<T, ReplicatorError> {
        match self.root.call(message, timeout).await {
            Ok(CallResult::Success(answer)) => Ok(answer),
            _ => Err(ReplicatorError::Ended),
        }
    }
}

fn refused(name: &str, refusal: Refusal) -> ReplicatorError {
    let Refusal { reason, cause } = refusal;
    ReplicatorError::Refused { name: name.to_owned(), reason, cause }
}

/// Asks a database for its status; the receiver fails if its actor is gone.
fn ask_for_status(actor: &ActorRef<DatabaseMsg>) -> oneshot::Receiver<DatabaseStatus> {
    let (sender, receiver) = oneshot::channel();
    // A dead actor drops the sender, which the receiver notices.
    let _ = actor.cast(DatabaseMsg::Status(sender.into()));
    receiver
}
