//! Planners and state machines of walrust.
//!
//! Nothing here does I/O, reads a clock or draws a random number: time and randomness are
//! arguments, so that a plan printed by a dry run, a property test and the running daemon all go
//! through the same code.

#![forbid(unsafe_code)]

mod branches;
mod bucket;
mod chain_check;
mod checkpoint_policy;
mod circuit_breaker;
mod compaction_planner;
mod config_diff;
mod cost;
mod database_planner;
mod delivery_queue;
mod error_class;
mod event_kind;
mod export_planner;
mod lasting_alarm;
mod lasting_failure;
mod links;
pub mod manifest;
mod names;
mod pacing;
mod page_table;
mod position;
mod prices;
mod replica_planner;
mod restart_policy;
mod restore_planner;
mod retention_decision;
mod retention_planner;
mod retention_policy;
mod retry_policy;
mod snapshot_schedule;
mod sync_planner;
mod tree;
mod upload_queue;

pub use branches::{Branches, StateChange, StateChanges, find_branches};
pub use bucket::{Bucket, Tier};
pub use chain_check::{ChainCheck, ChainProblem, FileChanges};
pub use checkpoint_policy::{CheckpointKind, CheckpointPolicy, CheckpointSettings, WalFill};
pub use circuit_breaker::{
    BreakerChange, BreakerSettings, BreakerState, CircuitBreaker, Evidence, Pass,
};
pub use compaction_planner::{Merge, plan_compaction};
pub use config_diff::{Diff, diff};
pub use cost::{ChangeRate, Cost, ReplicationSettings, Usage, most_snapshots};
pub use database_planner::{DatabaseStep, DatabaseView, LOOK_INTERVAL, plan_database};
pub use delivery_queue::{
    DeliveryAttempt, DeliveryDecision, DeliveryOutcome, DeliveryPolicy, DeliveryQueue, Queued,
};
pub use error_class::ErrorClass;
pub use event_kind::{EventKind, UnknownEvent};
pub use export_planner::{ExportPlan, ExportedFile, plan_export};
pub use lasting_alarm::{LastingAlarm, REMINDER};
pub use lasting_failure::{AfterFailure, LastingFailure};
pub use names::{
    Assignment, Displaced, NameError, NameRequest, assign_names, is_valid_name, possible_names,
};
pub use pacing::Pacing;
pub use page_table::{MissingPages, PageTable};
pub use position::{Position, WalPosition};
pub use prices::{PRICES_AS_OF, Prices, Provider};
pub use replica_planner::{Kinship, ReplicaStep, files_after, plan_replica};
pub use restart_policy::{RestartDecision, RestartPolicy, RestartRate, RestartSettings};
pub use restore_planner::{
    FileRole, RestorePlan, RestorePlanError, RestoreTarget, plan_restore, restorable_txids,
};
pub use retention_decision::{Decision, KeepReason, RemoveReason};
pub use retention_planner::{HistoryFile, RetentionPlan, plan_retention, quiet_until};
pub use retention_policy::RetentionPolicy;
pub use retry_policy::{RetryDecision, RetryPolicy};
pub use snapshot_schedule::{LastSnapshot, SnapshotReason, SnapshotSchedule, SnapshotSettings};
pub use sync_planner::{HealReason, PinRecord, SyncPlan, WalView, plan_sync};
pub use tree::{
    Layout, MANIFEST, StoredFile, Tree, all_trees, database_names, manifest_key, object_key,
};
pub use upload_queue::{CREDITS, Demand, OVERDUE, Priority, QueueFull, UploadQueue};
