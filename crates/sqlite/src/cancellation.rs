//! Tells work on another thread that nobody waits for it any more.
//!
//! Invariant: work that has reached its point of no return is not cancelled, and who cancels it gets
//! to know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const RUNNING: u8 = 0;
const CANCELLED: u8 = 1;
const COMMITTED: u8 = 2;

/// What work on another thread looks at now and then.
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Arc<AtomicU8>);

/// Cancels work when it is dropped.
#[derive(Debug)]
pub struct CancelOnDrop(Option<Cancellation>);

impl Cancellation {
    /// Cancels the work; `false` if it is too late for that.
    pub fn cancel(&self) -> bool {
        self.leave_running(CANCELLED) != COMMITTED
    }

    /// Whether nobody waits for the work any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst) == CANCELLED
    }

    /// The work is at its point of no return; `false` if it was cancelled before.
    #[must_use]
    pub(crate) fn commit(&self) -> bool {
        self.leave_running(COMMITTED) != CANCELLED
    }

    /// Sets the state, unless it is one of those that stay. The state that it was.
    fn leave_running(&self, state: u8) -> u8 {
        let left = self.0.compare_exchange(RUNNING, state, Ordering::SeqCst, Ordering::SeqCst);
        left.unwrap_or_else(|stays| stays)
    }

    /// For whoever waits for the work.
    #[must_use]
    pub fn on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(Some(self.clone()))
    }
}

impl CancelOnDrop {
    /// The work has ended.
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(cancellation) = &self.0 {
            cancellation.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_of_cancelling_and_committing_takes_effect() {
        let work = Cancellation::default();
        assert!(work.commit() && !work.cancel() && !work.is_cancelled());
        let work = Cancellation::default();
        assert!(work.cancel() && !work.commit() && work.is_cancelled());
    }

    #[test]
    fn work_that_has_ended_is_not_cancelled() {
        let work = Cancellation::default();
        work.on_drop().disarm();
        assert!(!work.is_cancelled());
        drop(work.on_drop());
        assert!(work.is_cancelled());
    }
}
