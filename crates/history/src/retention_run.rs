//! Carries a plan of the retention out; see `retention.rs` for the order of its steps.
//!
//! Invariant: every change of the manifest, and every deletion, rests on a manifest that has only grown
//! since this run read it. So of two runs at once each restore point that both promise stays, and no
//! file is entered that the other has deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use walrust_engine::manifest::{FileEntry, Manifest};
use walrust_engine::{Decision, ErrorClass, Merge, RemoveReason, StoredFile, object_key};
use walrust_ltx::FileName;
use walrust_storage::{Condition, Metadata, ObjectStore};

use crate::compaction::{Merged, Merging, Part, verify};
use crate::file_description::describe;
use crate::manifest_object::{read_own_manifest, try_edit_manifest};
use crate::retention_outlook::{Outlook, grace_ends};
use crate::retention_report::{RetentionProblem, RetentionReport, file_of};
use crate::scratch::{blocking, fetch};
use crate::{HistoryError, MERGED_SINCE, Retention, SHA256, WRITER, describe_file, patiently};

/// A plan that is being carried out.
pub(crate) struct Run<'a> {
    retention: &'a Retention,
    store: &'a dyn ObjectStore,
    clock: &'a (dyn Fn() -> Timestamp + Sync),
    /// As it was read or written last.
    manifest: Manifest,
    report: RetentionReport,
    /// Files that the plan has proven to be superfluous, now that it was carried out so far.
    may_go: BTreeSet<FileName>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        retention: &'a Retention,
        store: &'a dyn ObjectStore,
        clock: &'a (dyn Fn() -> Timestamp + Sync),
    ) -> Self {
        let (problems, odd) = (retention.problems.clone(), retention.odd.clone());
        let report = RetentionReport { problems, odd, ..RetentionReport::default() };
        let manifest = retention.manifest.clone();
        Self { retention, store, clock, manifest, report, may_go: BTreeSet::new() }
    }

    /// # Errors
    /// If storage or the local disk fails, another writer has taken the name over, or another run has
    /// changed the history.
    pub(crate) async fn carry_out(
        mut self,
        grace: Duration,
    ) -> Result<RetentionReport, HistoryError> {
        if let Err(error) = self.take_steps(grace).await {
            // A file may be gone because another run has deleted it.
            if error.is_vanished_file() {
                self.check_current().await?;
            }
            return Err(error);
        }
        let outlook = Outlook {
            listed: self.retention.listed.clone(),
            planned: self.retention.files.clone(),
            policy: self.retention.policy,
            manifest: self.manifest,
            odd: self.report.odd.clone(),
            grace,
            now: (self.clock)(),
        };
        // It takes as long as some plans.
        self.report.quiet_until_ms = blocking(move || outlook.quiet_until_ms()).await;
        Ok(self.report)
    }

    async fn take_steps(&mut self, grace: Duration) -> Result<(), HistoryError> {
        for merge in &self.retention.plan.merges {
            self.merge(merge).await?;
        }
        self.retire().await?;
        self.delete(grace).await
    }

    async fn merge(&mut self, merge: &Merge) -> Result<(), HistoryError> {
        let recorded = self.recorded();
        let name = &self.retention.name;
        let mut merging = Merging::new(self.store, name, &merge.sources, &recorded);
        while let Some(part) = merging.next().await? {
            match part {
                Part::Merged(merged) => self.store_merged(merged, &recorded).await?,
                Part::Odd(problem) => self.leave_alone(problem),
            }
        }
        Ok(())
    }

    /// Stores a merged file, reads it back, and puts it into the manifest in the place of its sources.
    async fn store_merged(
        &mut self,
        merged: Merged,
        recorded: &BTreeMap<FileName, FileEntry>,
    ) -> Result<(), HistoryError> {
        let Merged { sources, output, is_broken_off } = merged;
        let Some(merge) = Merge::of(&sources) else { return Ok(()) };
        if self.manifest.names_in_deletion().contains(&merge.into) {
            // The object that has the name is about to go; the next run has it to itself.
            return Ok(());
        }
        let key = object_key(&self.retention.name, merge.into);
        let Some(post_apply) = output.trailer.post_apply else {
            self.leave_alone(RetentionProblem::NoChecksums { key });
            return Ok(());
        };
        let merged_since = recorded
            .get(&sources[0])
            .map(|first| first.merged_since.clone().unwrap_or_else(|| first.created.clone()));
        let sha256 = output.sha256;
        let mut metadata = Metadata::from([
            (SHA256.to_owned(), sha256.clone()),
            (WRITER.to_owned(), self.manifest.writer.id.clone()),
        ]);
        metadata.extend(merged_since.clone().map(|since| (MERGED_SINCE.to_owned(), since)));
        let path = output.file.path();
        let put = || self.store.put_file(&key, &path, &metadata, &Condition::IfAbsent);
        match patiently(put).await {
            // An earlier attempt may have stored it: what is there is compared.
            Err(error) if error.class() != ErrorClass::Precondition => return Err(error.into()),
            _ => {}
        }
        let stored = fetch(self.store, &key).await?;
        if stored.sha256 != sha256 {
            self.leave_alone(RetentionProblem::OtherObject { key });
            return Ok(());
        }
        let entry = describe_file(merge.into, &output.header, post_apply, output.size, sha256);
        self.index_merged(&merge, FileEntry { merged_since, ..entry }).await?;
        if is_broken_off {
            self.report.odd.add_object(merge.into, stored.etag);
        }
        Ok(())
    }

    async fn index_merged(&mut self, merge: &Merge, entry: FileEntry) -> Result<(), HistoryError> {
        let sources: BTreeSet<FileName> = merge.sources.iter().copied().collect();
        let since = self.now();
        self.edit(|manifest| {
            // An object of this name that was retired is wanted again.
            manifest.forget_retired(&BTreeSet::from([merge.into]));
            manifest.add([entry.clone()]);
            manifest.retire(&sources, &since);
        })
        .await?;
        self.report.merged.push(merge.clone());
        self.report.retired.extend(&sources);
        self.may_go.extend(sources);
        Ok(())
    }

    /// Takes what expired out of the manifest, and puts back what is needed after all.
    async fn retire(&mut self) -> Result<(), HistoryError> {
        let (mut going, mut parts) = (BTreeSet::new(), BTreeMap::<_, Vec<_>>::new());
        for (name, decision) in &self.retention.plan.decisions {
            match decision {
                Decision::Remove(RemoveReason::PartOf(whole)) => {
                    parts.entry(*whole).or_default().push(*name);
                }
                Decision::Remove(_) => drop(going.insert(*name)),
                Decision::Keep(_) | Decision::Merge { .. } => {}
            }
        }
        let mut wholes = Vec::new();
        for (whole, parts) in parts {
            if let Some((entry, parts)) = self.replaced_by(whole, parts).await? {
                wholes.push(entry);
                going.extend(parts);
            }
        }
        let decisions = &self.retention.plan.decisions;
        let retired = self.manifest.retired_names();
        let needed = |name: &&FileName| matches!(decisions.get(*name), Some(Decision::Keep(_)));
        let needed: BTreeSet<FileName> = retired.iter().filter(needed).copied().collect();
        let new: BTreeSet<FileName> = going.difference(&retired).copied().collect();
        let since = self.now();
        self.edit(|manifest| {
            manifest.take_back(&needed);
            manifest.add(wholes.clone());
            manifest.retire(&new, &since);
        })
        .await?;
        self.report.taken_back.extend(needed);
        self.report.retired.extend(new);
        self.may_go.extend(going);
        Ok(())
    }

    /// The entry of a merged file, and which files it is proven to take the place of. It may not be
    /// in the manifest: its writer died before.
    async fn replaced_by(
        &mut self,
        whole: FileName,
        parts: Vec<FileName>,
    ) -> Result<Option<(FileEntry, BTreeSet<FileName>)>, HistoryError> {
        let known = self.recorded();
        let entry = match known.get(&whole) {
            Some(entry) => entry.clone(),
            None if self.report.odd.contains(whole) => return Ok(None),
            None => match self.describe_verified(whole).await? {
                Ok(entry) => entry,
                Err(problem) => {
                    self.leave_alone(problem);
                    return Ok(None);
                }
            },
        };
        // What is retired was proven to be a part before.
        let retired = self.manifest.retired_names();
        let (mut going, new): (BTreeSet<FileName>, BTreeSet<FileName>) =
            parts.into_iter().partition(|part| retired.contains(part));
        let proven = parts_of(&entry, new.iter().filter_map(|part| known.get(part)));
        for part in new.difference(&proven).filter(|part| !self.retention.odd.contains(**part)) {
            let key = object_key(&self.retention.name, *part);
            self.leave_alone(RetentionProblem::BrokenChain { key });
        }
        going.extend(proven);
        Ok(Some((entry, going)))
    }

    /// Describes a file after reading all of it.
    async fn describe_verified(
        &self,
        name: FileName,
    ) -> Result<Result<FileEntry, RetentionProblem>, HistoryError> {
        let key = object_key(&self.retention.name, name);
        let fetched = fetch(self.store, &key).await?;
        if fetched.expected.is_some_and(|expected| expected != fetched.sha256) {
            return Ok(Err(RetentionProblem::WrongSha256 { key }));
        }
        if let Err(source) = verify(Arc::new(fetched.file)).await? {
            return Ok(Err(RetentionProblem::Damaged { key, source: source.into() }));
        }
        let size = self.retention.files[&name].size;
        let file = StoredFile { key, name, level: 0, size };
        let entry = describe(self.store, &file).await?;
        Ok(entry.ok_or(RetentionProblem::NotLtx { key: file.key }))
    }

    /// Deletes what was retired long enough ago.
    async fn delete(&mut self, grace: Duration) -> Result<(), HistoryError> {
        let now = (self.clock)();
        let mut due = BTreeSet::new();
        let mut gone = BTreeSet::new();
        for file in &self.manifest.retired {
            let Some(name) = file.entry.file_name() else { continue };
            let is_due = || grace_ends(&file.since, grace).is_some_and(|end| end <= now);
            if !self.retention.listed.contains_key(&name) {
                gone.insert(name);
            } else if file.deleting || self.may_go.contains(&name) && is_due() {
                due.insert(name);
            }
        }
        if !due.is_empty() {
            let has_written = self
                .edit(|manifest| {
                    manifest.forget_retired(&gone);
                    manifest.begin_deletion(&due);
                })
                .await?;
            if !has_written {
                // An earlier run has begun with all of it; this may not be the only one to go on.
                let retired = self.check_current().await?.retired_names();
                due.retain(|name| retired.contains(name));
            }
            gone.extend(self.delete_objects(due).await?);
        }
        self.edit(|manifest| manifest.forget_retired(&gone)).await.map(|_| ())
    }

    /// Deletes files; those of them that are gone.
    async fn delete_objects(
        &mut self,
        mut due: BTreeSet<FileName>,
    ) -> Result<BTreeSet<FileName>, HistoryError> {
        let name = &self.retention.name;
        let keys: Vec<String> = due.iter().map(|file| object_key(name, *file)).collect();
        for failure in patiently(|| self.store.delete(&keys)).await? {
            let name = file_of(&failure.key);
            due.retain(|deleted| Some(*deleted) != name);
            let (key, source) = (failure.key, Arc::new(failure.error));
            self.leave_alone(RetentionProblem::NotDeleted { key, source });
        }
        self.report.deleted.extend(&due);
        Ok(due)
    }

    fn leave_alone(&mut self, problem: RetentionProblem) {
        if let Some(name) = problem.file() {
            self.report.odd.add(name, &self.retention.listed);
        }
        self.report.problems.push(problem);
    }

    /// What the manifest knows of all files.
    fn recorded(&self) -> BTreeMap<FileName, FileEntry> {
        let entries = self.manifest.entries_with_retired();
        entries.filter_map(|entry| Some((entry.file_name()?, entry.clone()))).collect()
    }

    /// Changes the manifest; whether it had to be written.
    async fn edit(&mut self, edit: impl Fn(&mut Manifest) + Sync) -> Result<bool, HistoryError> {
        let before = &self.manifest;
        let mut wanted = before.clone();
        edit(&mut wanted);
        if wanted == *before {
            return Ok(false);
        }
        let edit_current = |manifest: &mut Manifest| {
            if manifest.only_grew_since(before) {
                edit(manifest);
            } else if !manifest.only_grew_since(&wanted) {
                return Err(self.outdated());
            }
            // Else an attempt whose answer got lost was made.
            Ok(())
        };
        let (name, writer) = (&self.retention.name, &before.writer);
        self.manifest = try_edit_manifest(self.store, name, writer, edit_current).await?;
        Ok(true)
    }

    /// The manifest as it is now, if it has only grown.
    async fn check_current(&self) -> Result<Manifest, HistoryError> {
        let (name, writer) = (&self.retention.name, &self.manifest.writer);
        let current = read_own_manifest(self.store, name, writer).await?.manifest;
        match current.only_grew_since(&self.manifest) {
            true => Ok(current),
            false => Err(self.outdated()),
        }
    }

    fn outdated(&self) -> HistoryError {
        HistoryError::Outdated { object: self.retention.manifest_object(self.store) }
    }

    /// The time as the manifest has it.
    fn now(&self) -> String {
        format!("{:.3}", (self.clock)())
    }
}

/// The files that lead through a larger one, from the state before it to the state after it. Their
/// TXIDs alone prove nothing: they may be those of a second chain.
fn parts_of<'a>(
    whole: &FileEntry,
    parts: impl Iterator<Item = &'a FileEntry>,
) -> BTreeSet<FileName> {
    let by_end: BTreeMap<(&str, &str), &FileEntry> =
        parts.map(|part| ((part.max.as_str(), part.post.as_str()), part)).collect();
    let (mut found, mut at) = (BTreeSet::new(), (whole.max.clone(), Some(whole.post.clone())));
    while let (max, Some(post)) = &at
        && let Some(part) = by_end.get(&(max.as_str(), post.as_str()))
        && let Some(name) = part.file_name()
    {
        found.insert(name);
        if part.min == whole.min {
            return if part.pre == whole.pre { found } else { BTreeSet::new() };
        }
        at = (format!("{:016x}", name.min.get() - 1), part.pre.clone());
    }
    BTreeSet::new()
}
