//! The entries of a database that `manifest.json` does not have yet, and when it gets them.

use std::sync::Arc;

use walrust_engine::manifest::FileEntry;
use walrust_ltx::FileName;

use super::DatabaseMsg;
use super::state::DatabaseState;
use crate::manifest_update::{ManifestUpdate, Stored, Writer};
use crate::run_files::RunFiles;
use crate::uploader::{Lane, Upload};

/// Whether the manifest in the bucket knows all files.
#[derive(Clone, Debug)]
enum ManifestState {
    /// It does.
    Clean,
    /// It does not, and a timer runs.
    Waiting,
    /// An update was offered.
    Offered(Arc<ManifestUpdate>),
}

/// What is to be written into the manifest.
#[derive(Debug)]
pub(super) struct Index {
    /// Files that storage has, and no manifest.
    pub(super) entries: Vec<FileEntry>,
    manifest: ManifestState,
    /// How manifests are signed; `None` until the database was opened.
    pub(super) writer: Option<Writer>,
    /// Files of earlier runs may be missing in the manifest.
    pub(super) is_first: bool,
    /// What was offered to storage.
    pub(super) run: RunFiles,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            manifest: ManifestState::Clean,
            writer: None,
            is_first: true,
            run: RunFiles::default(),
        }
    }
}

impl Index {
    /// Whether the manifest has everything.
    pub(super) fn is_clean(&self) -> bool {
        self.entries.is_empty() && matches!(self.manifest, ManifestState::Clean)
    }

    /// The update that was offered and has not ended.
    pub(super) fn offered(&self) -> Option<&Arc<ManifestUpdate>> {
        match &self.manifest {
            ManifestState::Offered(update) => Some(update),
            ManifestState::Clean | ManifestState::Waiting => None,
        }
    }

    /// What was offered may come to an end that nobody hears of.
    pub(super) fn take_back(&mut self) {
        if let Some(update) = self.offered().map(Arc::clone) {
            self.entries.extend(update.entries.iter().cloned());
            // It may be stored all the same, and its files merged or removed since.
            self.is_first = true;
            self.manifest = ManifestState::Clean;
        }
        self.run.keep_only(&self.entries);
    }
}

impl DatabaseState {
    pub(super) fn manifest_due(&mut self) {
        if matches!(self.index.manifest, ManifestState::Waiting) {
            self.offer_manifest();
        }
    }

    pub(super) fn manifest_written(&mut self, stored: Stored) {
        if let Some(update) = self.index.offered() {
            self.index.run.entered(&update.entries);
        }
        self.index.manifest = ManifestState::Clean;
        self.last_error = None;
        self.index.is_first |= stored.partial;
        self.report_indexed();
        let is_snapshot = |entry: &FileEntry| entry.file_name().is_some_and(FileName::is_snapshot);
        if self.index.entries.iter().any(is_snapshot) {
            // It came while the update was under way, and is to be found as soon as any other one.
            self.offer_manifest();
        } else {
            self.want_manifest();
        }
        if let Some(lost) = stored.lost {
            self.state_lost(lost);
        }
        self.proceed();
    }

    /// If there is something to write: it has some time.
    pub(super) fn want_manifest(&mut self) {
        // An update that was offered before a file was confirmed may have had its entry.
        let is_wanted = !self.index.entries.is_empty();
        if is_wanted && matches!(self.index.manifest, ManifestState::Clean) {
            self.index.manifest = ManifestState::Waiting;
            let wait = self.arguments.manifest_interval;
            self.myself.send_after(wait, || DatabaseMsg::ManifestDue);
        }
    }

    /// Before stopping: whether a manifest is still to be written, which is offered now.
    pub(super) fn manifest_outstanding(&mut self) -> bool {
        if !self.index.entries.is_empty() {
            self.offer_manifest();
        }
        self.index.offered().is_some()
    }

    /// Offers the new entries, unless an update is under way: they follow it then.
    pub(super) fn offer_manifest(&mut self) {
        if self.index.offered().is_some() || self.index.entries.is_empty() {
            return;
        }
        let Some(page_size) = self.page_size else { return };
        let Some(writer) = self.index.writer.clone() else { return };
        let update = Arc::new(ManifestUpdate {
            page_size,
            writer,
            first: std::mem::take(&mut self.index.is_first),
            run: self.index.run.clone(),
            entries: std::mem::take(&mut self.index.entries),
        });
        self.index.manifest = ManifestState::Offered(Arc::clone(&update));
        self.offer(Lane::Manifest, Upload::Manifest(update));
    }
}
