//! `walrust compact`: merges and removes what is old, or says what it would do.

use std::fmt;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use walrust_engine::{Decision, HistoryFile, Merge, RetentionPolicy, object_key};
use walrust_history::{HistoryError, Retention, RetentionReport};
use walrust_ltx::FileName;

use super::{StorageArgs, aligned, human_bytes, print, print_json, rfc3339, table};
use crate::Error;
use crate::config::{Config, Interval, RetentionSection, parse_interval};
use crate::resolver::Resolver;
use crate::settings::{self, Typed};

mod file_outcome;

use file_outcome::FileOutcome;

/// How often a plan is made anew that another run has made outdated.
const ATTEMPTS: u32 = 10;

#[derive(Debug, Args)]
pub(super) struct CompactArgs {
    /// Name of the database in storage; `walrust list` shows the names
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    storage: StorageArgs,
    /// Carry it out; without this, only show what would be done, and why
    #[arg(long)]
    force: bool,
    /// Keep the newest snapshot of each of the last N hours, and every state in them
    /// [default: as configured, else 24]
    #[arg(long, value_name = "HOURS")]
    hourly: Option<u32>,
    /// Keep the newest snapshot of each of the last N days [default: as configured, else 7]
    #[arg(long, value_name = "DAYS")]
    daily: Option<u32>,
    /// Keep the newest snapshot of each of the last N ISO weeks [default: as configured, else 12]
    #[arg(long, value_name = "WEEKS")]
    weekly: Option<u32>,
    /// Keep the newest snapshot of each of the last N months [default: as configured, else 12]
    #[arg(long, value_name = "MONTHS")]
    monthly: Option<u32>,
    /// Delete a retired file only after this long, in a later run, so that running restores keep their
    /// files; 0 deletes at once [default: compact_interval, else 1h]
    #[arg(long, value_name = "DURATION", value_parser = parse_interval)]
    grace: Option<Interval>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: CompactArgs, config: &Config) -> Result<(), Error> {
    let store = args.storage.open(config).await?;
    let configured = configured(args.name.trim_matches('/'), config)?;
    let (policy, grace) = (policy(&args, configured.policy), configured.grace());
    let grace = args.grace.map_or(grace, |interval| interval.0);
    let plan = || Retention::plan(store.as_ref(), &args.name, &policy, Timestamp::now());
    let mut retention = plan().await?;
    let mut report = None;
    let mut attempt = 1;
    while args.force && report.is_none() {
        match retention.execute(store.as_ref(), grace, &Timestamp::now).await {
            // A daemon keeps the same history.
            Err(HistoryError::Outdated { .. }) if attempt < ATTEMPTS => {
                attempt += 1;
                retention = plan().await?;
            }
            executed => report = Some(executed?),
        }
    }
    let done = Done { retention, policy, grace, report, url: store.url() };
    if args.json { print_json(&done.to_json()) } else { print(&done.to_text()) }
}

/// What a daemon would do with the database: as its entry says, if it has one.
fn configured(name: &str, config: &Config) -> Result<walrust_actors::CompactionSettings, Error> {
    let settings = Resolver::default().resolve(config, &Typed::default())?.settings;
    let of_database = settings.databases.iter().find(|database| database.name == name);
    let of_all = || walrust_actors::CompactionSettings {
        after_snapshot: false,
        interval: config.sync.compact_interval.map_or(Duration::ZERO, |interval| interval.0),
        policy: settings::retention_policy(&config.retention),
    };
    Ok(of_database.map_or_else(of_all, |database| database.compaction))
}

fn policy(args: &CompactArgs, configured: RetentionPolicy) -> RetentionPolicy {
    let CompactArgs { hourly, daily, weekly, monthly, .. } = *args;
    let typed = RetentionSection { hourly, daily, weekly, monthly };
    let configured = RetentionSection {
        hourly: Some(configured.hourly),
        daily: Some(configured.daily),
        weekly: Some(configured.weekly),
        monthly: Some(configured.monthly),
    };
    settings::retention_policy(&typed.or(&configured))
}

/// A plan, and what was done of it; nothing in a dry run.
struct Done {
    retention: Retention,
    policy: RetentionPolicy,
    grace: Duration,
    report: Option<RetentionReport>,
    url: String,
}

/// Files and their bytes.
#[derive(Clone, Copy, Default)]
struct Total {
    files: usize,
    bytes: u64,
}

impl Total {
    fn of<'a>(files: impl Iterator<Item = &'a HistoryFile>) -> Self {
        files.fold(Self::default(), |total, file| Self {
            files: total.files + 1,
            bytes: total.bytes + file.size,
        })
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files ({})", self.files, human_bytes(self.bytes))
    }
}

impl Done {
    fn files(&self) -> impl Iterator<Item = (&HistoryFile, &Decision)> {
        let decisions = self.retention.plan.decisions.iter();
        decisions.filter_map(|(name, decision)| Some((self.retention.files.get(name)?, decision)))
    }

    fn total(&self, verb: &str) -> Total {
        let decided = self.files().filter(|(_, decision)| self::verb(decision) == verb);
        Total::of(decided.map(|(file, _)| file))
    }

    fn reason(&self, name: FileName, decision: &Decision) -> String {
        match self.retention.retired_since(name) {
            Some(since) if !matches!(decision, Decision::Keep(_)) => {
                format!("{decision}; out of the index since {since}")
            }
            _ => decision.to_string(),
        }
    }

