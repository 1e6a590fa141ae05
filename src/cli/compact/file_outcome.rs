//! What has become of a file in a run of the retention that was carried out.

use walrust_engine::Decision;
use walrust_history::RetentionReport;
use walrust_ltx::FileName;

/// What has become of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileOutcome {
    /// It stays, as was decided.
    Kept,
    /// It was to go and is needed after all.
    TakenBack,
    /// It is out of the index, and a later run deletes it.
    Retired,
    /// It is gone.
    Deleted,
    /// It was to go and stays: a problem stood in the way.
    LeftAlone,
}

impl FileOutcome {
    /// What has become of a file for which this was decided; `was_retired`: before the run.
    pub(super) fn of(
        name: FileName,
        decision: &Decision,
        was_retired: bool,
        report: &RetentionReport,
    ) -> Self {
        let is_kept = matches!(decision, Decision::Keep(_));
        if report.deleted.contains(&name) {
            Self::Deleted
        } else if report.taken_back.contains(&name) {
            Self::TakenBack
        } else if report.retired.contains(&name) || was_retired && !is_kept {
            Self::Retired
        } else if is_kept {
            Self::Kept
        } else {
            Self::LeftAlone
        }
    }

    /// As the result shows it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::TakenBack => "taken back",
            Self::Retired => "retired",
            Self::Deleted => "deleted",
            Self::LeftAlone => "left alone",
        }
    }
}
