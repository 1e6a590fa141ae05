//! SnapshotSchedulerActor: tells databases when a snapshot is due.

use ractor::{Actor, ActorProcessingErr, ActorRef};

/// What a new incarnation gets.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotSchedulerArguments {
    /// Snapshots at once.
    pub(crate) at_once: usize,
}

/// What the actor is told.
#[derive(Debug)]
pub(crate) enum SnapshotSchedulerMsg {
    /// The database is not replicated any more.
    Forget {
        /// Its name.
        database: String,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SnapshotSchedulerActor;

impl Actor for SnapshotSchedulerActor {
    type Msg = SnapshotSchedulerMsg;
    type State = SnapshotSchedulerArguments;
    type Arguments = SnapshotSchedulerArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<SnapshotSchedulerMsg>,
        arguments: SnapshotSchedulerArguments,
    ) -> Result<SnapshotSchedulerArguments, ActorProcessingErr> {
        Ok(arguments)
    }

    async fn handle(
        &self,
        _myself: ActorRef<SnapshotSchedulerMsg>,
        message: SnapshotSchedulerMsg,
        _state: &mut SnapshotSchedulerArguments,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SnapshotSchedulerMsg::Forget { database: _ } => {}
        }
        Ok(())
    }
}
