//! What helps against the findings of a look at a history.

use walrust_engine::Layout;

use crate::{Finding, Problem, Severity, Verification};

/// What helps against what was found. Its text is a sentence for an operator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Remedy {
    /// A newer program wrote the manifest.
    #[error("what is in storage was not judged; use a newer walrust")]
    NewerProgram,
    /// There is nothing under the name.
    #[error("there is no backup named {name:?}; `walrust list` shows the names")]
    OtherName {
        /// The name.
        name: String,
    },
    /// There is nothing at all.
    #[error("there is no backup; is this the right bucket and prefix?")]
    OtherPlace,
    /// The newest state is lost.
    #[error(
        "the newest state is lost in storage. While the database itself is at hand, `walrust snapshot` \
         stores it anew; `walrust list NAME` shows the states in storage"
    )]
    Snapshot,
    /// Objects are damaged, or of no use, that the newest state does not need.
    #[error(
        "the newest state can be restored, some older ones cannot. Delete the CRITICAL objects and run \
         `walrust verify --fix`"
    )]
    Deletion,
    /// Files are gone that the newest state does not need.
    #[error(
        "the newest state can be restored, some older ones are lost. `walrust verify --fix` takes the \
         missing files out of the manifest"
    )]
    Forgetting,
    /// Only the manifest is wrong.
    #[error("every file is as it should be. `walrust verify --fix` repairs the manifest")]
    Repair,
}

impl Verification {
    /// What helps against the findings; `None` if there are none, or only such as do no harm.
    #[must_use]
    pub fn remedy(&self) -> Option<Remedy> {
        if self.index.is_newer() {
            return Some(Remedy::NewerProgram);
        }
        if self.files.is_empty() && !self.has_manifest() {
            return Some(Remedy::OtherName { name: self.name.clone() });
        }
        // Another program looks after its files.
        if self.layout != Layout::Walrust {
            return None;
        }
        let is_missing = |finding: &Finding| matches!(finding.problem, Problem::Missing);
        let is_repairable = |finding: &Finding| self.can_repair(finding);
        let loses_newest = |finding: &Finding| {
            self.is_loss_of_newest(finding) && (is_missing(finding) || !is_repairable(finding))
        };
        if self.lost.is_some() || self.head.is_none() || self.findings.iter().any(loses_newest) {
            return Some(Remedy::Snapshot);
        }
        let is_critical = |it: &&Finding| it.problem.severity() == Severity::Critical;
        let critical: Vec<&Finding> = self.findings.iter().filter(is_critical).collect();
        if !critical.iter().all(|finding| is_repairable(finding)) {
            return Some(Remedy::Deletion);
        }
        if critical.iter().any(|finding| is_missing(finding)) {
            return Some(Remedy::Forgetting);
        }
        self.findings.iter().any(is_repairable).then_some(Remedy::Repair)
    }
}
