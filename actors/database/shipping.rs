//! What a database offers to the uploader, and what follows when storage has it.

use std::sync::Arc;

use walrust_ltx::{FileName, Txid};
use walrust_sqlite::StagedFile;

use super::state::{DatabaseState, answer};
use super::{Cause, Refusal};
use crate::manifest_update::entry_of;
use crate::uploader::{Lane, Upload, UploadJob, UploaderMsg};

/// Files of the history on their way to storage.
#[derive(Debug, Default)]
pub(super) struct Shipment {
    /// Files of the capture that storage has not confirmed, as of the last job.
    pub(super) staged: Vec<StagedFile>,
    /// The file whose upload was offered and has not ended: the first of `staged`.
    pub(super) outstanding: Option<Arc<StagedFile>>,
    /// A file that storage has, and the capture does not know yet.
    pub(super) stored: Option<FileName>,
    /// More files were waiting after the one that storage has now.
    pub(super) gathers: bool,
}

impl Shipment {
    /// Whether storage has everything that was staged.
    pub(super) fn is_empty(&self) -> bool {
        self.staged.is_empty() && self.outstanding.is_none() && self.stored.is_none()
    }
}

impl DatabaseState {
    /// Offers what comes next: the oldest staged file, and the snapshot beside them.
    pub(super) fn offer_next(&mut self) {
        if self.history.outstanding.is_none()
            && let Some(first) = self.history.staged.first()
        {
            self.offer_file(first.clone());
        }
        // A snapshot goes when storage has the history up to its state.
        let staged = &self.history.staged;
        let reached =
            |snapshot: &mut StagedFile| staged.iter().all(|file| file.name.min > snapshot.name.max);
        if let Some(snapshot) = self.snapshots.staged.take_if(reached) {
            self.offer_snapshot(snapshot);
        }
    }

    /// Offers a staged file of the history.
    fn offer_file(&mut self, mut file: StagedFile) {
        // States closer to one another than this are not told apart without a merge either.
        let interval = i64::try_from(self.arguments.settings.sync_interval.as_millis());
        let interval = interval.unwrap_or(i64::MAX);
        let hides = |since: &i64| file.header.timestamp_ms.saturating_sub(*since) > interval;
        file.merged_since_ms = file.merged_since_ms.filter(hides);
        self.index.run.offered(file.name);
        let file = Arc::new(file);
        self.history.outstanding = Some(Arc::clone(&file));
        self.offer(Lane::History, Upload::File(file, self.writer_id()));
    }

    /// Offers a staged snapshot, which goes beside the history.
    fn offer_snapshot(&mut self, file: StagedFile) {
        self.index.run.offered(file.name);
        let file = Arc::new(file);
        self.snapshots.outstanding = Some(Arc::clone(&file));
        self.offer(Lane::Snapshot, Upload::File(file, self.writer_id()));
    }

    /// The uploader lost what it had: offers all of it again.
    pub(super) fn offer_again(&mut self) {
        let (file, snapshot) = (&self.history.outstanding, &self.snapshots.outstanding);
        for (lane, file) in [(Lane::History, file), (Lane::Snapshot, snapshot)] {
            if let Some(file) = file {
                self.offer(lane, Upload::File(Arc::clone(file), self.writer_id()));
            }
        }
        if let Some(update) = self.index.offered() {
            self.offer(Lane::Manifest, Upload::Manifest(Arc::clone(update)));
        }
    }

    /// Takes back what was offered and not begun.
    pub(super) fn forget_offers(&mut self) {
        self.index.take_back();
        let database = self.name().to_owned();
        self.arguments.services.uploader.cast(UploaderMsg::Forget { database });
    }

    /// Storage has a file.
    pub(super) fn uploaded(&mut self, name: FileName) {
        let beside = self.snapshots.outstanding.take_if(|file| file.name == name);
        let is_beside = beside.is_some();
        let Some(file) =
            beside.or_else(|| self.history.outstanding.take_if(|file| file.name == name))
        else {
            // Offered by an earlier opening of the database, which found it in the bucket since.
            return;
        };
        let (txid, bytes, pages) = (file.name.max, file.size, file.pages);
        tracing::debug!(db = self.name(), %txid, bytes, pages, "shipped");
        self.last_error = None;
        self.index.entries.push(entry_of(&file));
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
        self.chain_begun(&file);
        self.history.stored = Some(name);
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
        let base = self.snapshots.last.is_some() && self.snapshots.last == self.txid;
        if base {
            self.offer_manifest();
        } else {
            self.want_manifest();
        }
        if base
            && !self.snapshots.is_under_way()
            && let Some(txid) = self.txid
        {
            self.snapshot_done(txid);
        }
    }

    /// A state has a snapshot in storage: tells who asked for it.
    pub(super) fn snapshot_done(&mut self, txid: Txid) {
        for reply in std::mem::take(&mut self.snapshots.waiters) {
            answer(reply, Ok(txid));
        }
    }

    pub(super) fn upload_failed(&mut self, error: Refusal, retryable: bool) {
        if !self.has_offered() {
            // An attempt of an earlier opening of the database, or of what was given up since.
            return;
        }
        let lost = self.history.outstanding.as_ref().filter(|file| !file.is_whole());
        if let Some(path) = lost.map(|file| file.path.display().to_string()) {
            // Local state may be deleted at any time: it is made again from the database.
            let reason = format!("{path}: the staged file is gone or torn; it is made again");
            return self.degrade(Refusal::new(Cause::Database, reason));
        }
        let lost = self.snapshots.outstanding.take_if(|file| !file.is_whole());
        if !retryable || lost.is_some() {
            // Who waits for a snapshot is told; the upload is tried again all the same.
            self.refuse_requests(&error);
        }
        self.last_error = Some(error);
    }

    /// What an earlier run or writer had sent is the head now: the database is opened again from
    /// there.
    pub(super) fn overtaken(&mut self, object: &str) {
        let reason = format!("{object}: an upload of an earlier run or writer arrived late");
        self.degrade(Refusal::new(Cause::Storage, reason));
    }

    /// Whether anything was offered that has not ended.
    fn has_offered(&self) -> bool {
        self.history.outstanding.is_some()
            || self.snapshots.outstanding.is_some()
            || self.index.offered().is_some()
    }

    pub(super) fn offer(&self, lane: Lane, upload: Upload) {
        let database = self.name().to_owned();
        let job = UploadJob { database, upload, lane, reply: self.myself.clone() };
        if !self.arguments.services.uploader.cast(UploaderMsg::Offer(job)) {
            // The root tells when there is one again.
            tracing::debug!(db = self.name(), "the uploader is away");
        }
    }

    fn writer_id(&self) -> String {
        self.index.writer.as_ref().map(|writer| writer.id.clone()).unwrap_or_default()
    }
}
