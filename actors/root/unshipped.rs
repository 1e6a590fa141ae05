//! What is told of databases of which storage does not have everything.
//!
//! Invariant: nothing that was let go of too early is forgotten. Whoever asked for it is told at once,
//! and the end of the tree names it again if it was not shipped since: a paused database, and one that
//! left the configuration.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::RootState;
use super::children::{DatabaseChild, Wish};
use crate::database::{Cause, Refusal};

/// A database of which the last commits may not be in storage after a shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotShipped {
    /// Its name.
    pub name: String,
    /// Why, and what is kept of it.
    pub reason: String,
}

/// Databases that went before everything was shipped, by path; they have no child any more.
#[derive(Debug, Default)]
pub(super) struct Retired(BTreeMap<PathBuf, NotShipped>);

impl Retired {
    /// A database went, and why storage does not have everything of it, if so. One that came back and
    /// went once more is told of as it went last.
    pub(super) fn went(&mut self, database: &DatabaseChild, problem: Option<&Refusal>) {
        let Some(problem) = problem else {
            self.0.remove(&database.settings.path);
            return;
        };
        let known = database.standing.known();
        // One whose file is gone has nothing that could be shipped any more but staged files.
        let has_something = problem.cause != Cause::Database || known.staged_files > 0;
        if database.incarnation == 0 || !has_something {
            return;
        }
        let reason = format!(
            "it left the configuration before everything was in storage: {}; {}, until the database \
             is replicated again",
            problem.reason,
            known.kept()
        );
        let name = database.settings.name.clone();
        self.0.insert(database.settings.path.clone(), NotShipped { name, reason });
    }
}

impl DatabaseChild {
    /// Why storage does not have everything of a database that does not run, if so.
    pub(super) fn problem_of_stopped(&self) -> Option<Refusal> {
        if self.wish == Wish::Pause {
            return self.left_behind.clone();
        }
        let reason = self.crash().unwrap_or("it was not running");
        Some(Refusal::new(Cause::Other, reason))
    }

    /// The problem, and what is kept of the database.
    pub(super) fn not_shipped(&self, problem: &Refusal) -> NotShipped {
        let (Refusal { reason, cause }, known) = (problem, self.standing.known());
        let mut reason = match self.wish {
            Wish::Pause => format!("it was paused before everything was in storage: {reason}"),
            _ => reason.clone(),
        };
        if *cause == Cause::Storage || known.staged_files > 0 {
            reason = format!("{reason}; {}", known.kept());
        }
        NotShipped { name: self.settings.name.clone(), reason }
    }
}

impl RootState {
    /// Databases that are not replicated any more and did not ship everything before.
    pub(super) fn retired_unshipped(&self) -> Vec<NotShipped> {
        // Under another name it is another history, which has everything.
        let replicated: HashSet<&Path> =
            self.databases.values().map(|it| it.settings.path.as_path()).collect();
        let retired = self.retired.0.iter();
        let gone = retired.filter(|(path, _)| !replicated.contains(path.as_path()));
        gone.map(|(_, database)| database.clone()).collect()
    }

    /// A database took too long, of which storage has said something, or has of another: one that waits
    /// for its turn was not refused anything itself.
    pub(super) fn too_late(&self, name: &str, what: &str) -> Refusal {
        let own = self.databases.get(name).and_then(|it| it.standing.storage_error());
        let others = || self.databases.values().find_map(|it| it.standing.storage_error());
        let reason = match own.or_else(others) {
            Some(error) => format!("{what}; storage said last: {error}"),
            None => format!("{what}, and storage has not answered"),
        };
        Refusal::new(Cause::Storage, reason)
    }
}
