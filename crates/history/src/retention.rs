//! Plans how a history in storage is kept as a policy says.
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
//! # Several runs at once
//! A plan holds while the manifest only grows. A run whose manifest was changed by another in any other
//! way ends there: what it would do next may rest on files that the other gives up. Before files are
//! deleted the manifest says that their deletion begins, and from then on no plan counts on them.
//!
//! # Crash consistency
//! Every step leaves a history of which each restore point of the plan can be restored. A process that
//! died is continued by planning anew: nothing but the manifest says how far it came.
//!
//! # Faults
//! A file that is damaged, or that does not continue what is before it, stays, is reported, and does
//! not keep the others from being merged.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use walrust_engine::manifest::{FileEntry, Manifest, Writer};
use walrust_engine::{
    HistoryFile, Layout, RetentionPlan, RetentionPolicy, StoredFile, Tree, manifest_key,
    plan_retention,
};
use walrust_ltx::FileName;
use walrust_storage::ObjectStore;

use crate::branches::take_abandoned;
use crate::file_description::{HEADERS, read_header};
use crate::manifest_object::{check_writer, read_manifest_patiently};
use crate::odd_files::{Listed, OddFiles};
use crate::retention_report::{RetentionProblem, RetentionReport};
use crate::retention_run::Run;
use crate::{HistoryError, patiently};

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
    pub(crate) policy: RetentionPolicy,
    /// The manifest that the plan was made with.
    pub(crate) manifest: Manifest,
    /// Every file that is there.
    pub(crate) listed: Listed,
    /// Those of `problems`, and what an earlier run had found.
    pub(crate) odd: OddFiles,
}

impl Retention {
    /// Plans the retention of a history.
    ///
    /// # Errors
    /// If storage fails, nothing or another program's files are stored under the name, there is no
    /// manifest, or files that it lists are not there.
    pub async fn plan(
        store: &dyn ObjectStore,
        name: &str,
        policy: &RetentionPolicy,
        now: Timestamp,
    ) -> Result<Self, HistoryError> {
        Self::plan_without(store, name, policy, now, &OddFiles::default()).await
    }

