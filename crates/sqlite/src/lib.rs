//! The blocking side of walrust: SQLite connections, the pin, the WAL, local state, and restore.
//!
//! Everything here blocks and belongs on a thread of its own. [`Capture`] leads from a live
//! database to staged LTX files; [`Restore`] leads from LTX files to a database;
//! [`Replica`] moves one on while it is read.

#![forbid(unsafe_code)]

mod cancellation;
mod capture;
mod clock;
mod connection;
mod connection_pin;
mod database_files;
mod database_reader;
mod detached_pin;
mod error;
mod head_snapshot;
mod integrity_check;
mod kept_name;
mod ofd_lock;
mod orphan;
mod output;
mod page_checksums;
mod page_view;
mod page_writer;
mod pin;
mod replica_connection;
mod replica_directory;
mod replica_error;
mod replica_file;
mod replica_incoming;
mod restore;
mod scratch_database;
mod set_aside;
mod snapshot_reader;
mod staging;
mod state_directory;
mod state_owner;
mod wal_source;
mod wal_writer;
mod writeback;

pub use cancellation::{CancelOnDrop, Cancellation};
pub use capture::{
    BegunSnapshot, Capture, CaptureOptions, Head, HeadTable, Reconciliation, SyncOutcome,
};
pub use clock::{Clock, SystemClock};
pub use database_files::{check_database, sidecar};
pub use error::{DatabaseError, RestoreError};
pub use head_snapshot::{is_replicated, replicating_writer, stage_head_snapshot};
pub use integrity_check::IntegrityCheck;
pub use kept_name::{KeptName, keep_name, kept_name};
pub use orphan::{Orphan, OrphanFate};
pub use output::check_output;
pub use pin::WalPin;
pub use replica_directory::ReplicaState;
pub use replica_error::ReplicaError;
pub use replica_file::{ChangeKind, Replica, ReplicaChange};
pub use restore::{Restore, Restored};
pub use snapshot_reader::SnapshotReader;
pub use staging::{StagedFile, hex};
pub use state_directory::state_path;
