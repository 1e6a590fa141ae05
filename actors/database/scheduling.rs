//! What a database tells the scheduler of snapshots, the retention and the validation.

use std::time::SystemTime;

use tokio::sync::oneshot;
use walrust_engine::LastSnapshot;
use walrust_ltx::Txid;

use super::state::DatabaseState;
use crate::retention::RetentionMsg;
use crate::snapshot_scheduler::{Scheduled, SnapshotSchedulerMsg};
use crate::status::DatabasePhase;
use crate::validation::ValidationMsg;

impl DatabaseState {
    /// Tells the scheduler, which may be a new one, how things are.
    pub(super) fn report_to_scheduler(&self) {
        if self.phase != DatabasePhase::Replicating {
            return;
        }
        let age = |at: SystemTime| SystemTime::now().duration_since(at).unwrap_or_default();
        let last = self.snapshots.last.map(|txid| LastSnapshot {
            txid: txid.get(),
            age: self.snapshots.last_at.map(age).unwrap_or_default(),
        });
        let scheduled = Box::new(Scheduled {
            settings: self.arguments.settings.snapshot,
            incarnation: self.arguments.incarnation,
            last,
            txid: self.txid,
        });
        self.tell_scheduler(|database| SnapshotSchedulerMsg::Replicated { database, scheduled });
    }

    /// Tells the retention, which may be a new one, how things are.
    pub(super) fn report_to_retention(&self) {
        if let (DatabasePhase::Replicating, Some(writer)) = (self.phase, &self.index.writer) {
            let (database, settings) = (self.name().to_owned(), self.arguments.settings.compaction);
            let message = RetentionMsg::Replicated { database, settings, writer: writer.clone() };
            self.arguments.services.retention.cast(message);
        }
    }

    /// Tells the validation, which may be a new one, how things are.
    pub(super) fn report_to_validation(&self) {
        if self.phase == DatabasePhase::Replicating {
            let (database, is_stored) = (self.name().to_owned(), self.snapshots.last.is_some());
            let settings = self.arguments.settings.validation;
            let message = ValidationMsg::Replicated { database, settings, is_stored };
            self.arguments.services.validation.cast(message);
        }
    }

    /// Storage has the database up to its TXID.
    pub(super) fn report_confirmed(&self) {
        if let Some(txid) = self.txid {
            self.tell_scheduler(|database| SnapshotSchedulerMsg::Confirmed { database, txid });
        }
    }

    /// The manifest has new files.
    pub(super) fn report_indexed(&self) {
        let database = self.name().to_owned();
        self.arguments.services.retention.cast(RetentionMsg::Indexed { database });
    }

    /// Storage has a snapshot.
    pub(super) fn report_snapshot(&mut self, txid: Txid) {
        self.snapshots.last = Some(txid);
        self.snapshots.last_at = Some(SystemTime::now());
        self.tell_scheduler(|database| SnapshotSchedulerMsg::Taken { database, txid });
        let database = || self.name().to_owned();
        let services = &self.arguments.services;
        services.retention.cast(RetentionMsg::SnapshotTaken { database: database() });
        services.validation.cast(ValidationMsg::SnapshotTaken { database: database() });
    }

    /// A snapshot is due: takes one as if somebody had asked for it.
    pub(super) fn snapshot_due(&mut self) {
        let (sender, receiver) = oneshot::channel();
        let (scheduler, database) =
            (self.arguments.services.snapshots.clone(), self.name().to_owned());
        tokio::spawn(async move {
            // If the actor dies, so does the sender.
            let taken = matches!(receiver.await, Ok(Ok(_)));
            scheduler.cast(SnapshotSchedulerMsg::Ended { database, taken });
        });
        self.snapshot_requested(sender.into());
    }

    fn tell_scheduler(&self, message: impl FnOnce(String) -> SnapshotSchedulerMsg) {
        // Without a scheduler nothing is scheduled; its successor asks for a report.
        self.arguments.services.snapshots.cast(message(self.name().to_owned()));
    }
}
