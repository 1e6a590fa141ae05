//! What a look at a history found.

use walrust_engine::manifest::ManifestError;
use walrust_engine::{ChainProblem, RestorePlanError};
use walrust_ltx::Txid;
use walrust_sqlite::RestoreError;

use crate::history_index::Unusable;

/// Something that is not as it should be.
#[derive(Debug)]
pub struct Finding {
    /// Key of the object that it is about, or the name of the database.
    pub key: String,
    /// What it is.
    pub problem: Problem,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Every state can be restored.
    Warning,
    /// A restore fails, or gives another state than was asked for.
    Critical,
}

/// What is not as it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// There is nothing.
    #[error("there is no file to restore from")]
    NoFiles,
    /// The newest state cannot be restored.
    #[error("the newest state cannot be restored: {0}")]
    NoPlan(RestorePlanError),
    /// The manifest cannot be used.
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    /// There are files, but no manifest.
    #[error("it is missing; files that are lost at the end of the history would not be noticed")]
    NoManifest,
    /// A file is gone.
    #[error("it is in the manifest or was listed, and is not there")]
    Missing,
    /// The manifest does not know a file.
    #[error("it is not in the manifest")]
    NotIndexed,
    /// A file of a branch that does not go on.
    #[error(
        "it is of a branch that the history has left behind: another writer had continued the same \
         state; nothing is restored from it, and it may be deleted if nobody misses what that \
         writer had committed"
    )]
    Abandoned,
    /// The manifest knows a file of a branch that does not go on.
    #[error("it is in the manifest, though it is of a branch that the history has left behind")]
    AbandonedEntry,
    /// The manifest says something else of a file than the file.
    #[error("its {field} is {found}, the manifest says {recorded}")]
    WrongEntry {
        /// What it is about.
        field: &'static str,
        /// As the manifest has it.
        recorded: String,
        /// As the file has it.
        found: String,
    },
    /// An object that is none of ours.
    #[error("it is neither an LTX file nor the manifest")]
    Foreign,
    /// A file breaks a rule of its format.
    #[error("{0}")]
    Damaged(#[from] walrust_ltx::Error),
    /// The header of a file contradicts its name.
    #[error("its header says TXID {min}-{max}")]
    WrongRange {
        /// First TXID of the header.
        min: Txid,
        /// Last TXID of the header.
        max: Txid,
    },
    /// The bytes are not those that were stored.
    #[error("its SHA-256 is {found}, it was stored with {expected}")]
    WrongSha256 {
        /// SHA-256 that was recorded, hex.
        expected: String,
        /// SHA-256 of the bytes received, hex.
        found: String,
    },
    /// A file of ours without rolling checksums.
    #[error("it has no rolling checksums: nothing proves that it belongs to this history")]
    NoChecksums,
    /// A file does not fit the others.
    #[error("{0}")]
    Chain(#[from] ChainProblem),
    /// The restore of the newest state failed.
    #[error("a restore of the newest state fails: {0}")]
    Restore(RestoreError),
}

impl From<Unusable> for Problem {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Format(error) => Self::Manifest(error),
            Unusable::Sha256 { expected, found } => Self::WrongSha256 { expected, found },
        }
    }
}

impl Problem {
    /// The field of [`WrongEntry`](Self::WrongEntry) that decides which file is meant.
    pub(crate) const SHA256: &str = "SHA-256";

    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::NoManifest
            | Self::NotIndexed
            | Self::Abandoned
            | Self::AbandonedEntry
            | Self::Foreign => Severity::Warning,
            _ => Severity::Critical,
        }
    }

    /// Whether bytes are not those that were stored, or states not those that they should be; else
    /// something is missing.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        match self {
            Self::Damaged(_)
            | Self::WrongRange { .. }
            | Self::WrongSha256 { .. }
            | Self::NoChecksums
            | Self::Restore(_) => true,
            Self::Chain(problem) => {
                !matches!(problem, ChainProblem::Unreachable { .. } | ChainProblem::LostBase { .. })
            }
            _ => false,
        }
    }

    /// Whether the file itself is as it should be, and only those before it are not.
    #[must_use]
    pub fn is_consequence(&self) -> bool {
        matches!(self, Self::Chain(ChainProblem::LostBase { .. }))
    }

    /// Whether it may come from reading while merging and retention change the history.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Missing | Self::NotIndexed | Self::NoPlan(_) => true,
            Self::Chain(problem) => matches!(problem, ChainProblem::Unreachable { .. }),
            _ => false,
        }
    }
}
