//! Databases without an actor, because nothing happens to them.
//!
//! Every message for a database passes here: one that rests gets an actor first. Its incarnation stays
//! the same, and so do its pin and what the shared actors know of it.

use ractor::ActorId;

use super::children::Wish;
use super::{Child, RootState};
use crate::database::{DatabaseActor, DatabaseMsg, Resting};

impl RootState {
    /// An actor has given its database up.
    pub(super) fn rested(&mut self, name: &str, actor: ActorId, resting: Box<Resting>) {
        let Some(database) = self.databases.get_mut(name) else { return };
        // Of one that was stopped meanwhile the files are let go of with the state.
        let is_same = |it: &mut ractor::ActorRef<DatabaseMsg>| it.get_id() == actor;
        let Some(actor) = database.actor.take_if(is_same) else { return };
        database.resting = Some(resting);
        // It dies with whatever it has not sent back.
        let _ = actor.cast(DatabaseMsg::Rest);
    }

    /// The actor of a database that has rested has ended. If it crashed, a message may have gone with
    /// it: what was wanted of the database is seen from other things.
    pub(super) async fn see_off(&mut self, name: &str) {
        let Some(database) = self.databases.get(name) else { return };
        if database.wish != Wish::Run || self.shutdown.is_some() {
            self.forward(name, DatabaseMsg::Drain).await;
        } else if database.notified.is_set() {
            self.forward(name, DatabaseMsg::WalChanged).await;
        }
    }

    /// A message came back from an actor that had given its database up.
    pub(super) async fn sent_back(&mut self, name: &str, message: DatabaseMsg) {
        match message {
            DatabaseMsg::Status(reply) => self.status(name, reply),
            message => self.forward(name, message).await,
        }
    }

    /// Tells a database something; one that rests gets an actor for it.
    pub(super) async fn forward(&mut self, name: &str, message: DatabaseMsg) {
        self.wake(name).await;
        // Who waits for an answer that does not come is told by the dropped reply.
        if let Some(actor) = self.actor_of(name) {
            let _ = actor.cast(message);
        }
    }

    /// Tells it to all databases, those that rest included.
    pub(super) async fn tell_all(&mut self, message: impl Fn() -> DatabaseMsg) {
        for name in self.databases.keys().cloned().collect::<Vec<_>>() {
            self.forward(&name, message()).await;
        }
    }

    /// Makes an actor for a database that rests.
    pub(super) async fn wake(&mut self, name: &str) {
        let Some(resting) = self.databases.get_mut(name).and_then(|it| it.resting.take()) else {
            return;
        };
        let Some(arguments) = self.arguments_of(name) else { return };
        let child = Child::Database(name.to_owned());
        match self.spawn(DatabaseActor, (arguments, Some(resting))).await {
            Ok(actor) => {
                self.alive.insert(actor.get_id(), child);
                if let Some(database) = self.databases.get_mut(name) {
                    database.actor = Some(actor);
                }
            }
            Err(error) => {
                tracing::error!(db = name, error, "cannot be started");
                self.schedule_restart(child, &error);
            }
        }
    }
}
