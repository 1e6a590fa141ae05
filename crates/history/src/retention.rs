//! Keeps a history in storage as a policy says: merges, retires, deletes.
//!
//! # Order
//! A merged file is stored, read back and verified; then one conditional write of the manifest puts
//! it in and takes its sources out, which are *retired* from then on; after a grace period retired
//! files are deleted. Files that expired are retired and deleted in the same way. So the manifest
//! never lists a file that this has deleted, and a restore in flight keeps its files for as long as
//! the grace period.
//!
//! # Consistency
//! Nothing is decided on a listing that fails, is empty, or lacks a file that the manifest lists; nor
//! after another writer has taken the name over. Only files that the manifest knows are touched. Before
//! a retired file is deleted the plan that was just made has to say again that it may go: if it does
//! not, the file is put back.
//!
//! # Crash consistency
//! Every step leaves a history of which each restore point of the plan can be restored. A process that
//! died is continued by planning anew: nothing but the manifest says how far it came.
//!
//! # Faults
//! A file that is damaged, or that does not continue what is before it, stays, is reported, and does
//! not keep the others from being merged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use walrust_engine::manifest::{FileEntry, Manifest, Writer};
use walrust_engine::{
    Decision, HistoryFile, Layout, Merge, RemoveReason, RetentionPlan, RetentionPolicy, StoredFile,
    Tree, manifest_key, object_key, plan_retention, quiet_until,
};
use walrust_ltx::FileName;
use walrust_storage::ObjectStore;

use crate::branches::take_abandoned;
use crate::compaction::{Merged, store_merged, verify};
use crate::file_description::{HEADERS, describe, read_header};
use crate::manifest_object::{check_writer, read_manifest_patiently, read_own_manifest};
use crate::retention_report::{RetentionProblem, RetentionReport};
use crate::scratch::fetch;
use crate::{HistoryError, edit_manifest, patiently};

/// A history, and what is to become of it.
#[derive(Clone, Debug)]
pub struct Retention {
    /// Name of the database.
    pub name: String,
    /// What is to become of each file that can be read.
    pub plan: RetentionPlan,
    /// Those files.
    pub files: BTreeMap<FileName, HistoryFile>,
    /// Files that cannot be judged and stay.
    pub problems: Vec<RetentionProblem>,
    policy: RetentionPolicy,
    /// The manifest that the plan was made with.
    manifest: Manifest,
}

impl Retention {
    /// Plans the retention of a history. `now_ms` is milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// If storage fails, nothing or another program's files are stored under the name, there is no
    /// manifest, or files that it lists are not there.
    pub async fn plan(
        store: &dyn ObjectStore,
        name: &str,
        policy: &RetentionPolicy,
        now_ms: i64,
    ) -> Result<Self, HistoryError> {
        let name = name.trim_matches('/');
        // Before the listing: what it knows must be listed then.
        let manifest = read_manifest_patiently(store, name).await?;
        let prefix = format!("{name}/");
        let listing = patiently(|| store.list(&prefix, None)).await?;
        let mut tree =
            Tree::read(name, listing.iter().map(|entry| (entry.key.as_str(), entry.size)));
        let (name, url) = (name.to_owned(), store.url());
        if tree.layout != Layout::Walrust {
            return Err(HistoryError::OtherLayout { name, url, layout: tree.layout });
        }
        let object = || format!("{url}/{}", manifest_key(&name));
        let Some(manifest) = manifest.map(|object| object.manifest) else {
            return Err(match tree.files.is_empty() {
                true => HistoryError::UnknownName { name, url },
                false => HistoryError::NoManifest { object: object() },
            });
        };
        if let Some(file) = manifest.missing_from(&tree).first() {
            return Err(HistoryError::FilesMissing { object: object(), file: file.to_string() });
        }
        // What another writer has stored is not deleted unless somebody has looked at it.
        take_abandoned(store, &mut tree, Some(&manifest)).await?;
        let (files, problems) = read_files(store, &tree, &manifest).await?;
        let plan = plan_retention(&files, policy, now_ms);
        let files = files.into_iter().map(|file| (file.name, file)).collect();
        Ok(Self { name, plan, files, problems, policy: *policy, manifest })
    }

    /// When a file was retired, if it is; RFC 3339.
    #[must_use]
    pub fn retired_since(&self, name: FileName) -> Option<&str> {
        let mut retired = self.manifest.retired.iter();
        let file = retired.find(|file| file.entry.file_name() == Some(name))?;
        Some(&file.since)
    }

    /// Carries the plan out, unless another writer than the one that owned the name when it was made
    /// owns it now. `now_ms` gives milliseconds since the Unix epoch, at the time that it is
    /// called.
    ///
    /// # Errors
    /// If storage or the local disk fails, or another writer has taken the name over. What was done
    /// stays done.
    pub async fn execute(
        &self,
        store: &dyn ObjectStore,
        grace: Duration,
        now_ms: &(dyn Fn() -> i64 + Sync),
    ) -> Result<RetentionReport, HistoryError> {
        self.execute_as(&self.manifest.writer, store, grace, now_ms).await
    }

