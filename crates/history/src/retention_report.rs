//! What a run of the retention did, and what it left alone.

use std::sync::Arc;

use walrust_engine::Merge;
use walrust_ltx::FileName;
use walrust_storage::StorageError;

use crate::OddFiles;

/// What a run of the retention did.
#[derive(Clone, Debug, Default)]
pub struct RetentionReport {
    /// Merges whose results are in storage and in the manifest.
    pub merged: Vec<Merge>,
    /// Files that were taken out of the manifest and are deleted when the grace period is over.
    pub retired: Vec<FileName>,
    /// Retired files that are needed after all.
    pub taken_back: Vec<FileName>,
    /// Files that were deleted.
    pub deleted: Vec<FileName>,
    /// What was left alone, and why.
    pub problems: Vec<RetentionProblem>,
    /// The files that were left alone, by this run and the ones before it that it was told of.
    pub odd: OddFiles,
    /// If the history does not change there is nothing more to do before this time, in milliseconds
    /// since the Unix epoch.
    pub quiet_until_ms: i64,
}

impl RetentionReport {
    /// Whether the history is another one than before the run.
    #[must_use]
    pub fn changed_something(&self) -> bool {
        let names = [&self.retired, &self.taken_back, &self.deleted];
        !self.merged.is_empty() || names.iter().any(|names| !names.is_empty())
    }
}

/// Why a file was left alone. It stays, and so does everything that would need it to be whole.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetentionProblem {
    /// It is not an LTX file with the TXIDs of its name.
    #[error("{key} is not the LTX file that its name promises; left alone")]
    NotLtx {
        /// Key of the object.
        key: String,
    },
    /// It has another size than the manifest says.
    #[error("{key} has {size} bytes, the manifest says {recorded}; left alone")]
    WrongSize {
        /// Key of the object.
        key: String,
        /// Its size in bytes.
        size: u64,
        /// What the manifest says.
        recorded: u64,
    },
    /// It is damaged.
    #[error("{key} is damaged: {source}; left alone")]
    Damaged {
        /// Key of the object.
        key: String,
        /// What is wrong.
        source: Arc<walrust_ltx::Error>,
    },
    /// It has other bytes than were stored.
    #[error("{key} has another SHA-256 than it was stored with; left alone")]
    WrongSha256 {
        /// Key of the object.
        key: String,
    },
    /// By its name it is beside other files, but its states are not theirs.
    #[error("{key} does not continue the states of the files beside it; left alone")]
    BrokenChain {
        /// Key of the object.
        key: String,
    },
    /// Files that are whole do not give one file.
    #[error("the parts of {key} cannot be merged: {source}; left alone")]
    NotMergeable {
        /// Key that the merged file would have.
        key: String,
        /// Why.
        source: Arc<walrust_ltx::Error>,
    },
    /// Nothing would prove that the merged file belongs to the history.
    #[error("the parts of {key} have no rolling checksums; left alone")]
    NoChecksums {
        /// Key that the merged file would have.
        key: String,
    },
    /// The key of a merged file is taken.
    #[error("{key} is another file than the one that was merged; its parts are left alone")]
    OtherObject {
        /// Key of the object.
        key: String,
    },
    /// Storage did not delete it. The next run tries again.
    #[error("{key} was not deleted: {source}")]
    NotDeleted {
        /// Key of the object.
        key: String,
        /// What storage said.
        source: Arc<StorageError>,
    },
}

impl RetentionProblem {
    /// Key of the object, relative to the store.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::NotLtx { key }
            | Self::WrongSize { key, .. }
            | Self::Damaged { key, .. }
            | Self::WrongSha256 { key }
            | Self::BrokenChain { key }
            | Self::NotMergeable { key, .. }
            | Self::NoChecksums { key }
            | Self::OtherObject { key }
            | Self::NotDeleted { key, .. } => key,
        }
    }
    /// The file that is to be left alone from now on; for the parts of a merge, the merged one.
    pub(crate) fn file(&self) -> Option<FileName> {
        match self {
            Self::NotDeleted { .. } => None,
            _ => file_of(self.key()),
        }
    }
}

/// The name of the file under a key.
pub(crate) fn file_of(key: &str) -> Option<FileName> {
    key.rsplit('/').next()?.parse().ok()
}
