//! Every failure a user can see, and the exit code of each.
//!
//! The code follows from the type, never from the words. An error names what failed, on which
//! object or file, why, and what to do next.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use walrust_actors::{Cause, NotShipped, ReplicatorError};
use walrust_engine::NameError;
use walrust_engine::manifest::ManifestError;
use walrust_history::{FollowError, HistoryError, Problem, Remedy, RemoteError};
use walrust_ltx::Txid;
use walrust_sqlite::{DatabaseError, ReplicaError, RestoreError};
use walrust_storage::{StorageError, StorageUrlError};

/// Exit codes of the program; scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Success = 0,
    /// Anything that has no code of its own.
    General = 1,
    /// Bad configuration or arguments.
    Config = 2,
    /// The database: missing, not SQLite, not in WAL mode, damaged WAL.
    Database = 3,
    /// Storage: network, credentials, bucket.
    Storage = 4,
    /// Damaged or forged files.
    Integrity = 5,
    /// No such backup or state, or the output is in the way.
    Restore = 6,
}

/// A failure of a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration file is wrong.
    #[error("{file}: {problem}")]
    ConfigFile {
        /// Path of the file.
        file: String,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// Arguments are missing or contradict each other.
    #[error("{0}")]
    Usage(String),
    /// A storage URL is wrong.
    #[error(transparent)]
    StorageUrl(#[from] StorageUrlError),
    /// Databases cannot be named.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A database cannot be replicated.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// None of several databases can be replicated.
    #[error("none of the databases can be replicated:\n{}", list(.0))]
    AllDatabases(Vec<DatabaseError>),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A history in storage cannot be read, or a restore of it failed.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A replica cannot be made, or cannot follow.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// What the bucket holds cannot be continued.
    #[error(transparent)]
    Remote(RemoteError),
    /// The daemon that replicates a database stores it under another name, or nowhere any more.
    #[error(
        "a daemon replicates this database and cannot be asked for a snapshot, and there are no files of \
         {name} in {url}; if the daemon stores it under another name, use its configuration (--config)"
    )]
    NoFilesOfDaemon {
        /// The name.
        name: String,
        /// The storage.
        url: String,
    },
    /// The daemon that replicates a database does not upload what is committed.
    #[error(
        "{}: a daemon replicates this database and cannot be asked for a snapshot, and it has uploaded \
         nothing that was committed after TXID {head}; its log says why", .database.display()
    )]
    DaemonBehind {
        /// Path of the database.
        database: PathBuf,
        /// The newest state in storage.
        head: Txid,
    },
    /// A database that changes all the time has no moment in which a snapshot is its head.
    #[error(
        "{}: a daemon replicates this database and cannot be asked for a snapshot, and the database \
         changes too fast to take one beside the daemon; try again when it is less busy", .0.display()
    )]
    Busy(PathBuf),
    /// The snapshot of a state that is to be stored is there, and damaged.
    #[error(
        "{object}: {problem}; only who replicates the database can follow it with another snapshot: \
         let the daemon validate its history (validation_interval), or stop it and run \
         `walrust snapshot` again"
    )]
    DamagedSnapshot {
        /// Key of the snapshot, with the storage.
        object: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// An object that is to be stored is there, with other bytes.
    #[error(
        "{0} exists with other content: another process replicates into this name; stop the other one \
         and try again, or give this database another prefix in the configuration file"
    )]
    OtherContent(String),
    /// The supervision tree did not do what it was asked.
    #[error(transparent)]
    Replicator(#[from] ReplicatorError),
    /// The daemon stopped with unshipped commits.
    #[error(
        "stopped before everything was in storage:\n{}\nthe next start uploads what is kept of the databases \
         that it replicates",
        not_shipped(.0)
    )]
    NotShipped(Vec<NotShipped>),
    /// The operating system allows too few open files.
    #[error(
        "{databases} databases need about {needed} open files, and this process may have {limit}; \
         raise the limit: `ulimit -Hn` of its shell, LimitNOFILE of its systemd unit, or --ulimit \
         nofile of its container"
    )]
    DescriptorLimit {
        /// Number of databases.
        databases: usize,
        /// Descriptors they need.
        needed: u64,
        /// Descriptors there may be.
        limit: u64,
    },
    /// Nobody listens on the control socket.
    #[error(
        "no daemon listens on {}; is `walrust watch` running, as this user and with this \
         --control-socket?", .0.display()
    )]
    NoDaemon(PathBuf),
    /// The directory of the control socket is not one that only this user can change.
    #[error(
        "{} {problem}: whoever can write there could listen in the place of the daemon; make it yours \
         alone (chown, chmod 700), or name another socket with --control-socket", .directory.display()
    )]
    SocketDirectory {
        /// The directory.
        directory: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The daemon did not do what it was asked.
    #[error("{reason}")]
    Refused {
        /// Why, with the name of the database.
        reason: String,
        /// What stands in the way.
        cause: Cause,
    },
    /// A database was paused before everything was in storage.
    #[error(
        "{name} is paused, but its copy in storage is behind: {reason}; its WAL stays as it is, leave it \
         where it is; `walrust resume {name}` uploads what is missing"
    )]
    PausedUnshipped {
        /// Its name.
        name: String,
        /// Why, with what storage said last.
        reason: String,
    },
    /// The daemon could not ship everything.
    #[error("not everything is in storage:\n  {}", .problems.join("\n  "))]
    NotSynced {
        /// Names of databases, and why.
        problems: Vec<String>,
        /// The gravest cause.
        cause: Cause,
    },
    /// The supervision tree failed as a whole.
    #[error(
        "the supervision tree failed, see the log for the reason. Nothing is lost: start walrust again"
    )]
    TreeFailed,
    /// The program's own files or terminal failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, on which file.
        what: String,
        /// The answer.
        source: io::Error,
    },
    /// What was verified is not as it should be. The findings were printed.
    #[error("{}", describe_findings(*.warnings, *.critical, .remedies))]
    Findings {
        /// Findings that no restore suffers from.
        warnings: usize,
        /// Findings that make a restore fail.
        critical: usize,
        /// What helps against them.
        remedies: BTreeSet<Remedy>,
    },
    /// A signal has ended the command.
    #[error("interrupted by a signal")]
    Interrupted,
    /// `walrust verify` could not look.
    #[error(transparent)]
    NotVerified(Box<Error>),
    /// A step of the demonstration failed.
    #[error("{}: {problem}", .path.display())]
    Demo {
        /// Path of its database.
        path: PathBuf,
        /// What went wrong.
        problem: String,
    },
    /// The demonstration did not end as it must.
    #[error("the restored database differs from {}", .0.display())]
    DemoDiffers(PathBuf),
}

