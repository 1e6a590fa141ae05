//! Work of a shared actor on one database after another.
//!
//! Invariant: a database stands in line at most once, one piece of work is under way, and the actor
//! is told of its end, also if it panics: the line would stand still for ever. What is under way ends
//! with the actor.

use std::collections::VecDeque;

use ractor::{ActorRef, Message};
use tokio::task::JoinSet;

/// How the end of a piece of work is told: the name of the database, and what came of it; nothing if
/// it panicked.
type Ended<M, T> = fn(String, Option<T>) -> M;

/// The line, and what is under way.
#[derive(Debug)]
pub(crate) struct OneByOne<M, T> {
    actor: ActorRef<M>,
    ended: Ended<M, T>,
    waiting: VecDeque<String>,
    running: bool,
    /// Dropped with the actor, which aborts it.
    task: JoinSet<()>,
}

impl<M: Message, T: Send + 'static> OneByOne<M, T> {
    pub(crate) fn new(actor: ActorRef<M>, ended: Ended<M, T>) -> Self {
        Self { actor, ended, waiting: VecDeque::new(), running: false, task: JoinSet::new() }
    }

    /// Puts a database into the line.
    pub(crate) fn line_up(&mut self, database: String) {
        if !self.waiting.contains(&database) {
            self.waiting.push_back(database);
        }
    }

    /// Takes a database out of it.
    pub(crate) fn leave(&mut self, database: &str) {
        self.waiting.retain(|it| it != database);
    }

    /// The database whose turn it is, if nothing is under way.
    pub(crate) fn next(&mut self) -> Option<String> {
        if self.running { None } else { self.waiting.pop_front() }
    }

    /// Begins the work on a database.
    pub(crate) fn begin(
        &mut self,
        database: String,
        work: impl Future<Output = T> + Send + 'static,
    ) {
        self.running = true;
        let (actor, ended) = (self.actor.clone(), self.ended);
        let report = Report { actor, ended, database, outcome: None };
        self.task.spawn(async move {
            let mut report = report;
            report.outcome = Some(work.await);
        });
    }

    /// What was under way has ended.
    pub(crate) fn ended(&mut self) {
        while self.task.try_join_next().is_some() {}
        self.running = false;
    }
}

/// Tells the actor of the end when it is dropped.
struct Report<M: Message, T> {
    actor: ActorRef<M>,
    ended: Ended<M, T>,
    database: String,
    outcome: Option<T>,
}

impl<M: Message, T> Drop for Report<M, T> {
    fn drop(&mut self) {
        let (database, outcome) = (std::mem::take(&mut self.database), self.outcome.take());
        // A dead actor aborts its work; nobody is left to be told.
        let _ = self.actor.cast((self.ended)(database, outcome));
    }
}
