//! A newest state that storage cannot give back.

use std::time::SystemTime;

/// What was found out about a history: a restore of its newest state would fail, or end before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostState {
    /// What is wrong with which object.
    pub(crate) why: String,
    /// When the history was looked at. A snapshot that was stored since makes up for it.
    pub(crate) seen: SystemTime,
}