    fn to_json(&self) -> Value {
        let key = |name: FileName| object_key(&self.retention.name, name);
        let files: Vec<_> = self
            .files()
            .map(|(file, decision)| {
                json!({
                    "key": key(file.name),
                    "min_txid": file.name.min.to_string(),
                    "max_txid": file.name.max.to_string(),
                    "snapshot": file.name.is_snapshot(),
                    "size": file.size,
                    "timestamp": rfc3339(file.timestamp_ms),
                    "decision": verb(decision),
                    "reason": self.reason(file.name, decision),
                    "outcome": self.outcome(file.name, decision).map(FileOutcome::text),
                    "retired_since": self.retention.retired_since(file.name),
                })
            })
            .collect();
        let total = |verb| {
            let Total { files, bytes } = self.total(verb);
            json!({ "files": files, "bytes": bytes })
        };
        let keys = |names: &[FileName]| -> Vec<String> { names.iter().copied().map(key).collect() };
        let problems = match &self.report {
            Some(report) => &report.problems,
            None => &self.retention.problems,
        };
        let RetentionPolicy { hourly, daily, weekly, monthly } = self.policy;
        json!({
            "name": self.retention.name,
            "url": self.url,
            "dry_run": self.report.is_none(),
            "policy": { "hourly": hourly, "daily": daily, "weekly": weekly, "monthly": monthly },
            "grace_seconds": self.grace.as_secs_f64(),
            "files": files,
            "totals": { "keep": total(KEEP), "merge": total(MERGE), "remove": total(REMOVE) },
            "restore_points": self.retention.plan.restore_points.len(),
            "problems": problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "done": self.report.as_ref().map(|report| json!({
                "merged": report.merged.iter().map(|merge| key(merge.into)).collect::<Vec<_>>(),
                "retired": keys(&report.retired),
                "taken_back": keys(&report.taken_back),
                "deleted": keys(&report.deleted),
            })),
        })
    }

    fn outcome(&self, name: FileName, decision: &Decision) -> Option<FileOutcome> {
        let was_retired = self.retention.retired_since(name).is_some();
        let report = self.report.as_ref()?;
        Some(FileOutcome::of(name, decision, was_retired, report))
    }

    fn to_text(&self) -> String {
        let what = if self.report.is_some() { "RESULT" } else { "DECISION" };
        let mut rows = table([what, "FILE", "SIZE", "TIME", "REASON"]);
        for (file, decision) in self.files() {
            let outcome = self.outcome(file.name, decision);
            rows.add_row([
                outcome.map_or(verb(decision), FileOutcome::text).to_owned(),
                file.name.to_string(),
                human_bytes(file.size),
                rfc3339(file.timestamp_ms),
                self.reason(file.name, decision),
            ]);
        }
        for merge in self.report.iter().flat_map(|report| &report.merged) {
            let (into, reason) = (merge.into.to_string(), merged_from(merge));
            rows.add_row(["stored".to_owned(), into, String::new(), String::new(), reason]);
        }
        let name = &self.retention.name;
        let mut text = format!("{name} in {}\n{}\n", self.url, aligned(rows, &[2]));
        let problems = self.report.as_ref().map_or(&self.retention.problems, |it| &it.problems);
        for problem in problems {
            text += &format!("warning: {problem}\n");
        }
        text += &match &self.report {
            None => self.describe_plan(),
            Some(report) => self.describe(report),
        };
        let points = self.retention.plan.restore_points.len();
        text += &format!("; {points} states can be restored in any case\n");
        if self.report.is_none() {
            text += "nothing was changed; use --force to carry it out\n";
        }
        text
    }

    fn describe_plan(&self) -> String {
        let total = |verb| self.total(verb).to_string();
        let merges = self.retention.plan.merges.len();
        format!(
            "keep {}, merge {} into {merges}, remove {}",
            total(KEEP),
            total(MERGE),
            total(REMOVE)
        )
    }

    fn describe(&self, report: &RetentionReport) -> String {
        let total = |of: &[FileOutcome]| {
            let is_one = |it: &(&HistoryFile, &Decision)| {
                self.outcome(it.0.name, it.1).is_some_and(|outcome| of.contains(&outcome))
            };
            Total::of(self.files().filter(is_one).map(|(file, _)| file))
        };
        let staying = [FileOutcome::Kept, FileOutcome::TakenBack, FileOutcome::LeftAlone];
        // Files whose deletion an earlier run had begun are none of the plan.
        let (deleted, stored) = (report.deleted.len(), report.merged.len());
        let bytes = human_bytes(total(&[FileOutcome::Deleted]).bytes);
        let mut text = format!(
            "kept {}, stored {stored} merged files, deleted {deleted} files ({bytes})",
            total(&staying)
        );
        let waiting = total(&[FileOutcome::Retired]);
        if waiting.files > 0 {
            let grace = self.grace.as_secs_f64();
            text += &format!(
                "; {waiting} are out of the index, and a run in {grace} s or later deletes them"
            );
        }
        text
    }
}

fn merged_from(merge: &Merge) -> String {
    format!("merged from {} files", merge.sources.len())
}

const KEEP: &str = "keep";
const MERGE: &str = "merge";
const REMOVE: &str = "remove";

fn verb(decision: &Decision) -> &'static str {
    match decision {
        Decision::Keep(_) => KEEP,
        Decision::Merge { .. } => MERGE,
        Decision::Remove(_) => REMOVE,
    }
}