impl Error {
    /// The exit code of the failure.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::ConfigFile { .. } | Self::Usage(_) | Self::StorageUrl(_) | Self::Name(_) => {
                ExitCode::Config
            }
            Self::Findings { critical: 0, .. } => ExitCode::General,
            // The contract of this command: 2 means that a restore fails.
            Self::Findings { .. } => ExitCode::Config,
            // 1 means that there are warnings only: whoever could not look must not say so.
            Self::NotVerified(error) => match error.exit_code() {
                ExitCode::General => ExitCode::Config,
                code => code,
            },
            Self::Database(_) | Self::AllDatabases(_) => ExitCode::Database,
            Self::Storage(_) => ExitCode::Storage,
            Self::Refused { cause, .. }
            | Self::NotSynced { cause, .. }
            | Self::Replicator(ReplicatorError::Refused { cause, .. }) => match cause {
                Cause::Storage => ExitCode::Storage,
                Cause::Database => ExitCode::Database,
                Cause::Other => ExitCode::General,
            },
            Self::History(error) => history_exit_code(error),
            Self::DamagedSnapshot { .. } => ExitCode::Integrity,
            Self::Follow(error) => follow_exit_code(error),
            Self::Remote(_)
            | Self::Busy(_)
            | Self::NoFilesOfDaemon { .. }
            | Self::DaemonBehind { .. }
            | Self::OtherContent(_)
            | Self::Replicator(_)
            | Self::NotShipped(_)
            | Self::PausedUnshipped { .. }
            | Self::NoDaemon(_)
            | Self::SocketDirectory { .. }
            | Self::DescriptorLimit { .. }
            | Self::TreeFailed
            | Self::Interrupted
            | Self::Io { .. }
            | Self::Demo { .. }
            | Self::DemoDiffers(_) => ExitCode::General,
        }
    }
}

