//! What a database offers to the uploader, and what follows when storage has it.

use std::sync::Arc;

use walrust_ltx::{FileName, Txid};
use walrust_sqlite::StagedFile;

use super::state::{DatabaseState, answer};
use super::{Cause, DatabaseMsg, Refusal};
use crate::manifest_update::{ManifestUpdate, Stored, entry_of};
use crate::uploader::{Lane, Upload, UploadJob, UploaderMsg};

/// Whether the manifest in the bucket knows all files.
#[derive(Clone, Debug)]
pub(super) enum ManifestState {
    /// It does.
    Clean,
    /// It does not, and a timer runs.
    Waiting,
    /// An update was offered.
    Offered(Arc<ManifestUpdate>),
}

impl DatabaseState {
    /// Offers a staged file of the history.
    pub(super) fn offer_file(&mut self, mut file: StagedFile) {
        // States closer to one another than this are not told apart without a merge either.
        let interval = i64::try_from(self.arguments.settings.sync_interval.as_millis());
        let interval = interval.unwrap_or(i64::MAX);
        let hides = |since: &i64| file.header.timestamp_ms.saturating_sub(*since) > interval;
        file.merged_since_ms = file.merged_since_ms.filter(hides);
        self.newest.reach(file.name.max);
        let file = Arc::new(file);
        self.outstanding = Some(Arc::clone(&file));
        self.offer(Lane::History, Upload::File(file, self.writer_id()));
    }

    /// Offers a staged snapshot, which goes beside the history.
    pub(super) fn offer_snapshot(&mut self, file: StagedFile) {
        let file = Arc::new(file);
        self.outstanding_snapshot = Some(Arc::clone(&file));
        self.offer(Lane::Snapshot, Upload::File(file, self.writer_id()));
    }

    /// The uploader lost what it had: offers all of it again.
    pub(super) fn offer_again(&mut self) {
        let files =
            [(Lane::History, &self.outstanding), (Lane::Snapshot, &self.outstanding_snapshot)];
        for (lane, file) in files {
            if let Some(file) = file {
                self.offer(lane, Upload::File(Arc::clone(file), self.writer_id()));
            }
        }
        if let ManifestState::Offered(update) = &self.manifest {
            self.offer(Lane::Manifest, Upload::Manifest(Arc::clone(update)));
        }
    }

    /// Takes back what was offered and not begun.
    pub(super) fn forget_offers(&mut self) {
        if let ManifestState::Offered(update) = &self.manifest {
            self.entries.extend(update.entries.iter().cloned());
            // It may be stored all the same, and its files merged or removed since.
            self.first_manifest = true;
            self.manifest = ManifestState::Clean;
        }
        let database = self.name().to_owned();
        self.arguments.services.uploader.cast(UploaderMsg::Forget { database });
    }

    /// Storage has a file.
    pub(super) fn uploaded(&mut self, name: FileName) {
        let beside = self.outstanding_snapshot.take_if(|file| file.name == name);
        let is_beside = beside.is_some();
        let Some(file) = beside.or_else(|| self.outstanding.take_if(|file| file.name == name))
        else {
            // Offered by an earlier opening of the database, which found it in the bucket since.
            return;
        };
        let (txid, bytes, pages) = (file.name.max, file.size, file.pages);
        tracing::debug!(db = self.name(), %txid, bytes, pages, "shipped");
        self.last_error = None;
        self.entries.push(entry_of(&file));
        if file.name.is_snapshot() {
            self.report_snapshot(file.name.max);
            self.raise_snapshot(&file);
        }
        if is_beside {
            // It moves no position.
            self.remove_snapshot(&file);
            self.snapshot_done(file.name.max);
            self.offer_manifest();
            return self.proceed();
        }
        self.stored = Some(name);
        self.proceed();
    }

    /// Removes a staged snapshot that nobody needs any more.
    pub(super) fn remove_snapshot(&self, file: &StagedFile) {
        if let Err(error) = file.remove() {
            tracing::warn!(db = self.name(), %error, "a staged snapshot stays behind");
        }
    }

