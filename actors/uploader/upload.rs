//! One thing to bring to storage, and what there is to know of it beforehand.

use std::num::NonZeroU32;
use std::sync::Arc;

use ractor::ActorRef;
use walrust_engine::{Demand, Priority, manifest_key, object_key};
use walrust_sqlite::StagedFile;

use crate::database::DatabaseMsg;
use crate::manifest_update::ManifestUpdate;

/// What to bring to storage.
#[derive(Clone, Debug)]
pub(crate) enum Upload {
    /// An LTX file, stored only if its key is free, and the identifier of its writer.
    File(Arc<StagedFile>, String),
    /// New entries of `manifest.json`.
    Manifest(Arc<ManifestUpdate>),
}

/// One upload of one database.
#[derive(Clone, Debug)]
pub(crate) struct UploadJob {
    /// Name of the database.
    pub(crate) database: String,
    /// What to upload.
    pub(crate) upload: Upload,
    /// Behind what it goes.
    pub(crate) lane: Lane,
    /// Who is told the outcome.
    pub(crate) reply: ActorRef<DatabaseMsg>,
}

/// The lanes of a database: what is in one does not wait for the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// The files that continue one another.
    #[default]
    History,
    /// A snapshot of a state that the history has as well.
    Snapshot,
    /// The manifest: an index that cannot be written holds no commit up.
    Manifest,
}

impl Lane {
    /// Every lane.
    pub(super) const ALL: [Self; 3] = [Self::History, Self::Snapshot, Self::Manifest];
}

/// Uploads of one lane of one database go in order.
pub(super) type LaneKey = (String, Lane);

impl UploadJob {
    pub(super) fn lane(&self) -> LaneKey {
        (self.database.clone(), self.lane)
    }

    pub(super) fn demand(&self) -> Demand {
        let priority = match self.lane {
            // The snapshot that begins a history is what everything after it waits for.
            Lane::History | Lane::Manifest => Priority::Incremental,
            Lane::Snapshot => Priority::Snapshot,
        };
        Demand { priority, bytes: self.upload.bytes() }
    }

    /// Whether this is an offer of the very same thing.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (&self.upload, &other.upload) {
            (Upload::File(file, _), Upload::File(other, _)) => Arc::ptr_eq(file, other),
            (Upload::Manifest(update), Upload::Manifest(other)) => Arc::ptr_eq(update, other),
            _ => false,
        }
    }

    /// Sends a message to the database; its actor may be gone.
    pub(super) fn tell(&self, message: DatabaseMsg) {
        if self.reply.cast(message).is_err() {
            // Its successor finds the object in the bucket.
            tracing::debug!(db = %self.database, "the actor of an upload is gone");
        }
    }
}

impl Upload {
    /// Size of the file; a manifest is small.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::File(file, _) => file.size,
            Self::Manifest(_) => 0,
        }
    }

    /// Requests that an attempt makes if nothing is in its way: a manifest is read before it is
    /// written.
    pub(super) fn requests(&self) -> NonZeroU32 {
        match self {
            Self::File(..) => NonZeroU32::MIN,
            Self::Manifest(_) => NonZeroU32::MIN.saturating_add(1),
        }
    }

    /// Where it goes, relative to the store.
    pub(super) fn key(&self, database: &str) -> String {
        match self {
            Self::File(file, _) => object_key(database, file.name),
            Self::Manifest(_) => manifest_key(database),
        }
    }
}
