//! Whether a database can be replicated, as receivers of events know it.
//!
//! A database that fails is tried again and again, and fails each time: who is told wants to hear of
//! it once, now and then while it lasts, and once when it is over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use walrust_engine::LastingAlarm;

/// What was raised about one database and is not over; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Availability(Arc<Mutex<Raised>>);

#[derive(Debug, Default)]
struct Raised {
    unavailable: LastingAlarm,
    corrupt: LastingAlarm,
}

impl Availability {
    /// The database cannot be replicated; whether that is to be raised.
    pub(crate) fn set_unavailable(&self) -> bool {
        self.change(|raised| raised.unavailable.set(Instant::now()))
    }

    /// The database is damaged; whether that is to be raised.
    pub(super) fn set_corrupt(&self) -> bool {
        self.change(|raised| raised.corrupt.set(Instant::now()))
    }

    /// The database is replicated; whether that is news.
    pub(super) fn set_available(&self) -> bool {
        self.change(|raised| {
            raised.corrupt.clear();
            raised.unavailable.clear()
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Raised) -> T) -> T {
        // Two flags are never half changed.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
