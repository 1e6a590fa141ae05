//! The tree as one value: start it, ask it, shut it down.

use std::sync::Arc;
use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{Actor, ActorRef, MessagingErr, RpcReplyPort};
use tokio::task::JoinHandle;
use walrust_ltx::Txid;
use walrust_storage::ObjectStore;

use crate::database::Refusal;
use crate::root::{NotShipped, RootArguments, RootMsg, RootSupervisor};
use crate::settings::Settings;
use crate::status::{DatabaseStatus, UploaderStatus};

/// How long a question about one database may take; actors never block, so an answer that takes
/// longer means that its actor is being restarted.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A running supervision tree.
#[derive(Debug)]
pub struct Replicator {
    root: ActorRef<RootMsg>,
    task: JoinHandle<()>,
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
    /// The database could not do it.
    #[error("{name}: {reason}")]
    Refused {
        /// The name.
        name: String,
        /// Why.
        reason: String,
        /// Storage is the reason, not the database.
        storage: bool,
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
        Ok(Self { root, task })
    }

    /// The status of one database.
    ///
    /// # Errors
    /// If there is no such database at the moment.
    pub async fn status(&self, name: &str) -> Result<DatabaseStatus, ReplicatorError> {
        let message = |reply| RootMsg::Status { name: name.to_owned(), reply };
        self.ask(name, message, Some(ANSWER_TIMEOUT)).await
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
        self.ask(name, message, None).await?.map_err(|Refusal { reason, storage }| {
            let name = name.to_owned();
            ReplicatorError::Refused { name, reason, storage }
        })
    }

    /// Ships everything and ends the tree, within `timeout`.
    ///
    /// Returns the databases of which something may not be in storage.
    ///
    /// # Errors
    /// If the tree has ended already.
    pub async fn shut_down(self, timeout: Duration) -> Result<Vec<NotShipped>, ReplicatorError> {
        let message = |reply| RootMsg::Shutdown { timeout, reply };
        let answer = self.root.call(message, None).await;
        let Ok(CallResult::Success(not_shipped)) = answer else {
            return Err(ReplicatorError::Ended);
        };
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the root did not end as it should");
        }
        Ok(not_shipped)
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
            Err(MessagingErr::SendErr(_) | _) => Err(ReplicatorError::Ended),
        }
    }
}
