//! `walrust compact`: merges and removes what is old, or says what it would do.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use walrust_engine::{Decision, HistoryFile, RetentionPolicy, object_key};
use walrust_history::{HistoryError, Retention, RetentionReport};
use walrust_ltx::FileName;

use super::{StorageArgs, aligned, human_bytes, print, print_json, rfc3339, table};
use crate::Error;
use crate::config::{Config, Interval, RetentionSection, parse_interval};
use crate::resolver::Resolver;
use crate::settings::{self, Typed};

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

impl Done {
    fn files(&self) -> impl Iterator<Item = (&HistoryFile, &Decision)> {
        let decisions = self.retention.plan.decisions.iter();
        decisions.filter_map(|(name, decision)| Some((self.retention.files.get(name)?, decision)))
    }

    fn total(&self, verb: &str) -> Total {
        self.files().filter(|(_, decision)| self::verb(decision) == verb).fold(
            Total::default(),
            |total, (file, _)| Total { files: total.files + 1, bytes: total.bytes + file.size },
        )
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

    fn to_text(&self) -> String {
        let mut rows = table(["DECISION", "FILE", "SIZE", "TIME", "REASON"]);
        for (file, decision) in self.files() {
            rows.add_row([
                verb(decision).to_owned(),
                file.name.to_string(),
                human_bytes(file.size),
                rfc3339(file.timestamp_ms),
                self.reason(file.name, decision),
            ]);
        }
        let name = &self.retention.name;
        let mut text = format!("{name} in {}\n{}\n", self.url, aligned(rows, &[2]));
        let problems = self.report.as_ref().map_or(&self.retention.problems, |it| &it.problems);
        for problem in problems {
            text += &format!("warning: {problem}\n");
        }
        let total = |verb| {
            let Total { files, bytes } = self.total(verb);
            format!("{files} files ({})", human_bytes(bytes))
        };
        text += &format!(
            "keep {}, merge {} into {}, remove {}; {} states can be restored in any case\n",
            total(KEEP),
            total(MERGE),
            self.retention.plan.merges.len(),
            total(REMOVE),
            self.retention.plan.restore_points.len()
        );
        text + &match &self.report {
            None => "nothing was changed; use --force to carry it out\n".to_owned(),
            Some(report) => self.describe(report),
        }
    }

    fn describe(&self, report: &RetentionReport) -> String {
        let (merged, deleted) = (report.merged.len(), report.deleted.len());
        let waiting = report.retired.iter().filter(|name| !report.deleted.contains(name)).count();
        let later = match waiting {
            0 => String::new(),
            _ => format!(
                "; {waiting} files are out of the index, and a run in {} s or later deletes them",
                self.grace.as_secs_f64()
            ),
        };
        format!("stored {merged} merged files, deleted {deleted} files{later}\n")
    }
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
