//! RetentionActor: looks after the age of histories.

use ractor::{Actor, ActorProcessingErr, ActorRef};

use std::sync::Arc;

use walrust_storage::ObjectStore;

/// What a new incarnation gets.
#[derive(Clone, Debug)]
pub(crate) struct RetentionArguments {
    pub(crate) store: Arc<dyn ObjectStore>,
}

/// What the actor is told.
#[derive(Debug)]
pub(crate) enum RetentionMsg {
    /// The database is not replicated any more.
    Forget {
        /// Its name.
        database: String,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RetentionActor;

impl Actor for RetentionActor {
    type Msg = RetentionMsg;
    type State = RetentionArguments;
    type Arguments = RetentionArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<RetentionMsg>,
        arguments: RetentionArguments,
    ) -> Result<RetentionArguments, ActorProcessingErr> {
        Ok(arguments)
    }

    async fn handle(
        &self,
        _myself: ActorRef<RetentionMsg>,
        message: RetentionMsg,
        _state: &mut RetentionArguments,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RetentionMsg::Forget { database: _ } => {}
        }
        Ok(())
    }
}
