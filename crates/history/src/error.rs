//! Why a history cannot be read, restored or kept.

use std::io;

use walrust_engine::manifest::ManifestError;
use walrust_engine::{ErrorClass, Layout, RestorePlanError};
use walrust_sqlite::RestoreError;
use walrust_storage::StorageError;

use crate::Neighbours;

/// A failure of an operation on a history in storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is nothing under a name.
    #[error("there is no backup named {name:?} in {url}; `walrust list -b {url}` shows the names")]
    UnknownName {
        /// The name.
        name: String,
        /// The storage.
        url: String,
    },
    /// The wanted state cannot be restored.
    #[error("{name} in {url}: {source}")]
    Plan {
        /// The name.
        name: String,
        /// The storage.
        url: String,
        /// Why.
        source: RestorePlanError,
    },
    /// The wanted state is none that can be restored exactly.
    #[error("{name} in {url}: {target} cannot be restored exactly{why}; {neighbours}")]
    Unavailable {
        /// The name.
        name: String,
        /// The storage.
        url: String,
        /// The TXID or time.
        target: String,
        /// Why, beginning with a colon, or empty where that is obvious.
        why: String,
        /// What there is on either side.
        neighbours: Box<Neighbours>,
    },
    /// The manifest cannot be used.
    #[error("{object}: {source}")]
    Manifest {
        /// Key of the manifest, with the storage.
        object: String,
        /// Why.
        source: ManifestError,
    },
    /// The manifest's bytes are not those that were stored.
    #[error(
        "{object}: SHA-256 is {found}, the object was stored with {expected}; \
         it is an index only, and `walrust verify --fix` makes it anew from the files"
    )]
    ManifestSha256 {
        /// Key of the manifest, with the storage.
        object: String,
        /// SHA-256 that was recorded, hex.
        expected: String,
        /// SHA-256 of the bytes received, hex.
        found: String,
    },
    /// Files at the end of the history are gone.
    #[error(
        "{object} lists {file}, which is not there: the newest states are lost; \
         the newest that can be restored is TXID {newest} (--txid {newest})"
    )]
    LostTail {
        /// Key of the manifest, with the storage.
        object: String,
        /// The first file that is missing.
        file: String,
        /// The newest TXID that the files lead to.
        newest: String,
    },
    /// Nothing but the manifest is left of a history.
    #[error(
        "{object} lists {count} files, none is there: all states are lost; while the database itself is \
         at hand, `walrust snapshot` stores it anew"
    )]
    AllFilesLost {
        /// Key of the manifest, with the storage.
        object: String,
        /// How many files are missing.
        count: usize,
    },
    /// A file whose time has to be known is not an LTX file with the TXIDs of its name.
    #[error("{object} is not the LTX file that its name promises")]
    NotLtx {
        /// Key of the object, with the storage.
        object: String,
    },
    /// The name belongs to another program.
    #[error(
        "{name} in {url} holds files of another program ({layout} layout), which looks after their age"
    )]
    OtherLayout {
        /// The name.
        name: String,
        /// The storage.
        url: String,
        /// The layout of its files.
        layout: Layout,
    },
    /// What is to be exported is a tree of Litestream.
    #[error(
        "{name} in {url} is a tree of Litestream already ({layout} layout); `litestream restore` and \
         `walrust restore` read it as it is"
    )]
    NothingToExport {
        /// The name.
        name: String,
        /// The storage.
        url: String,
        /// The layout of its files.
        layout: Layout,
    },
    /// The place of an export is taken.
    #[error(
        "{url} is not empty: there is {key}. Choose another place; or remove what an export that was \
         cut short has left there"
    )]
    TargetInUse {
        /// The place.
        url: String,
        /// A key in it.
        key: String,
    },
    /// There are files, but no manifest.
    #[error(
        "{object} is missing: without it nothing is merged or removed; `walrust verify --fix` makes it \
         anew from the files, and so does a daemon that replicates the database, within a minute of its \
         next upload"
    )]
    NoManifest {
        /// Key of the manifest, with the storage.
        object: String,
    },
    /// The manifest lists a file that is not there.
    #[error(
        "{object} lists {file}, which is not there: nothing is merged or removed before it is known \
         what was lost. `walrust verify` tells; if the file is gone for good, `walrust verify --fix` \
         takes it out of the manifest"
    )]
    FilesMissing {
        /// Key of the manifest, with the storage.
        object: String,
        /// The first file that is missing.
        file: String,
    },
    /// Another writer has taken the name over.
    #[error("{object} belongs to another writer now ({host}, epoch {epoch}): nothing more is done")]
    Superseded {
        /// Key of the manifest, with the storage.
        object: String,
        /// Host of the other writer.
        host: String,
        /// Its epoch.
        epoch: u64,
    },
    /// A plan rests on a history that is another one now.
    #[error(
        "{object} was changed meanwhile by another run of the retention, or by `walrust verify --fix`: \
         what was done stays done, and the rest has to be planned anew"
    )]
    Outdated {
        /// Key of the manifest, with the storage.
        object: String,
    },
    /// The local disk failed.
    #[error(
        "cannot {what}: {source}; files are kept in the directory for temporary files, $TMPDIR"
    )]
    Scratch {
        /// What was attempted.
        what: String,
        /// The answer.
        source: io::Error,
    },
    /// The operating system refuses a thread.
    #[error("cannot start a thread: {0}; raise the limit of threads and processes (`ulimit -u`)")]
    NoThread(#[source] io::Error),
    /// The files do not give the database that they should.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl HistoryError {
    /// Whether a manifest is not what was stored. One that a newer program wrote is another matter:
    /// whoever does not know its rules must not say what its files mean.
    #[must_use]
    pub fn is_damaged_manifest(&self) -> bool {
        matches!(
            self,
            Self::Manifest { source: ManifestError::Damaged(_), .. } | Self::ManifestSha256 { .. }
        )
    }

    /// Whether another attempt may succeed without anybody's help: storage cannot answer at the moment,
    /// or the history has changed meanwhile.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Storage(error) => error.class().is_retryable() || self.is_vanished_file(),
            Self::Outdated { .. } => true,
            _ => false,
        }
    }

    /// Whether it may come from reading manifest, listing and files while another run changes them.
    pub(crate) fn may_be_outdated(&self) -> bool {
        matches!(self, Self::FilesMissing { .. }) || self.is_vanished_file()
    }

    /// Whether an object is gone that was there when it was listed: retention deletes files that
    /// nothing needs any more, and a new plan does without them.
    #[must_use]
    pub fn is_vanished_file(&self) -> bool {
        matches!(self, Self::Storage(error)
            if error.class() == ErrorClass::NotFound && !error.is_missing_bucket())
    }
}
