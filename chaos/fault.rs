//! What can go wrong, and how often it did.
//!
//! Invariant: a fault is counted when it is injected, not when it is planned, so the report never
//! claims more than happened.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A kind of fault, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// SIGKILL of the daemon.
    DaemonKilled,
    /// SIGTERM of the daemon under load.
    DaemonTerminated,
    /// SIGSTOP of the daemon, and SIGCONT some time later.
    DaemonPaused,
    /// The daemon's local state is gone when it starts.
    StateDeleted,
    /// A checkpoint by somebody else than the daemon.
    PassiveCheckpoint,
    /// See [`Fault::PassiveCheckpoint`].
    FullCheckpoint,
    /// See [`Fault::PassiveCheckpoint`].
    RestartCheckpoint,
    /// See [`Fault::PassiveCheckpoint`].
    TruncateCheckpoint,
    /// A read transaction that stays and holds up checkpoints.
    LongReader,
    /// A process that opens, writes and closes.
    ShortWriter,
    /// SIGKILL of a writer.
    WriterKilled,
    /// Answer 500 of storage.
    InternalError,
    /// Answer 503 of storage.
    SlowDown,
    /// Answer 403 of storage.
    AccessDenied,
    /// The connection is reset before storage sees the request.
    ResetOnArrival,
    /// The connection is reset in the middle of an upload.
    ResetDuringUpload,
    /// The request is swallowed: no answer until the connection breaks, much later.
    BlackHole,
    /// Storage gets the request late, even if whoever sent it is dead by then.
    Latency,
    /// The connection ends in the middle of the answer.
    TruncatedAnswer,
    /// Storage has taken an upload, but its answer gets lost.
    LostReply,
}

impl Fault {
    /// All kinds.
    pub(crate) const ALL: [Self; 20] = [
        Self::DaemonKilled,
        Self::DaemonTerminated,
        Self::DaemonPaused,
        Self::StateDeleted,
        Self::PassiveCheckpoint,
        Self::FullCheckpoint,
        Self::RestartCheckpoint,
        Self::TruncateCheckpoint,
        Self::LongReader,
        Self::ShortWriter,
        Self::WriterKilled,
        Self::InternalError,
        Self::SlowDown,
        Self::AccessDenied,
        Self::ResetOnArrival,
        Self::ResetDuringUpload,
        Self::BlackHole,
        Self::Latency,
        Self::TruncatedAnswer,
        Self::LostReply,
    ];

    /// Checkpoints of all modes.
    pub(crate) const CHECKPOINTS: [Self; 4] = [
        Self::PassiveCheckpoint,
        Self::FullCheckpoint,
        Self::RestartCheckpoint,
        Self::TruncateCheckpoint,
    ];

    /// Those that happen on the way to storage.
    pub(crate) const OF_STORAGE: [Self; 9] = [
        Self::InternalError,
        Self::SlowDown,
        Self::AccessDenied,
        Self::ResetOnArrival,
        Self::ResetDuringUpload,
        Self::BlackHole,
        Self::Latency,
        Self::TruncatedAnswer,
        Self::LostReply,
    ];

    /// Its name in the report.
    pub(crate) fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

/// How often each fault was injected.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<BTreeMap<Fault, u64>>);

impl Faults {
    /// Counts a fault that is injected now.
    pub(crate) fn count(&self, fault: Fault) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(fault).or_default() += 1;
    }

    /// The counts of all kinds, also of those that did not happen.
    pub(crate) fn by_kind(&self) -> Vec<(Fault, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Fault::ALL.map(|fault| (fault, counts.get(&fault).copied().unwrap_or(0))).to_vec()
    }
}
