//! The shared actors, as the rest of the tree reaches them.

use std::time::Duration;

use ractor::rpc::CallResult;

use crate::event::Event;
use crate::retention::RetentionMsg;
use crate::service::Service;
use crate::snapshot_scheduler::SnapshotSchedulerMsg;
use crate::uploader::UploaderMsg;
use crate::validation::ValidationMsg;
use crate::watcher::WatcherMsg;
use crate::webhook::WebhookMsg;

/// A handle to each shared actor; clones are the same handles.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    pub(crate) uploader: Service<UploaderMsg>,
    pub(crate) watcher: Service<WatcherMsg>,
    pub(crate) snapshots: Service<SnapshotSchedulerMsg>,
    pub(crate) retention: Service<RetentionMsg>,
    pub(crate) validation: Service<ValidationMsg>,
    pub(crate) webhook: Service<WebhookMsg>,
}

impl Services {
    /// Handles to actors that are not running yet.
    pub(crate) fn new() -> Self {
        Self {
            uploader: Service::new(),
            watcher: Service::new(),
            snapshots: Service::new(),
            retention: Service::new(),
            validation: Service::new(),
            webhook: Service::new(),
        }
    }

    /// Lets receivers outside the process have what was raised, before the process ends. Returns when
    /// they have it, and within `timeout` in any case: with an actor that died nothing is waited for.
    pub(crate) async fn flush_webhooks(&self, timeout: Duration) {
        let Some(webhook) = self.webhook.get() else { return };
        // A little earlier, so that the actor can say what it leaves behind.
        let flush = |reply| WebhookMsg::Flush { timeout: timeout.mul_f64(0.9), reply };
        match webhook.call(flush, Some(timeout)).await {
            Ok(CallResult::Success(())) => {}
            _ => tracing::error!("the webhook actor is gone, and with it what was not delivered"),
        }
    }

    /// Tells receivers outside the process about an event. An event raised while the webhook actor
    /// is being restarted is lost; it was logged.
    pub(crate) fn raise(&self, event: Event) {
        self.webhook.cast(WebhookMsg::Raise(event));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ractor::{Actor, ActorProcessingErr, ActorRef};

    use super::*;

    /// A webhook actor that does not do what it is asked.
    struct Useless {
        dies: bool,
    }

    impl Actor for Useless {
        type Msg = WebhookMsg;
        type State = Vec<WebhookMsg>;
        type Arguments = ();

        async fn pre_start(
            &self,
            _: ActorRef<WebhookMsg>,
            (): (),
        ) -> Result<Vec<WebhookMsg>, ActorProcessingErr> {
            Ok(Vec::new())
        }

        async fn handle(
            &self,
            _: ActorRef<WebhookMsg>,
            message: WebhookMsg,
            kept: &mut Vec<WebhookMsg>,
        ) -> Result<(), ActorProcessingErr> {
            kept.push(message);
            if self.dies { Err("it dies".into()) } else { Ok(()) }
        }
    }

    async fn time_of_flush(dies: bool, timeout: Duration) -> Duration {
        let (actor, _task) = Actor::spawn(None, Useless { dies }, ()).await.unwrap();
        let services = Services::new();
        services.webhook.set(actor.clone());
        let began = Instant::now();
        services.flush_webhooks(timeout).await;
        let taken = began.elapsed();
        actor.stop(None);
        taken
    }

    #[tokio::test]
    async fn neither_a_dead_nor_a_silent_webhook_actor_holds_up_the_end() {
        let began = Instant::now();
        Services::new().flush_webhooks(Duration::from_secs(60)).await;
        assert!(began.elapsed() < Duration::from_secs(5), "there is none");
        assert!(time_of_flush(true, Duration::from_secs(60)).await < Duration::from_secs(5));
        assert!(time_of_flush(false, Duration::from_millis(50)).await < Duration::from_secs(5));
    }
}
