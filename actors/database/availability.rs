//! Whether a database can be replicated, as receivers of events know it.
//!
//! A database that fails is tried again and again, and fails each time: who is told wants to hear of
//! it once, and once when it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What was raised about one database and is not over; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Availability(Arc<Raised>);

#[derive(Debug, Default)]
struct Raised {
    unavailable: AtomicBool,
    corrupt: AtomicBool,
}

impl Availability {
    /// The database cannot be replicated; whether that is news.
    pub(crate) fn set_unavailable(&self) -> bool {
        !self.0.unavailable.swap(true, Ordering::AcqRel)
    }

    /// The database is damaged; whether that is news.
    pub(super) fn set_corrupt(&self) -> bool {
        !self.0.corrupt.swap(true, Ordering::AcqRel)
    }

    /// The database is replicated; whether that is news.
    pub(super) fn set_available(&self) -> bool {
        self.0.corrupt.store(false, Ordering::Release);
        self.0.unavailable.swap(false, Ordering::AcqRel)
    }
}
