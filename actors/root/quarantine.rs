//! A child that crashes too often is left alone for a while, and somebody is told.

use std::time::Duration;

use walrust_engine::EventKind;

use super::{Child, RootState};
use crate::event::Event;

impl RootState {
    pub(super) fn quarantined(&mut self, child: &Child, reason: &str, delay: Duration) {
        let event = match child {
            Child::Database(name) => {
                // Its recovery is an event even though nobody was left to call it unavailable.
                if let Some(database) = self.databases.get_mut(name) {
                    database.quarantined = true;
                    database.availability.set_unavailable();
                }
                Event::of(EventKind::ActorQuarantined, name).with("actor", "database")
            }
            service => Event::new(EventKind::ActorQuarantined)
                .with("actor", format!("{service:?}").to_lowercase()),
        };
        let event =
            event.error(format!("it crashes too often: {reason}")).with("seconds", delay.as_secs());
        self.services.raise(event);
    }
}
