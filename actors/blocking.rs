//! The pool for work that blocks: reading databases, compressing pages, local state.
//!
//! Invariants: jobs never take all blocking threads of the runtime, since name look-ups and file
//! streaming of the storage client run there as well; and a job holds its database's gate until
//! it ends, even if its actor is gone. A killed actor drops its future, but a blocking closure
//! runs on: without the gate its successor would work beside it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The pool; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct BlockingPool {
    permits: Arc<Semaphore>,
}

/// Blocking jobs at once. The runtime has one thread more; see `walrust::runtime`.
pub const BLOCKING_JOBS: usize = 3;

/// A job panicked; what it worked on is lost.
#[derive(Debug, thiserror::Error)]
#[error("a blocking job panicked")]
pub(crate) struct JobPanicked;

impl BlockingPool {
    pub(crate) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(BLOCKING_JOBS)) }
    }

    /// Runs a job when a thread is free.
    pub(crate) async fn run<T, F>(&self, job: F) -> Result<T, JobPanicked>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the semaphore of the pool is never closed");
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            job()
        });
        task.await.map_err(|_| JobPanicked)
    }
}

/// Lets one incarnation of a database's actor work at a time; clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Semaphore>);

/// The right to work on a database.
#[derive(Debug)]
pub(crate) struct GatePass {
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Waits until no earlier incarnation works on the database.
    pub(crate) async fn enter(&self) -> GatePass {
        let permit = Arc::clone(&self.0)
            .acquire_owned()
            .await
            .expect("the semaphore of a gate is never closed");
        GatePass { _permit: permit }
    }
}