    /// Carries the plan out if the name belongs to a writer.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn execute_as(
        &self,
        writer: &Writer,
        store: &dyn ObjectStore,
        grace: Duration,
        now_ms: &(dyn Fn() -> i64 + Sync),
    ) -> Result<RetentionReport, HistoryError> {
        let object = format!("{}/{}", store.url(), manifest_key(&self.name));
        check_writer(&object, &self.manifest, writer)?;
        let report = RetentionReport { problems: self.problems.clone(), ..Default::default() };
        let manifest = self.manifest.clone();
        let mut run =
            Run { retention: self, store, now_ms, manifest, report, may_go: BTreeSet::new() };
        run.merge().await?;
        run.retire().await?;
        run.delete(grace).await?;
        let (mut report, manifest) = (run.report, run.manifest);
        report.quiet_until_ms = self.quiet_until(&report, &manifest, now_ms());
        Ok(report)
    }

    /// How long there is nothing to do after a run, if the history does not change.
    fn quiet_until(&self, report: &RetentionReport, manifest: &Manifest, now_ms: i64) -> i64 {
        /// To look ahead takes as long as some plans: too long for more files than this.
        const MOST: usize = 10_000;
        if report.changed_something() || !manifest.retired.is_empty() || self.files.len() > MOST {
            return now_ms;
        }
        let files: Vec<HistoryFile> = self.files.values().copied().collect();
        quiet_until(&files, &self.policy, now_ms)
    }
}

/// The files that can be read, and those that cannot.
async fn read_files(
    store: &dyn ObjectStore,
    tree: &Tree,
    manifest: &Manifest,
) -> Result<(Vec<HistoryFile>, Vec<RetentionProblem>), HistoryError> {
    let entries = manifest.entries_with_retired();
    let entries: BTreeMap<FileName, &FileEntry> =
        entries.filter_map(|entry| Some((entry.file_name()?, entry))).collect();
    let reads = tree.files.iter().cloned().map(|file| {
        let entry = entries.get(&file.name).copied().cloned();
        async move { read_file(store, &file, entry.as_ref()).await }
    });
    let read: Vec<_> = futures_util::stream::iter(reads).buffered(HEADERS).try_collect().await?;
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for file in read {
        match file {
            Ok(file) => files.push(file),
            Err(problem) => problems.push(problem),
        }
    }
    Ok((files, problems))
}

async fn read_file(
    store: &dyn ObjectStore,
    file: &StoredFile,
    entry: Option<&FileEntry>,
) -> Result<Result<HistoryFile, RetentionProblem>, HistoryError> {
    let (name, size) = (file.name, file.size);
    let created = entry.and_then(|entry| entry.created.parse::<Timestamp>().ok());
    if let (Some(entry), Some(created)) = (entry, created)
        && entry.size == size
    {
        let timestamp_ms = created.as_millisecond();
        return Ok(Ok(HistoryFile { name, size, timestamp_ms, indexed: true }));
    }
    let key = file.key.clone();
    if let Some(entry) = entry.filter(|entry| entry.size != size) {
        return Ok(Err(RetentionProblem::WrongSize { key, size, recorded: entry.size }));
    }
    Ok(match read_header(store, file).await? {
        Some(header) => {
            let (timestamp_ms, indexed) = (header.timestamp_ms, entry.is_some());
            Ok(HistoryFile { name, size, timestamp_ms, indexed })
        }
        None => Err(RetentionProblem::NotLtx { key }),
    })
}

/// A plan that is being carried out.
struct Run<'a> {
    retention: &'a Retention,
    store: &'a dyn ObjectStore,
    now_ms: &'a (dyn Fn() -> i64 + Sync),
    /// As it was read or written last.
    manifest: Manifest,
    report: RetentionReport,
    /// Files that the plan has proven to be superfluous, now that it was carried out so far.
    may_go: BTreeSet<FileName>,
}

