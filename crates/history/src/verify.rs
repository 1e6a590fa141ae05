//! Proves that a history can be restored, without restoring it.
//!
//! Every file is read once, several at a time. Each must obey the rules of its format, be what its
//! name, the manifest and the SHA-256 beside it say, and lead from one state to the next with each
//! page (`walrust_engine::ChainCheck`). On demand the newest state is restored as well, from the bytes
//! that were read.
//!
//! Invariant: a history without a critical finding can be restored to each TXID that a file ends with.
//! Files that retention has given up are not looked at: they may vanish at any moment, and nothing
//! needs them. Nor are those of a branch that does not go on: nothing is restored from them.
//!
//! Merging and retention may change the history meanwhile. What looks like a loss then is believed only
//! if the history is as it was when it was listed, or the next look finds the same again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::Arc;

use futures_util::StreamExt;
use walrust_engine::manifest::FileEntry;
use walrust_engine::{
    ChainCheck, Layout, MANIFEST, RestorePlan, RestoreTarget, StoredFile, Tree, manifest_key,
    plan_restore,
};
use walrust_ltx::{FileName, Mode};
use walrust_sqlite::{Cancellation, IntegrityCheck, Restore, RestoreError};
use walrust_storage::ObjectStore;

use crate::branches::take_abandoned;
use crate::file_walk::FileWalk;
use crate::history::staying;
use crate::history_index::HistoryIndex;
use crate::inspection::{Reading, inspect};
use crate::scratch::blocking;
use crate::{Finding, HistoryError, Problem, Verification, patiently};

/// How a history is verified.
#[derive(Clone, Copy, Debug)]
pub struct VerifyOptions {
    /// Restore the newest state to a scratch file, and have SQLite check all of it.
    pub deep: bool,
    /// Files that are read at once. Each takes up to 4 MiB of memory, and 16 bytes for each of its
    /// pages.
    pub parallelism: NonZeroUsize,
    /// Bytes that each of them reads in a second; `None`: no limit.
    pub bytes_per_second: Option<u64>,
}

/// Files that are read at once, unless it is told otherwise.
pub const VERIFY_PARALLELISM: NonZeroUsize = NonZeroUsize::new(8).expect("8 is not zero");

/// How often a history is looked at that changes meanwhile.
const LOOKS: u32 = 8;

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { deep: false, parallelism: VERIFY_PARALLELISM, bytes_per_second: None }
    }
}

/// A history that is going to be verified.
#[derive(Debug)]
pub struct Verify {
    name: String,
    index: HistoryIndex,
    tree: Tree,
    /// Files of a branch that does not go on.
    abandoned: Vec<StoredFile>,
    /// Objects that are none of ours.
    foreign: Vec<String>,
}

impl Verify {
    /// Lists the files of a database and reads its manifest.
    ///
    /// # Errors
    /// If storage fails.
    pub async fn begin(store: &dyn ObjectStore, name: &str) -> Result<Self, HistoryError> {
        let name = name.trim_matches('/');
        // First, so that what it knows is listed.
        let index = HistoryIndex::read(store, name).await?;
        let prefix = format!("{name}/");
        let listing = patiently(|| store.list(&prefix, None)).await?;
        let tree = Tree::read(name, listing.iter().map(|entry| (entry.key.as_str(), entry.size)));
        let is_foreign = |key: &str| {
            let rest = key.strip_prefix(&prefix).unwrap_or_default();
            let is_ours = rest == MANIFEST || rest.parse::<FileName>().is_ok();
            !(rest.is_empty() || rest.contains('/') || is_ours)
        };
        let mut foreign: Vec<String> = listing.into_iter().map(|entry| entry.key).collect();
        foreign.retain(|key| tree.layout == Layout::Walrust && is_foreign(key));
        let mut tree = staying(&tree, index.manifest());
        let abandoned = take_abandoned(store, &mut tree, index.manifest()).await?;
        Ok(Self { name: name.to_owned(), index, tree, abandoned, foreign })
    }

