//! Why a database does not do what was asked of it.

use std::fmt;

use walrust_sqlite::DatabaseError;
use walrust_storage::StorageError;

/// What stands in the way of a database; decides the exit code of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Storage, or the way to it.
    Storage,
    /// The database, its WAL, or its local state.
    Database,
    /// Anything else: another writer, a crash, a pause.
    Other,
}

/// Why a request was not carried out, or why a database is not replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) cause: Cause,
}

impl Refusal {
    pub(crate) fn new(cause: Cause, reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string(), cause }
    }
}

impl From<&DatabaseError> for Refusal {
    fn from(error: &DatabaseError) -> Self {
        Self::new(Cause::Database, error)
    }
}

impl From<&StorageError> for Refusal {
    fn from(error: &StorageError) -> Self {
        Self::new(Cause::Storage, error)
    }
}
