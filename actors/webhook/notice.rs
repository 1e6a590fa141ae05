//! An event on its way to a receiver, and the JSON that the receiver gets.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::event::Event;

/// The version of this program, as receivers see it.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An event that was raised; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Notice(Arc<Raised>);

#[derive(Debug)]
struct Raised {
    /// By this a receiver knows a repeated delivery: it is the same for all attempts.
    id: String,
    at: Timestamp,
    event: Event,
}

impl Notice {
    /// An event that happens now.
    pub(super) fn of(event: Event) -> Self {
        let id = format!("{:032x}", fastrand::u128(..));
        Self(Arc::new(Raised { id, at: Timestamp::now(), event }))
    }

    pub(super) fn event(&self) -> &Event {
        &self.0.event
    }

    /// The body of its requests, the same for every attempt. `timestamp` is when the event was
    /// raised; when the request was signed is in a header. `repeats`, if there are any, tells of how
    /// many equal events this one is the last.
    pub(super) fn body(&self, repeats: u32) -> String {
        let Raised { id, at, event } = self.0.as_ref();
        let mut context: serde_json::Map<String, Value> =
            event.context.iter().map(|(fact, value)| ((*fact).to_owned(), value.clone())).collect();
        if repeats > 0 {
            context.insert("repeats".to_owned(), repeats.into());
        }
        let body = json!({
            "id": id,
            "event": event.kind.as_str(),
            "database": event.database,
            "error": event.error,
            "attempts": event.attempts,
            "timestamp": at.to_string(),
            "version": VERSION,
            "context": context,
        });
        body.to_string()
    }
}