    /// Bytes that are to be read.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.files.iter().map(|file| file.size).sum()
    }

    /// Reads and checks everything. `progress` is told the bytes of each piece that was read.
    ///
    /// # Errors
    /// If storage or the local disk fails. What is wrong with the history is no error.
    pub async fn run(
        self,
        store: &Arc<dyn ObjectStore>,
        options: &VerifyOptions,
        progress: impl Fn(u64) + Clone + Send + 'static,
    ) -> Result<Verification, HistoryError> {
        let mut found = self.look(store, options, progress.clone()).await?;
        let mut looks = 1;
        loop {
            let may_pass = |finding: &&Finding| finding.problem.may_pass();
            let doubtful: BTreeSet<String> =
                found.findings.iter().filter(may_pass).map(|finding| finding.key.clone()).collect();
            if doubtful.is_empty() {
                return Ok(found);
            }
            let again = Self::begin(store.as_ref(), &found.name).await?;
            if again.index.etag() == found.index.etag() && again.tree == found.tree() {
                return Ok(found);
            }
            found = again.look(store, options, progress.clone()).await?;
            looks += 1;
            let is_new =
                |finding: &Finding| finding.problem.may_pass() && !doubtful.contains(&finding.key);
            if looks == LOOKS && found.findings.iter().any(is_new) {
                // Whatever is lost was lost at each look, and what follows it is known by it alone.
                found.findings.retain(|it| !is_new(it) && !it.problem.is_consequence());
            }
            if !found.findings.iter().any(is_new) {
                return Ok(found);
            }
        }
    }

    async fn look(
        mut self,
        store: &Arc<dyn ObjectStore>,
        options: &VerifyOptions,
        progress: impl Fn(u64) + Clone + Send + 'static,
    ) -> Result<Verification, HistoryError> {
        if self.index.is_newer() {
            self.tree.files.clear();
            self.abandoned.clear();
            self.foreign.clear();
        }
        self.tree.files.sort_by_key(|file| (ChainCheck::order(file.name), file.level));
        let latest = plan_restore(&self.tree, RestoreTarget::Latest);
        let newest: BTreeSet<String> = match &latest {
            Ok(plan) => plan.files.iter().map(|(file, _)| file.key.clone()).collect(),
            Err(_) => BTreeSet::new(),
        };
        let mode = match self.tree.layout {
            Layout::Walrust => Mode::Strict,
            Layout::LitestreamS3 | Layout::LitestreamFile => Mode::Lenient,
        };
        let reading = Reading { mode, bytes_per_second: options.bytes_per_second };
        let reads = self.tree.files.clone().into_iter().map(|file| {
            let (store, progress) = (Arc::clone(store), progress.clone());
            let copy = options.deep && newest.contains(&file.key);
            async move { inspect(store, &file, reading, copy, progress).await }
        });
        let mut reads = futures_util::stream::iter(reads).buffered(options.parallelism.get());
        let mut walk = FileWalk::new(&self.tree, self.index.manifest());
        for file in &self.tree.files {
            let inspected = reads.next().await.expect("one result for each file")?;
            walk.pass(file, inspected);
        }
        drop(reads);
        let FileWalk { mut findings, whole, copies, .. } = walk;
        let head = latest.as_ref().ok().map(|plan| plan.head);
        match latest {
            // An index without files lists what is missing.
            Err(_) if self.tree.files.is_empty() => {}
            Err(error) => findings.push(self.about(Problem::NoPlan(error))),
            Ok(plan) if options.deep && findings.is_empty() => {
                if let Some(problem) = restore(plan, copies, mode).await? {
                    findings.push(self.about(problem));
                }
            }
            Ok(_) => {}
        }
        self.compare_index(&mut findings);
        let Self { name, index, tree, .. } = self;
        let Tree { layout, files, .. } = tree;
        let lost = None;
        Ok(Verification { name, layout, files, findings, head, newest, lost, index, whole })
    }

    /// What is wrong with the index, apart from what it says of files that are there.
    fn compare_index(&mut self, findings: &mut Vec<Finding>) {
        let finding = |key: String, problem| Finding { key, problem };
        let key = |name: FileName| format!("{}/{name}", self.name);
        let foreign = self.foreign.drain(..).map(|key| finding(key, Problem::Foreign));
        let mut found: Vec<Finding> = foreign.collect();
        let abandoned: BTreeSet<FileName> = self.abandoned.iter().map(|file| file.name).collect();
        let left = self.abandoned.drain(..).map(|file| finding(file.key, Problem::Abandoned));
        found.extend(left);
        let is_empty = self.tree.files.is_empty();
        match &self.index {
            HistoryIndex::None if is_empty => {
                found.push(finding(self.name.clone(), Problem::NoFiles));
            }
            HistoryIndex::None if self.tree.layout == Layout::Walrust => {
                found.push(finding(manifest_key(&self.name), Problem::NoManifest));
            }
            HistoryIndex::None => {}
            HistoryIndex::Read(object) => {
                let manifest = &object.manifest;
                let mut missing = manifest.missing_from(&self.tree);
                missing.retain(|name| !abandoned.contains(name));
                found.extend(missing.into_iter().map(|it| finding(key(it), Problem::Missing)));
                if is_empty {
                    found.push(finding(self.name.clone(), Problem::NoFiles));
                }
                let known = manifest.files.iter().filter_map(FileEntry::file_name);
                let (left, known): (BTreeSet<FileName>, BTreeSet<FileName>) =
                    known.partition(|name| abandoned.contains(name));
                found.extend(left.into_iter().map(|it| finding(key(it), Problem::AbandonedEntry)));
                let newest = known.iter().map(|name| name.max).max();
                // What is newer than the manifest it will have with its next version.
                let old = self.tree.files.iter().filter(|file| Some(file.name.max) <= newest);
                let unknown = old.filter(|file| !known.contains(&file.name));
                found.extend(unknown.map(|it| finding(it.key.clone(), Problem::NotIndexed)));
            }
            HistoryIndex::Bad(why) => {
                found.push(finding(manifest_key(&self.name), why.clone().into()));
            }
        }
        findings.extend(found);
    }

    fn about(&self, problem: Problem) -> Finding {
        Finding { key: self.name.clone(), problem }
    }
}

/// Restores a state from files that were read, and has SQLite check it.
async fn restore(
    plan: RestorePlan,
    mut copies: BTreeMap<String, File>,
    mode: Mode,
) -> Result<Option<Problem>, HistoryError> {
    let cancellation = Cancellation::default();
    let _cancel = cancellation.on_drop();
    let work = move || {
        let mut restored = || -> Result<(), RestoreError> {
            let restore = Restore::begin_scratch(&std::env::temp_dir(), mode)?;
            let mut restore = restore.cancelled_by(cancellation.clone());
            for (file, _) in &plan.files {
                if cancellation.is_cancelled() {
                    return Err(RestoreError::Cancelled);
                }
                let copy = copies.remove(&file.key).expect("the files of the plan were kept");
                restore.apply(&file.key, file.name, std::io::BufReader::new(copy))?;
            }
            restore.finish(IntegrityCheck::Full).map(|_| ())
        };
        match restored() {
            Ok(()) => Ok(None),
            Err(error @ RestoreError::Io { .. }) => Err(error.into()),
            Err(error) => Ok(Some(Problem::Restore(error))),
        }
    };
    blocking(work).await
}
