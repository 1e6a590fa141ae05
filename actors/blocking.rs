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
    /// Taken before one of `permits` by jobs that may take minutes.
    long: Arc<Semaphore>,
}

/// Blocking jobs at once. The runtime has one thread more; see `walrust::runtime`.
pub const BLOCKING_JOBS: usize = 3;

/// Long jobs at once: one thread is always there for the short ones.
const LONG_JOBS: usize = BLOCKING_JOBS - 1;

/// A job panicked; what it worked on is lost.
#[derive(Debug, thiserror::Error)]
#[error("a blocking job panicked")]
pub(crate) struct JobPanicked;

impl BlockingPool {
    pub(crate) fn new() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(BLOCKING_JOBS)),
            long: Arc::new(Semaphore::new(LONG_JOBS)),
        }
    }

    /// Runs a job that may take minutes.
    pub(crate) async fn run_long<T, F>(&self, job: F) -> Result<T, JobPanicked>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let permit = Arc::clone(&self.long)
            .acquire_owned()
            .await
            .expect("the semaphore of the pool is never closed");
        self.run(move || {
            let _permit = permit;
            job()
        })
        .await
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

/// The right to work on a database; clones are the same right, which ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct GatePass {
    _permit: Arc<OwnedSemaphorePermit>,
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
        GatePass { _permit: Arc::new(permit) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn long_jobs_leave_a_thread_to_the_short_ones() {
        let pool = BlockingPool::new();
        let (ends, long): (Vec<_>, Vec<_>) = (0..BLOCKING_JOBS)
            .map(|_| {
                let (end, ended) = mpsc::channel::<()>();
                let pool = pool.clone();
                let job = async move { pool.run_long(move || ended.recv().is_err()).await };
                (end, tokio::spawn(job))
            })
            .unzip();
        // They take what they may have.
        while pool.permits.available_permits() > BLOCKING_JOBS - LONG_JOBS {
            tokio::task::yield_now().await;
        }
        let short = tokio::time::timeout(Duration::from_secs(10), pool.run(|| ())).await;
        assert!(short.is_ok_and(|ended| ended.is_ok()), "no thread was left");
        drop(ends);
        for job in long {
            assert!(job.await.is_ok_and(|ended| ended.is_ok()), "each has its turn");
        }
    }
}
