//! Something that happened and that an operator may want to be told about.

use std::collections::BTreeMap;

use walrust_engine::EventKind;

/// One event. Where it happened it is logged as well; this is for receivers outside the process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    /// Name of the database, if it is about one.
    pub(crate) database: Option<String>,
    /// What went wrong, in words.
    pub(crate) error: Option<String>,
    /// Attempts that failed so far.
    pub(crate) attempts: u32,
    /// More facts, by name.
    pub(crate) context: BTreeMap<&'static str, serde_json::Value>,
}

impl Event {
    pub(crate) fn new(kind: EventKind) -> Self {
        Self { kind, database: None, error: None, attempts: 0, context: BTreeMap::new() }
    }

    pub(crate) fn of(kind: EventKind, database: &str) -> Self {
        Self { database: Some(database.to_owned()), ..Self::new(kind) }
    }

    pub(crate) fn error(self, error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..self }
    }

    pub(crate) fn attempts(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    pub(crate) fn with(mut self, fact: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.context.insert(fact, value.into());
        self
    }
}
