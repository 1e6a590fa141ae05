//! Why a replica cannot be made, or cannot follow.

use std::path::PathBuf;

use crate::{DatabaseError, RestoreError};

/// A failure around the file of a replica.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// A file is in the way that is no replica of ours.
    #[error(
        "{}: already exists and is not a replica made by walrust; choose another file, or move \
         this one away", .path.display()
    )]
    NotOurs {
        /// Path of the file, or of a sidecar that SQLite would replay.
        path: PathBuf,
    },
    /// The file is a replica of something else.
    #[error(
        "{}: is a replica of {found}, not of {expected}; choose another file, or remove this one \
         together with {}", .path.display(), .state.display()
    )]
    OtherSource {
        /// Path of the replica.
        path: PathBuf,
        /// Its state directory.
        state: PathBuf,
        /// What it is a replica of.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// Somebody else has written to the replica.
    #[error(
        "{}: another program has written to this replica ({what}); it is left as it is. To follow \
         again and lose what was written, remove it together with {}; to keep it as a database of \
         its own, remove only the latter. Readers should open a replica read-only",
        .path.display(), .state.display()
    )]
    Modified {
        /// Path of the replica.
        path: PathBuf,
        /// Its state directory.
        state: PathBuf,
        /// How that is known.
        what: String,
    },
    /// Another process follows into the same file.
    #[error("{}: another walrust process follows into this file (it holds {})", .path.display(), .lock.display())]
    Owned {
        /// Path of the replica.
        path: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// The state of the replica is unreadable.
    #[error(
        "{}: is damaged or of a newer walrust; remove it together with the replica, which is then \
         made anew", .path.display()
    )]
    BadState {
        /// The state file.
        path: PathBuf,
    },
    /// The next state has another page size, and readers have the replica open.
    #[error(
        "{}: the database has pages of {page_size} bytes now, and readers have the replica open; it \
         is replaced as soon as they close it", .path.display()
    )]
    InUse {
        /// Path of the replica.
        path: PathBuf,
        /// The new page size in bytes.
        page_size: u32,
    },
    /// A file of the history is damaged, or does not continue the replica.
    #[error(transparent)]
    File(#[from] RestoreError),
    /// The replica cannot be read or written.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl ReplicaError {
    /// Whether only a person can help.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::NotOurs { .. }
            | Self::OtherSource { .. }
            | Self::Modified { .. }
            | Self::Owned { .. }
            | Self::BadState { .. } => true,
            Self::Database(error) => matches!(
                error,
                DatabaseError::NotAFile { .. }
                    | DatabaseError::Empty { .. }
                    | DatabaseError::NotADatabase { .. }
                    | DatabaseError::NotWal { .. }
                    | DatabaseError::Replaced { .. }
                    | DatabaseError::Unsupported { .. }
            ),
            Self::InUse { .. } | Self::File(_) => false,
        }
    }
}
