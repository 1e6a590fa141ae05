//! A handle to a shared actor that stays valid when the actor is restarted.
//!
//! A restarted ractor actor has a new address and the old one stays dead, so others hold this
//! handle; only the supervisor puts a new address behind it. A message sent to a dead service is
//! lost: senders must be able to offer again, and the supervisor tells them when.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use ractor::{ActorRef, Message};

/// The current address of a shared actor.
#[derive(Debug)]
pub(crate) struct Service<M>(Arc<ArcSwapOption<ActorRef<M>>>);

impl<M> Clone for Service<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Message> Service<M> {
    /// A service that is not running yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new(ArcSwapOption::empty()))
    }

    /// Puts a new incarnation behind the handle.
    pub(crate) fn set(&self, actor: ActorRef<M>) {
        self.0.store(Some(Arc::new(actor)));
    }

    /// The current incarnation.
    pub(crate) fn get(&self) -> Option<Arc<ActorRef<M>>> {
        self.0.load_full()
    }

    /// Sends a message; whether the service was there to take it.
    pub(crate) fn cast(&self, message: M) -> bool {
        self.get().is_some_and(|actor| actor.cast(message).is_ok())
    }
}