impl Run<'_> {
    async fn merge(&mut self) -> Result<(), HistoryError> {
        let mut merges: VecDeque<Merge> = self.retention.plan.merges.iter().cloned().collect();
        while let Some(merge) = merges.pop_front() {
            let recorded = self.recorded();
            let (name, writer) = (&self.retention.name, &self.manifest.writer.id);
            match store_merged(self.store, name, &merge, &recorded, writer).await? {
                Merged::Stored(entry) => self.index_merged(&merge, entry).await?,
                Merged::Odd { index, begins, problem } => {
                    self.report.problems.push(problem);
                    let behind = if begins { index } else { index + 1 };
                    merges.extend(Merge::of(&merge.sources[..index]));
                    merges.extend(Merge::of(&merge.sources[behind..]));
                }
                Merged::Impossible(problem) => self.report.problems.push(problem),
            }
        }
        Ok(())
    }

    /// Puts a merged file into the manifest in the place of its sources.
    async fn index_merged(&mut self, merge: &Merge, entry: FileEntry) -> Result<(), HistoryError> {
        let sources: BTreeSet<FileName> = merge.sources.iter().copied().collect();
        let since = self.now();
        self.edit(|manifest| {
            // An object of this name that was deleted is no longer the one that is meant.
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
        let key = object_key(&self.retention.name, whole);
        let entry = match known.get(&whole) {
            Some(entry) => entry.clone(),
            None => match self.describe_verified(whole, &key).await? {
                Ok(entry) => entry,
                Err(problem) => {
                    self.report.problems.push(problem);
                    return Ok(None);
                }
            },
        };
        // What is retired was proven to be a part before.
        let retired = self.manifest.retired_names();
        let (mut going, new): (BTreeSet<FileName>, BTreeSet<FileName>) =
            parts.into_iter().partition(|part| retired.contains(part));
        let proven = parts_of(&entry, new.iter().filter_map(|part| known.get(part)));
        for part in new.difference(&proven) {
            let key = object_key(&self.retention.name, *part);
            self.report.problems.push(RetentionProblem::BrokenChain { key });
        }
        going.extend(proven);
        Ok(Some((entry, going)))
    }

    /// Describes a file after reading all of it.
    async fn describe_verified(
        &self,
        name: FileName,
        key: &str,
    ) -> Result<Result<FileEntry, RetentionProblem>, HistoryError> {
        let fetched = fetch(self.store, key).await?;
        if fetched.expected.is_some_and(|expected| expected != fetched.sha256) {
            return Ok(Err(RetentionProblem::WrongSha256 { key: key.to_owned() }));
        }
        if let Err(source) = verify(fetched.file).await {
            return Ok(Err(RetentionProblem::Damaged {
                key: key.to_owned(),
                source: source.into(),
            }));
        }
        let size = self.retention.files[&name].size;
        let file = StoredFile { key: key.to_owned(), name, level: 0, size };
        let entry = describe(self.store, &file).await?;
        Ok(entry.ok_or_else(|| RetentionProblem::NotLtx { key: key.to_owned() }))
    }

    /// Deletes what was retired long enough ago.
    async fn delete(&mut self, grace: Duration) -> Result<(), HistoryError> {
        let now_ms = (self.now_ms)();
        let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        let is_due = |since: &str| {
            // What cannot be read was written by nobody we know: it waits for a person.
            let since = since.parse::<Timestamp>().ok();
            since.is_some_and(|it| it.as_millisecond().saturating_add(grace_ms) <= now_ms)
        };
        let mut due = BTreeSet::new();
        let mut gone = BTreeSet::new();
        for file in &self.manifest.retired {
            let Some(name) = file.entry.file_name() else { continue };
            if self.may_go.contains(&name) && is_due(&file.since) {
                due.insert(name);
            } else if !self.is_stored(name) {
                gone.insert(name);
            }
        }
        if !due.is_empty() {
            self.still_retired(&mut due).await?;
            let keys: Vec<String> =
                due.iter().map(|name| object_key(&self.retention.name, *name)).collect();
            let failures = patiently(|| self.store.delete(&keys)).await?;
            for failure in failures {
                let name = failure.key.rsplit('/').next().and_then(|name| name.parse().ok());
                due.retain(|deleted| Some(*deleted) != name);
                let problem = RetentionProblem::NotDeleted {
                    key: failure.key,
                    reason: failure.error.to_string(),
                };
                self.report.problems.push(problem);
            }
            self.report.deleted.extend(&due);
            gone.extend(due);
        }
        self.edit(|manifest| manifest.forget_retired(&gone)).await
    }

    /// Looks once more, right before files are deleted, whether they are to be.
    async fn still_retired(&self, due: &mut BTreeSet<FileName>) -> Result<(), HistoryError> {
        let current = read_own_manifest(self.store, &self.retention.name, &self.manifest.writer);
        let retired = current.await?.manifest.retired_names();
        due.retain(|name| retired.contains(name));
        Ok(())
    }

    /// Whether a file was there when the plan was made.
    fn is_stored(&self, name: FileName) -> bool {
        let key = object_key(&self.retention.name, name);
        let odd = self.retention.problems.iter().any(|problem| problem.key() == key);
        odd || self.retention.files.contains_key(&name)
    }

    /// What the manifest knows of all files.
    fn recorded(&self) -> BTreeMap<FileName, FileEntry> {
        let entries = self.manifest.entries_with_retired();
        entries.filter_map(|entry| Some((entry.file_name()?, entry.clone()))).collect()
    }

    async fn edit(&mut self, edit: impl Fn(&mut Manifest) + Sync) -> Result<(), HistoryError> {
        let mut edited = self.manifest.clone();
        edit(&mut edited);
        if edited != self.manifest {
            let (name, writer) = (&self.retention.name, &self.retention.manifest.writer);
            self.manifest = edit_manifest(self.store, name, writer, edit).await?;
        }
        Ok(())
    }

    fn now(&self) -> String {
        let now = Timestamp::from_millisecond((self.now_ms)());
        now.map_or_else(|error| error.to_string(), |now| format!("{now:.3}"))
    }
}

/// The files that lead through a larger one, from the state before it to the state behind it. Their
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
