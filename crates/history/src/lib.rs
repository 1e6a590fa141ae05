//! Histories of databases in storage: reading, restoring and keeping them.
//!
//! A history is the LTX files of one database below its name, with the manifest as their index.
//! The decisions (which files restore a state, which may go) are in `walrust_engine`, the database
//! files of this machine in `walrust_sqlite`; here are the requests between the two. The daemon and
//! the commands call the same functions.

#![forbid(unsafe_code)]

mod branches;
mod compaction;
mod error;
mod export;
mod export_target;
mod fetch;
mod file_check;
mod file_description;
mod file_walk;
mod finding;
mod follow_error;
mod hash_queue;
mod history;
mod history_index;
mod index_repair;
mod inspection;
mod listed_history;
mod litestream_file;
mod manifest_object;
mod odd_files;
mod patience;
mod piece_reader;
mod point_in_time;
mod remedy;
mod remote;
mod replica;
mod restorable;
mod restore;
mod retention;
mod retention_outlook;
mod retention_report;
mod retention_run;
mod scratch;
mod verification;
mod verify;

pub use branches::find_abandoned;
pub use error::HistoryError;
pub use export::{Export, Exported};
pub use export_target::ExportTarget;
pub use fetch::DEFAULT_PARALLELISM;
pub use file_check::check_file;
pub use file_description::{FileEnds, describe, describe_file, read_ends, rfc3339};
pub use finding::{Finding, Problem, Severity};
pub use follow_error::FollowError;
pub use history::{History, Times};
pub use manifest_object::{
    FoundManifest, ManifestObject, edit_manifest, find_manifest, read_manifest, write_manifest,
};
pub use odd_files::OddFiles;
pub use patience::patiently;
pub use point_in_time::{Neighbours, State};
pub use remedy::Remedy;
pub use remote::{Remote, RemoteError, look_up};
pub use replica::ReplicaFollower;
pub use restorable::RestorableRange;
pub use restore::{PlannedRestore, RestoreOptions};
pub use retention::Retention;
pub use retention_report::{RetentionProblem, RetentionReport};
pub use verification::Verification;
pub use verify::{VERIFY_PARALLELISM, Verify, VerifyOptions};

/// The metadata key under which every object carries the SHA-256 of its bytes, hex.
pub const SHA256: &str = "sha256";

/// The metadata key under which every LTX file carries the identifier of the local state that it
/// came from: the writer of the manifest.
pub const WRITER: &str = "writer";

/// The metadata key under which an LTX file that was merged from others carries the timestamp of the
/// first of them, RFC 3339 with milliseconds.
pub const MERGED_SINCE: &str = "merged-since";
