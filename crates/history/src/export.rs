//! Writes a history as a tree that Litestream 0.5 restores, and goes on with.
//!
//! Everything is verified that is known of a file: its SHA-256, every byte, its TXIDs, and that it
//! continues the state that the file before it leaves. Litestream cannot do that later: the checksums
//! of states stay behind.
//!
//! Invariant: a tree that restores has the head, and nothing in it was not verified; the order in which
//! files are stored sees to that ([`walrust_engine::plan_export`]). After a crash there is a tree without
//! a snapshot, which restores nothing, or one that lacks nothing but older snapshots.
//!
//! A few files at a time lie on the local disk; memory does not depend on their sizes.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use walrust_engine::{ExportPlan, ExportedFile, Layout, RestoreTarget, StoredFile, plan_export};
use walrust_ltx::{Checksum, FileName, Txid};
use walrust_sqlite::RestoreError;
use walrust_storage::ObjectStore;

use crate::litestream_file::{Converted, LitestreamFile};
use crate::scratch::{Fetched, fetch};
use crate::{ExportTarget, History, HistoryError, PlannedRestore};

/// Files that are fetched ahead of their turn.
const AHEAD: usize = 4;

/// What an export will do.
#[derive(Clone, Debug)]
pub struct Export {
    /// The files.
    pub plan: ExportPlan,
    /// What the manifest knows of their SHA-256, hex.
    sha256: BTreeMap<FileName, String>,
}

/// What was exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Files in the tree.
    pub files: usize,
    /// How many of them are snapshots.
    pub snapshots: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// When the newest state was committed, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

impl Export {
    /// Plans the export of the newest state of a database, or with `whole` of as much of its history as
    /// leads to that state.
    ///
    /// # Errors
    /// If storage fails, nothing is stored under the name or not by walrust, or the newest state cannot
    /// be restored.
    pub async fn plan(
        store: &dyn ObjectStore,
        name: &str,
        whole: bool,
    ) -> Result<Self, HistoryError> {
        let history = History::read(store, name).await?;
        let planned = PlannedRestore::of(store, &history, RestoreTarget::Latest).await?;
        if planned.layout != Layout::Walrust {
            let (name, url, layout) = (planned.name, store.url(), planned.layout);
            return Err(HistoryError::NothingToExport { name, url, layout });
        }
        let plan = plan_export(&history.staying(), &planned.plan, whole);
        Ok(Self { plan, sha256: planned.sha256 })
    }

    /// Carries the plan out. `progress` is told the bytes of each file that was read.
    ///
    /// # Errors
    /// If there is anything at the target, storage or the local disk fails, or a file or a link between
    /// files is damaged.
    pub async fn execute(
        &self,
        store: &dyn ObjectStore,
        target: &ExportTarget,
        progress: impl Fn(u64),
    ) -> Result<Exported, HistoryError> {
        target.check_empty().await?;
        let fetches = self.plan.files.iter();
        let fetches = fetches.map(|it| async move { (it, fetch(store, &it.file.key).await) });
        let mut fetches = futures_util::stream::iter(fetches).buffered(AHEAD);
        let mut position = self.plan.position();
        let (mut states, mut exported) = (States::default(), Exported::default());
        while let Some((ExportedFile { file, level }, fetched)) = fetches.next().await {
            let fetched = fetched?;
            self.check_sha256(file, &fetched)?;
            let converted = Converted::from(file, fetched.file).await?;
            states.check(file, &converted)?;
            if file.name.max == self.plan.head {
                exported.timestamp_ms = converted.header.timestamp_ms;
                if let Some((level, name)) = position.take() {
                    let position = LitestreamFile::without_pages(name, &converted.header)?;
                    target.store(level, name, &position).await?;
                    exported.count(&position);
                }
            }
            target.store(*level, file.name, &converted.file).await?;
            exported.count(&converted.file);
            exported.snapshots += usize::from(file.name.is_snapshot());
            progress(file.size);
        }
        Ok(exported)
    }

    fn check_sha256(&self, file: &StoredFile, fetched: &Fetched) -> Result<(), RestoreError> {
        for expected in fetched.expected.iter().chain(self.sha256.get(&file.name)) {
            if *expected != fetched.sha256 {
                let (file, expected) = (file.key.clone(), expected.clone());
                let found = fetched.sha256.clone();
                return Err(RestoreError::WrongSha256 { file, expected, found });
            }
        }
        Ok(())
    }
}

impl Exported {
    fn count(&mut self, file: &LitestreamFile) {
        self.files += 1;
        self.bytes += file.size;
    }
}

/// The rolling checksums of the states between the files.
#[derive(Debug, Default)]
struct States(BTreeMap<Txid, Option<Checksum>>);

impl States {
    /// A file has to begin and to end with the states that its neighbours have there.
    fn check(&mut self, file: &StoredFile, converted: &Converted) -> Result<(), RestoreError> {
        let Converted { header, post_apply, .. } = converted;
        let before = Txid::new(file.name.min.get() - 1).map(|txid| (txid, header.pre_apply));
        for (txid, found) in before.into_iter().chain([(file.name.max, *post_apply)]) {
            let expected = *self.0.entry(txid).or_insert(found);
            if expected != found {
                let text = |checksum: Option<Checksum>| {
                    checksum.map_or_else(|| "none".to_owned(), |checksum| checksum.to_string())
                };
                let (expected, found) = (text(expected), text(found));
                let what =
                    format!("its checksum of TXID {txid} is {found}, another file has {expected}");
                return Err(RestoreError::BrokenLink { file: file.key.clone(), what });
            }
        }
        Ok(())
    }
}
