//! What was found out about a history, and what its manifest should say.

use std::collections::{BTreeMap, BTreeSet};

use walrust_engine::manifest::FileEntry;
use walrust_engine::{Layout, StoredFile, Tree};
use walrust_ltx::{FileName, Txid};

use crate::history_index::HistoryIndex;
use crate::retention_report::file_of;
use crate::{Finding, Problem, Severity};

/// What was found out about a history.
#[derive(Debug)]
pub struct Verification {
    /// Name of the database.
    pub name: String,
    /// Layout of its files.
    pub layout: Layout,
    /// The files that were looked at, in the order of their last TXIDs.
    pub files: Vec<StoredFile>,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// The newest TXID that the files lead to; `None` if there is none.
    pub head: Option<Txid>,
    /// Keys of the files that restore the newest state.
    pub(crate) newest: BTreeSet<String>,
    /// The newest state that the manifest knew, if a repair took it out because its files are gone.
    pub lost: Option<Txid>,
    pub(crate) index: HistoryIndex,
    /// What the manifest should say of each file that is whole, and who wrote the file.
    pub(crate) whole: BTreeMap<FileName, Whole>,
}

/// A file that is whole.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) entry: FileEntry,
    /// Whether storage keeps the SHA-256 of these bytes beside it.
    pub(crate) is_recorded: bool,
    /// Page size of the database in bytes.
    pub(crate) page_size: u32,
    /// The identifier of the local state that it came from.
    pub(crate) writer: Option<String>,
}

impl Verification {
    /// The worst of the findings; `None` if everything is as it should be.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.problem.severity()).max()
    }

    /// The first finding for which a restore of the newest state fails, or ends before it; `None` if
    /// there is none. A snapshot makes up for it.
    #[must_use]
    pub fn loss_of_newest(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| self.is_loss_of_newest(finding))
    }

    /// Whether a restore of the newest state fails because of a finding, or ends before it.
    pub(crate) fn is_loss_of_newest(&self, finding: &Finding) -> bool {
        match &finding.problem {
            Problem::NoFiles | Problem::NoPlan(_) | Problem::Restore(_) => true,
            Problem::Missing if self.state_after_head(finding).is_some() => true,
            problem => {
                problem.severity() == Severity::Critical && self.newest.contains(&finding.key)
            }
        }
    }

    /// The state that a file leads to, if it is newer than all that the files which are there lead to.
    pub(crate) fn state_after_head(&self, finding: &Finding) -> Option<Txid> {
        let name = file_of(&finding.key)?;
        (Some(name.max) > self.head).then_some(name.max)
    }

    /// Bytes of the files.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Whether there is a manifest.
    #[must_use]
    pub fn has_manifest(&self) -> bool {
        !matches!(self.index, HistoryIndex::None)
    }

    /// The files, as a listing would show them.
    pub(crate) fn tree(&self) -> Tree {
        let mut files = self.files.clone();
        files.sort_by(|one, other| one.key.cmp(&other.key));
        Tree { layout: self.layout, files, has_manifest: self.has_manifest() }
    }
}