impl From<RemoteError> for Error {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Storage(error) => Self::Storage(error),
            error => Self::Remote(error),
        }
    }
}

impl From<RestoreError> for Error {
    fn from(error: RestoreError) -> Self {
        Self::History(error.into())
    }
}

fn history_exit_code(error: &HistoryError) -> ExitCode {
    use HistoryError::{
        AllFilesLost, FilesMissing, LostTail, Manifest, ManifestSha256, NoManifest, NoThread,
        NotLtx, NothingToExport, OtherLayout, Outdated, Plan, Restore, Scratch, Storage,
        Superseded, TargetInUse, Unavailable, UnknownName,
    };
    match error {
        Storage(_) => ExitCode::Storage,
        UnknownName { .. } | Plan { .. } | Unavailable { .. } | TargetInUse { .. } => {
            ExitCode::Restore
        }
        Manifest { source: ManifestError::NewerFormat { .. }, .. }
        | NoManifest { .. }
        | NoThread(_)
        | NothingToExport { .. }
        | OtherLayout { .. }
        | Outdated { .. }
        | Scratch { .. }
        | Superseded { .. } => ExitCode::General,
        Restore(error) => restore_exit_code(error),
        Manifest { source: ManifestError::Damaged(_), .. }
        | ManifestSha256 { .. }
        | AllFilesLost { .. }
        | LostTail { .. }
        | NotLtx { .. }
        | FilesMissing { .. } => ExitCode::Integrity,
        // Not known here: that anything is damaged is not for a guess.
        _ => ExitCode::General,
    }
}

fn follow_exit_code(error: &FollowError) -> ExitCode {
    match error {
        FollowError::History(error) => history_exit_code(error),
        FollowError::Replica(error) => match error {
            ReplicaError::File(error) => restore_exit_code(error),
            ReplicaError::NotOurs { .. } | ReplicaError::OtherSource { .. } => ExitCode::Restore,
            ReplicaError::Database(_)
            | ReplicaError::Modified { .. }
            | ReplicaError::InUse { .. } => ExitCode::Database,
            _ => ExitCode::General,
        },
        FollowError::GivenUp { .. } => ExitCode::Integrity,
        FollowError::NotWalrust { .. } | FollowError::Gap { .. } | FollowError::Behind { .. } => {
            ExitCode::Restore
        }
        _ => ExitCode::General,
    }
}

fn restore_exit_code(error: &RestoreError) -> ExitCode {
    match error {
        RestoreError::OutputExists { .. }
        | RestoreError::OutputIsDirectory { .. }
        | RestoreError::NoPages { .. } => ExitCode::Restore,
        // The object did not arrive whole: that is the network, not the object.
        RestoreError::Damaged { source, .. } if source.is_io() => ExitCode::Storage,
        RestoreError::Io { .. } | RestoreError::Cancelled => ExitCode::General,
        _ => ExitCode::Integrity,
    }
}

fn list(errors: &[DatabaseError]) -> String {
    let lines: Vec<_> = errors.iter().map(|error| format!("  {error}")).collect();
    lines.join("\n")
}

fn describe_findings(warnings: usize, critical: usize, remedies: &BTreeSet<Remedy>) -> String {
    let count = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    };
    let mut text = count(warnings, "warning");
    if critical > 0 {
        text = format!("{}, {text}", count(critical, "critical finding"));
    }
    // What else is wrong does not concern whether states can be restored.
    if critical == 0 && !remedies.contains(&Remedy::Snapshot) {
        text += "; every state can be restored";
    } else if remedies.is_empty() {
        text += ": not every state can be restored";
    }
    let remedies: Vec<String> = remedies.iter().map(ToString::to_string).collect();
    match remedies.is_empty() {
        true => text,
        false => format!("{text}: {}", remedies.join(". ")),
    }
}

fn not_shipped(databases: &[NotShipped]) -> String {
    let line = |database: &NotShipped| format!("  {}: {}", database.name, database.reason);
    databases.iter().map(line).collect::<Vec<_>>().join("\n")
}