    /// The position has moved to the file that was shipped.
    pub(super) fn confirmed(&mut self) {
        self.report_confirmed();
        let base = self.last_snapshot.is_some() && self.last_snapshot == self.txid;
        if base {
            self.offer_manifest();
        } else if matches!(self.manifest, ManifestState::Clean) {
            self.manifest = ManifestState::Waiting;
            let wait = self.arguments.manifest_interval;
            self.myself.send_after(wait, || DatabaseMsg::ManifestDue);
        }
        if base
            && !self.makes_snapshot()
            && let Some(txid) = self.txid
        {
            self.snapshot_done(txid);
        }
    }

    /// A state has a snapshot in storage: tells who asked for it.
    pub(super) fn snapshot_done(&mut self, txid: Txid) {
        for reply in std::mem::take(&mut self.snapshot_waiters) {
            answer(reply, Ok(txid));
        }
    }

    pub(super) fn upload_failed(&mut self, error: Refusal, retryable: bool) {
        if !self.has_offered() {
            // An attempt of an earlier opening of the database, or of what was given up since.
            return;
        }
        let lost = self.outstanding.as_ref().filter(|file| !file.is_whole());
        if let Some(path) = lost.map(|file| file.path.display().to_string()) {
            // Local state may be deleted at any time: it is made again from the database.
            let reason = format!("{path}: the staged file is gone or torn; it is made again");
            return self.degrade(Refusal::new(Cause::Database, reason));
        }
        let lost = self.outstanding_snapshot.take_if(|file| !file.is_whole());
        if !retryable || lost.is_some() {
            // Who waits for a snapshot is told; the upload is tried again all the same.
            self.refuse_requests(&error);
        }
        self.last_error = Some(error);
    }

    pub(super) fn manifest_due(&mut self) {
        if matches!(self.manifest, ManifestState::Waiting) {
            self.offer_manifest();
        }
    }

    /// What an earlier run or writer had sent is the head now: the database is opened again from
    /// there.
    pub(super) fn overtaken(&mut self, object: &str) {
        let reason = format!("{object}: an upload of an earlier run or writer arrived late");
        self.degrade(Refusal::new(Cause::Storage, reason));
    }

    pub(super) fn manifest_written(&mut self, stored: Stored) {
        self.manifest = ManifestState::Clean;
        self.last_error = None;
        self.first_manifest |= stored.partial;
        self.report_indexed();
        if !self.entries.is_empty() {
            self.manifest = ManifestState::Waiting;
            let wait = self.arguments.manifest_interval;
            self.myself.send_after(wait, || DatabaseMsg::ManifestDue);
        }
        self.proceed();
    }

    /// Before stopping: whether a manifest is still to be written, which is offered now.
    pub(super) fn manifest_outstanding(&mut self) -> bool {
        if !self.entries.is_empty() {
            self.offer_manifest();
        }
        matches!(self.manifest, ManifestState::Offered(_))
    }

    /// Offers the new entries, unless an update is under way: they follow it then.
    fn offer_manifest(&mut self) {
        if matches!(self.manifest, ManifestState::Offered(_)) || self.entries.is_empty() {
            return;
        }
        let Some(page_size) = self.page_size else { return };
        let Some(writer) = self.writer.clone() else { return };
        let update = Arc::new(ManifestUpdate {
            page_size,
            writer,
            first: std::mem::take(&mut self.first_manifest),
            newest: self.newest.clone(),
            entries: std::mem::take(&mut self.entries),
        });
        self.manifest = ManifestState::Offered(Arc::clone(&update));
        self.offer(Lane::Manifest, Upload::Manifest(update));
    }

    /// Whether anything was offered that has not ended.
    fn has_offered(&self) -> bool {
        self.outstanding.is_some()
            || self.outstanding_snapshot.is_some()
            || matches!(self.manifest, ManifestState::Offered(_))
    }

    fn offer(&self, lane: Lane, upload: Upload) {
        let database = self.name().to_owned();
        let job = UploadJob { database, upload, lane, reply: self.myself.clone() };
        if !self.arguments.services.uploader.cast(UploaderMsg::Offer(job)) {
            // The root tells when there is one again.
            tracing::debug!(db = self.name(), "the uploader is away");
        }
    }

    fn writer_id(&self) -> String {
        self.writer.as_ref().map(|writer| writer.id.clone()).unwrap_or_default()
    }
}
