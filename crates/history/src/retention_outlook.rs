//! How long there is nothing to do for the retention of a history that does not change.
//!
//! Invariant: when a run is over, one at the time that this says changes something, and none before does.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use walrust_engine::manifest::{FileEntry, Manifest, RetiredFile};
use walrust_engine::{
    Decision, HistoryFile, RemoveReason, RetentionPlan, RetentionPolicy, plan_retention,
    quiet_until,
};
use walrust_ltx::FileName;

use crate::OddFiles;
use crate::odd_files::Listed;

/// A history after a run.
#[derive(Debug)]
pub(crate) struct Outlook {
    /// Every file that was there before it.
    pub(crate) listed: Listed,
    /// Those of them that it had planned with.
    pub(crate) planned: BTreeMap<FileName, HistoryFile>,
    pub(crate) policy: RetentionPolicy,
    /// As the run has left it.
    pub(crate) manifest: Manifest,
    /// What it has left alone.
    pub(crate) odd: OddFiles,
    pub(crate) grace: Duration,
    pub(crate) now: Timestamp,
}

impl Outlook {
    /// Until when there is nothing to do, in milliseconds since the Unix epoch; `i64::MAX`: for ever.
    pub(crate) fn quiet_until_ms(&self) -> i64 {
        let (files, odd, now_ms) = (self.files(), self.odd.names(), self.now.as_millisecond());
        let plan = plan_retention(&files, &odd, &self.policy, now_ms);
        if self.has_more_to_do(&plan) {
            return now_ms;
        }
        let changes_ms = quiet_until(&files, &odd, &self.policy, now_ms);
        let going = self.manifest.retired.iter().filter(|file| self.is_going(file, &plan));
        let ends = going.filter_map(|file| grace_ends(&file.since, self.grace));
        ends.map(Timestamp::as_millisecond).fold(changes_ms, i64::min)
    }

    /// Whether another run would change something now: files of other sizes may make another merge
    /// worth while, and storage may have refused to delete something.
    fn has_more_to_do(&self, plan: &RetentionPlan) -> bool {
        let retired = self.manifest.retired_names();
        let is_open = |(name, decision): (&FileName, &Decision)| match decision {
            Decision::Keep(_) => retired.contains(name),
            Decision::Merge { .. } => true,
            Decision::Remove(_) => !retired.contains(name) && !self.is_left(*name, decision),
        };
        self.manifest.retired.iter().any(|file| file.deleting) || plan.decisions.iter().any(is_open)
    }

    /// Whether a retired file is to be deleted.
    fn is_going(&self, file: &RetiredFile, plan: &RetentionPlan) -> bool {
        let name = file.entry.file_name();
        let decision = name.and_then(|name| Some((name, plan.decisions.get(&name)?)));
        decision.is_some_and(|(name, decision)| !self.is_left(name, decision))
    }

    /// Whether a file that a plan would remove is left alone, since nothing proves that it may go.
    fn is_left(&self, name: FileName, decision: &Decision) -> bool {
        matches!(decision, Decision::Remove(RemoveReason::PartOf(whole))
            if self.odd.contains(name) || self.odd.contains(*whole))
    }

    /// The files that a plan would find now.
    fn files(&self) -> Vec<HistoryFile> {
        let in_deletion = self.manifest.names_in_deletion();
        let entries = self.manifest.entries_with_retired();
        let entries: BTreeMap<FileName, &FileEntry> =
            entries.filter_map(|entry| Some((entry.file_name()?, entry))).collect();
        let left = entries.iter().filter(|(name, _)| !in_deletion.contains(name));
        let mut files: Vec<HistoryFile> =
            left.filter_map(|(name, entry)| self.file(*name, entry)).collect();
        let unknown = self.planned.values().filter(|file| !entries.contains_key(&file.name));
        files.extend(unknown.filter(|file| !file.indexed));
        files
    }

    /// A file as the manifest has it; nothing of one that the run had found and could not judge.
    fn file(&self, name: FileName, entry: &FileEntry) -> Option<HistoryFile> {
        let planned = self.planned.get(&name);
        if planned.is_none() && self.listed.contains_key(&name) {
            return None;
        }
        let created = entry.created.parse::<Timestamp>().ok().map(Timestamp::as_millisecond);
        let timestamp_ms = created.or(planned.map(|file| file.timestamp_ms))?;
        Some(HistoryFile { name, size: entry.size, timestamp_ms, indexed: true })
    }
}

/// When a retired file may be deleted. What cannot be read was written by nobody we know: it waits for a
/// person.
pub(crate) fn grace_ends(since: &str, grace: Duration) -> Option<Timestamp> {
    let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
    since.parse::<Timestamp>().ok()?.saturating_add(grace).ok()
}
