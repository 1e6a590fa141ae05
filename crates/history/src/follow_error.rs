//! Why a replica cannot follow a history.

use walrust_engine::{ErrorClass, Kinship, Layout};
use walrust_ltx::Txid;
use walrust_sqlite::{ReplicaError, RestoreError};
use walrust_storage::StorageError;

use crate::HistoryError;

/// Why a replica cannot follow.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The history cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The replica cannot be written, or a file does not fit it.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The history is not one of walrust.
    #[error(
        "{source_url}: its layout is {layout}, which carries no checksums of the database; only \
         histories of walrust can be followed. `walrust restore` reads it"
    )]
    NotWalrust {
        /// URL and name of the history.
        source_url: String,
        /// The layout.
        layout: Layout,
    },
    /// Files are missing.
    #[error(
        "{source_url}: nothing continues TXID {after}, yet {next} exists, and there is no snapshot \
         after the gap; the replica stays at TXID {after} until there is"
    )]
    Gap {
        /// URL and name of the history.
        source_url: String,
        /// The state of the replica.
        after: Txid,
        /// Key of the first file after the gap.
        next: String,
    },
    /// A state could not be restored, and nothing has changed since.
    #[error("{source_url}: TXID {txid} cannot be restored, and no file has changed since: {why}")]
    GivenUp {
        /// URL and name of the history.
        source_url: String,
        /// The state.
        txid: Txid,
        /// What stood in the way.
        why: String,
    },
    /// The history is older than the replica.
    #[error(
        "{source_url}: {}, the replica is at TXID {at} and does not go back; to have it made anew \
         remove it together with its state directory", describe_newest(*.newest)
    )]
    Behind {
        /// URL and name of the history.
        source_url: String,
        /// The newest state; `None` if there is nothing to restore.
        newest: Option<Txid>,
        /// The state of the replica.
        at: Txid,
    },
}

fn describe_newest(newest: Option<Txid>) -> String {
    match newest {
        Some(newest) => format!("the newest state is TXID {newest}"),
        None => "there is nothing to restore any more".to_owned(),
    }
}

impl FollowError {
    /// Whether only a person can help: trying again cannot.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Replica(error) => error.is_final(),
            Self::NotWalrust { .. } => true,
            Self::History(_) | Self::Gap { .. } | Self::GivenUp { .. } | Self::Behind { .. } => {
                false
            }
        }
    }

    /// The class of the failure, for the pace of further attempts.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::History(HistoryError::Storage(error)) => error.class(),
            _ => ErrorClass::Permanent,
        }
    }

    /// What the failure to apply a file says of the history; `None` if nothing.
    pub(crate) fn kinship(&self) -> Option<Kinship> {
        match self {
            Self::History(HistoryError::Storage(error)) => {
                let is_gone = error.class() == ErrorClass::NotFound && !error.is_missing_bucket();
                is_gone.then_some(Kinship::Unknown)
            }
            Self::Replica(ReplicaError::File(error)) => match error {
                RestoreError::BrokenLink { .. } => Some(Kinship::Other),
                // It did not arrive whole.
                RestoreError::Damaged { source, .. } if source.is_io() => None,
                _ => Some(Kinship::Unknown),
            },
            _ => None,
        }
    }
}

impl From<StorageError> for FollowError {
    fn from(error: StorageError) -> Self {
        Self::History(error.into())
    }
}