    /// As [`plan`](Self::plan), after a run that has left files alone: as long as they are the same
    /// objects they are neither read nor reported again.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn plan_without(
        store: &dyn ObjectStore,
        name: &str,
        policy: &RetentionPolicy,
        now: Timestamp,
        odd: &OddFiles,
    ) -> Result<Self, HistoryError> {
        const ATTEMPTS: u32 = 5;
        let name = name.trim_matches('/');
        let mut attempt = 1;
        loop {
            // Before the listing: what it knows must be listed then.
            let manifest = read_manifest_patiently(store, name).await?;
            let (manifest, etag) = manifest.map(|it| (it.manifest, it.etag)).unzip();
            match Self::plan_once(store, name, policy, now, odd, manifest).await {
                // Another run may have gone on since the manifest was read.
                Err(error) if attempt < ATTEMPTS && error.may_be_outdated() => {
                    let current = read_manifest_patiently(store, name).await?;
                    if current.map(|it| it.etag) == etag {
                        return Err(error);
                    }
                    attempt += 1;
                }
                planned => return planned,
            }
        }
    }

    async fn plan_once(
        store: &dyn ObjectStore,
        name: &str,
        policy: &RetentionPolicy,
        now: Timestamp,
        odd: &OddFiles,
        manifest: Option<Manifest>,
    ) -> Result<Self, HistoryError> {
        let prefix = format!("{name}/");
        let listing = patiently(|| store.list(&prefix, None)).await?;
        let mut tree =
            Tree::read(name, listing.iter().map(|entry| (entry.key.as_str(), entry.size)));
        let (name, url) = (name.to_owned(), store.url());
        if tree.layout != Layout::Walrust {
            return Err(HistoryError::OtherLayout { name, url, layout: tree.layout });
        }
        let object = || format!("{url}/{}", manifest_key(&name));
        let Some(manifest) = manifest else {
            return Err(match tree.files.is_empty() {
                true => HistoryError::UnknownName { name, url },
                false => HistoryError::NoManifest { object: object() },
            });
        };
        if let Some(file) = manifest.missing_from(&tree).first() {
            return Err(HistoryError::FilesMissing { object: object(), file: file.to_string() });
        }
        let named = listing
            .into_iter()
            .filter_map(|entry| Some((entry.key.strip_prefix(&prefix)?.parse().ok()?, entry.etag)));
        let listed: Listed = named.collect();
        let mut odd = odd.still(&listed);
        // What another writer has stored is not deleted unless somebody has looked at it.
        take_abandoned(store, &mut tree, Some(&manifest)).await?;
        // They may be gone by now.
        let in_deletion = manifest.names_in_deletion();
        tree.files.retain(|file| !in_deletion.contains(&file.name));
        let (files, problems) = read_files(store, &tree, &manifest, &odd).await?;
        for name in problems.iter().filter_map(RetentionProblem::file) {
            odd.add(name, &listed);
        }
        let plan = plan_retention(&files, &odd.names(), policy, now.as_millisecond());
        let files = files.into_iter().map(|file| (file.name, file)).collect();
        Ok(Self { name, plan, files, problems, policy: *policy, manifest, listed, odd })
    }

    /// When a file was retired, if it is; RFC 3339.
    #[must_use]
    pub fn retired_since(&self, name: FileName) -> Option<&str> {
        let mut retired = self.manifest.retired.iter();
        let file = retired.find(|file| file.entry.file_name() == Some(name))?;
        Some(&file.since)
    }

    /// Carries the plan out, unless another writer than the one that owned the name when it was made
    /// owns it now. `clock` gives the time.
    ///
    /// # Errors
    /// If storage or the local disk fails, another writer has taken the name over, or another run has
    /// changed the history meanwhile. What was done stays done.
    pub async fn execute(
        &self,
        store: &dyn ObjectStore,
        grace: Duration,
        clock: &(dyn Fn() -> Timestamp + Sync),
    ) -> Result<RetentionReport, HistoryError> {
        self.execute_as(&self.manifest.writer, store, grace, clock).await
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
        clock: &(dyn Fn() -> Timestamp + Sync),
    ) -> Result<RetentionReport, HistoryError> {
        check_writer(&self.manifest_object(store), &self.manifest, writer)?;
        Run::new(self, store, clock).carry_out(grace).await
    }

    /// Key of the manifest, with the storage.
    pub(crate) fn manifest_object(&self, store: &dyn ObjectStore) -> String {
        format!("{}/{}", store.url(), manifest_key(&self.name))
    }
}

/// The files that can be read, and those that cannot. Of the latter those that are known as odd are
/// not read again.
async fn read_files(
    store: &dyn ObjectStore,
    tree: &Tree,
    manifest: &Manifest,
    odd: &OddFiles,
) -> Result<(Vec<HistoryFile>, Vec<RetentionProblem>), HistoryError> {
    let entries = manifest.entries_with_retired();
    let entries: BTreeMap<FileName, &FileEntry> =
        entries.filter_map(|entry| Some((entry.file_name()?, entry))).collect();
    let (mut files, mut unknown) = (Vec::new(), Vec::new());
    for file in &tree.files {
        let entry = entries.get(&file.name).copied();
        match entry.and_then(|entry| recorded_file(file, entry)) {
            Some(recorded) => files.push(recorded),
            None if odd.contains(file.name) => {}
            None => unknown.push((file, entry)),
        }
    }
    let reads = unknown.into_iter().map(|(file, entry)| read_file(store, file, entry));
    let reads: Vec<_> = reads.collect();
    let read: Vec<_> = futures_util::stream::iter(reads).buffered(HEADERS).try_collect().await?;
    let mut problems = Vec::new();
    for file in read {
        match file {
            Ok(file) => files.push(file),
            Err(problem) => problems.push(problem),
        }
    }
    Ok((files, problems))
}

/// A file as the manifest has it, if it has the size and the time of it.
pub(crate) fn recorded_file(file: &StoredFile, entry: &FileEntry) -> Option<HistoryFile> {
    let (name, size) = (file.name, file.size);
    let timestamp_ms = entry.created.parse::<Timestamp>().ok()?.as_millisecond();
    (entry.size == size).then_some(HistoryFile { name, size, timestamp_ms, indexed: true })
}

async fn read_file(
    store: &dyn ObjectStore,
    file: &StoredFile,
    entry: Option<&FileEntry>,
) -> Result<Result<HistoryFile, RetentionProblem>, HistoryError> {
    let (name, size, key) = (file.name, file.size, file.key.clone());
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
