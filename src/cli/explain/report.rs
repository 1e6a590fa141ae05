//! The sections of the explanation, as text and as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use walrust_actors::{DatabaseSettings, Settings, WebhookSettings};
use walrust_engine::{PRICES_AS_OF, RetentionPolicy, Usage, most_snapshots};

use super::Problems;
use super::estimate::{Estimate, cost};
use crate::cli::{aligned, human_bytes, table};
use crate::resolver::LeftOut;

/// Everything that is told.
#[derive(Debug)]
pub(super) struct Report {
    /// The configuration file.
    pub(super) file: Option<PathBuf>,
    /// The storage, if one is named.
    pub(super) url: Option<String>,
    pub(super) patterns: Vec<PathBuf>,
    /// Why `watch` would not start, if it would not.
    pub(super) refusal: Option<String>,
    pub(super) settings: Settings,
    pub(super) problems: Problems,
    pub(super) left_out: Vec<LeftOut>,
    pub(super) estimate: Estimate,
}

impl Report {
    pub(super) fn to_text(&self) -> String {
        let source = self.file.as_ref().map_or_else(
            || "no configuration file: defaults, flags and variables".to_owned(),
            |file| format!("configuration file {}", file.display()),
        );
        let sections = [
            ("Databases", self.databases()),
            ("Triggers", self.grouped(triggers)),
            ("Retention", self.grouped(retention)),
            ("Validation", self.grouped(|database| vec![validation(database)])),
            ("Webhooks", self.webhooks()),
            ("Estimated monthly cost", self.cost()),
        ];
        let mut text = format!("What `walrust watch` would do ({source})\n");
        if let Some(refusal) = &self.refusal {
            text += &format!("It would not start: {refusal}\n");
        }
        for (title, lines) in sections {
            text += &format!("\n{title}\n");
            for line in lines {
                text += &format!("  {line}\n");
            }
        }
        text
    }

    fn databases(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let destination = |name: &str| match &self.url {
            Some(url) => format!("{}/{name}", url.trim_end_matches('/')),
            None => "no storage is named".to_owned(),
        };
        let mut rows = table(["NAME", "DATABASE", "SIZE", "STORED IN"]);
        for (database, estimated) in self.settings.databases.iter().zip(&self.estimate.databases) {
            rows.add_row([
                database.name.clone(),
                database.path.display().to_string(),
                human_bytes(estimated.size),
                destination(&database.name),
            ]);
        }
        if self.settings.databases.is_empty() {
            lines.push("none at the moment".to_owned());
        } else {
            lines.extend(table_lines(&aligned(rows, &[2])));
        }
        for pattern in &self.patterns {
            lines.push(format!(
                "{}: matching files are picked up and retired while it runs",
                pattern.display()
            ));
        }
        for (name, problem) in &self.problems {
            lines.push(format!("{name} cannot be replicated at the moment: {problem}"));
        }
        for LeftOut { path, error } in &self.left_out {
            lines.push(format!("{} is not replicated: {error}", path.display()));
        }
        lines
    }

    /// What holds for databases, once for all that share it.
    fn grouped(&self, describe: impl Fn(&DatabaseSettings) -> Vec<String>) -> Vec<String> {
        let mut groups: BTreeMap<Vec<String>, Vec<&str>> = BTreeMap::new();
        for database in &self.settings.databases {
            groups.entry(describe(database)).or_default().push(&database.name);
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        // What holds for most comes first.
        groups.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
        let several = groups.len() > 1;
        let lines = groups.into_iter().enumerate().flat_map(|(index, (lines, names))| {
            let title = match (several, index) {
                (false, _) => None,
                (true, 0) => Some(format!("{} databases:", names.len())),
                (true, _) => Some(format!("{}:", names.join(", "))),
            };
            let indent = if several { "  " } else { "" };
            title.into_iter().chain(lines.into_iter().map(move |line| format!("{indent}{line}")))
        });
        lines.collect()
    }

    fn webhooks(&self) -> Vec<String> {
        if self.settings.webhooks.is_empty() {
            return vec!["none".to_owned()];
        }
        let line = |webhook: &WebhookSettings| {
            let signed = if webhook.secret.is_some() { "signed" } else { "not signed" };
            format!("{} ({signed}): {}", webhook.origin(), events(webhook).join(", "))
        };
        self.settings.webhooks.iter().map(line).collect()
    }

    fn cost(&self) -> Vec<String> {
        let estimate = &self.estimate;
        let providers = estimate.providers();
        let header = ["", "COMMITS/H", "SNAPSHOT", "STORED", "PUT/MONTH"].map(str::to_owned);
        let header =
            header.into_iter().chain(providers.iter().map(|it| it.to_string().to_uppercase()));
        let mut rows = comfy_table::Table::new();
        rows.load_style(comfy_table::presets::NOTHING).set_header(header);
        let row = |name: String, rate: String, snapshot: String, usage: &Usage| {
            let cells = [name, rate, snapshot, bytes(usage.stored_bytes), number(usage.puts)];
            let costs = providers.iter().map(|it| dollars(cost(usage, *it).total()));
            cells.into_iter().chain(costs).collect::<Vec<_>>()
        };
        for database in &estimate.databases {
            let Some(usage) = &database.usage else { continue };
            let source = if database.is_measured { "" } else { "*" };
            let rate = format!("{}{source}", number(database.rate.commits_per_hour));
            let snapshot = bytes(database.snapshot_bytes);
            rows.add_row(row(database.name.clone(), rate, snapshot, usage));
        }
        rows.add_row(row("total".to_owned(), String::new(), String::new(), &estimate.total()));
        for (name, usage) in &estimate.examples {
            let rate = format!("{}*", number(estimate.assumed.commits_per_hour));
            rows.add_row(row(format!("a database of {name}"), rate, (*name).to_owned(), usage));
        }
        let columns: Vec<usize> = (1..5 + providers.len()).collect();
        let mut lines: Vec<String> = table_lines(&aligned(rows, &columns)).collect();
        if !self.problems.is_empty() {
            let names: Vec<_> = self.problems.keys().map(String::as_str).collect();
            lines.push(format!(
                "not included, because they cannot be replicated at the moment: {}",
                names.join(", ")
            ));
        }
        lines.push(format!(
            "* assumed: {} commits per hour, {} each (--commits-per-hour, --bytes-per-commit; --measure \
             measures what is in storage)",
            number(estimate.assumed.commits_per_hour),
            bytes(estimate.assumed.bytes_per_commit)
        ));
        if estimate.total().growth_bytes > 0.0 {
            lines.push(format!(
                "nothing is ever deleted: this is the cost after one year; storage keeps growing by {} a month",
                bytes(estimate.total().growth_bytes)
            ));
        }
        if estimate.provider.is_none() {
            lines.push("prices of this store are not known: all providers are shown".to_owned());
        }
        lines.push(format!(
            "list prices in US dollars as of {PRICES_AS_OF}, without data transfer, validation and free tiers"
        ));
        lines
    }

    pub(super) fn to_json(&self) -> Value {
        let pairs = self.settings.databases.iter().zip(&self.estimate.databases);
        let databases = pairs.map(|(database, estimated)| {
            json!({
                "name": database.name,
                "path": database.path,
                "size": estimated.size,
                "destination": self.url.as_ref().map(|url| {
                    format!("{}/{}", url.trim_end_matches('/'), database.name)
                }),
                "problem": self.problems.get(&database.name),
                "triggers": triggers(database),
                "retention": {
                    "summary": retention(database),
                    "hourly": database.compaction.policy.hourly,
                    "daily": database.compaction.policy.daily,
                    "weekly": database.compaction.policy.weekly,
                    "monthly": database.compaction.policy.monthly,
                    "most_snapshots": most_snapshots(&database.compaction.policy),
                },
                "validation": validation(database),
                "commits_per_hour": estimated.rate.commits_per_hour,
                "bytes_per_commit": estimated.rate.bytes_per_commit,
                "snapshot_bytes": estimated.snapshot_bytes,
                "measured": estimated.is_measured,
                "monthly": estimated.usage.as_ref().map(|it| self.usage(it)),
            })
        });
        let webhooks = self.settings.webhooks.iter().map(|webhook| {
            json!({
                "url": webhook.origin(),
                "signed": webhook.secret.is_some(),
                "events": events(webhook),
            })
        });
        let left_out = self
            .left_out
            .iter()
            .map(|LeftOut { path, error }| json!({ "path": path, "error": error.to_string() }));
        let examples = self.estimate.examples.iter();
        let examples = examples.map(|(name, usage)| ((*name).to_owned(), self.usage(usage)));
        json!({
            "config": self.file,
            "url": self.url,
            "patterns": self.patterns,
            "refusal": self.refusal,
            "databases": databases.collect::<Vec<_>>(),
            "left_out": left_out.collect::<Vec<_>>(),
            "webhooks": webhooks.collect::<Vec<_>>(),
            "prices": { "provider": self.estimate.provider.map(|it| it.to_string()), "as_of": PRICES_AS_OF },
            "total": self.usage(&self.estimate.total()),
            "examples": examples.collect::<serde_json::Map<_, _>>(),
        })
    }

    fn usage(&self, usage: &Usage) -> Value {
        let costs = self.estimate.providers().into_iter().map(|provider| {
            let cost = cost(usage, provider);
            let cost = json!({
                "storage": cents(cost.storage),
                "requests": cents(cost.requests),
                "total": cents(cost.total()),
            });
            (provider.to_string(), cost)
        });
        json!({
            "puts": usage.puts.round(),
            "lists": usage.lists.round(),
            "gets": usage.gets.round(),
            "uploaded_bytes": usage.uploaded_bytes.round(),
            "snapshots": usage.snapshots.round(),
            "stored_bytes": usage.stored_bytes.round(),
            "growth_bytes": usage.growth_bytes.round(),
            "cost_usd": costs.collect::<serde_json::Map<_, _>>(),
        })
    }
}

fn triggers(database: &DatabaseSettings) -> Vec<String> {
    let DatabaseSettings { snapshot, checkpoint, sync_interval, .. } = database;
    let mut lines = vec![match sync_interval.is_zero() {
        true => "upload: each commit at once".to_owned(),
        false => format!("upload: new commits, at most once per {}", human(*sync_interval)),
    }];
    let mut snapshots = Vec::new();
    if !snapshot.interval.is_zero() {
        snapshots.push(format!("{} after the previous one", human(snapshot.interval)));
    }
    if snapshot.max_changes > 0 {
        snapshots.push(format!("after {} commits", snapshot.max_changes));
    }
    if !snapshot.max_interval.is_zero() {
        let interval = human(snapshot.max_interval);
        snapshots.push(format!("{interval} after the first commit since the last snapshot"));
    }
    if !snapshot.on_idle.is_zero() {
        snapshots.push(format!("when idle for {}", human(snapshot.on_idle)));
    }
    if snapshot.on_startup {
        snapshots.push("at startup".to_owned());
    }
    lines.push(match snapshots.is_empty() {
        true => "snapshot: the first one only".to_owned(),
        false => format!("snapshot, if the database changed: {}", snapshots.join(", ")),
    });
    let mut checkpoints = Vec::new();
    if !checkpoint.interval.is_zero() {
        checkpoints.push(format!("{} after the previous one", human(checkpoint.interval)));
    }
    if checkpoint.min_pages > 0 {
        checkpoints.push(format!("at {} pages", checkpoint.min_pages));
    }
    if checkpoint.truncate_pages > 0 {
        checkpoints
            .push(format!("at {} pages with the writers waiting", checkpoint.truncate_pages));
    }
    lines.push(match checkpoints.is_empty() {
        true => "checkpoint of the WAL: never".to_owned(),
        false => format!("checkpoint of the WAL: {}", checkpoints.join(", ")),
    });
    lines
}

fn retention(database: &DatabaseSettings) -> Vec<String> {
    let compaction = &database.compaction;
    let RetentionPolicy { hourly, daily, weekly, monthly } = compaction.policy;
    let when = match (compaction.after_snapshot, compaction.interval.is_zero()) {
        (false, true) => {
            return vec![
                "never: nothing is merged or deleted (set compact_interval or compact_after_snapshot)"
                    .to_owned(),
            ];
        }
        (true, true) => "after each snapshot".to_owned(),
        (false, false) => format!("every {}", human(compaction.interval)),
        (true, false) => format!("every {} and after each snapshot", human(compaction.interval)),
    };
    let most = most_snapshots(&compaction.policy);
    let window = match hourly {
        0 => String::new(),
        hours => format!("; every state of the last {hours} hours"),
    };
    vec![
        format!(
            "{when}: old files are merged or retired, and deleted {} later",
            human(compaction.grace())
        ),
        format!(
            "kept: the newest snapshot of each of the last {hourly} hours, {daily} days, {weekly} weeks and \
             {monthly} months: at most {most} snapshots{window}"
        ),
    ]
}

fn validation(database: &DatabaseSettings) -> String {
    let validation = &database.validation;
    if validation.interval.is_zero() {
        return "never (set validation_interval); `walrust verify` does it on demand".to_owned();
    }
    let rate = match validation.bytes_per_second {
        0 => "at full speed".to_owned(),
        rate => format!("at {} per second", human_bytes(rate)),
    };
    format!("every {}, {rate}: every file is read and checked", human(validation.interval))
}

fn events(webhook: &WebhookSettings) -> Vec<String> {
    match webhook.events.is_empty() {
        true => vec!["all events but heartbeat".to_owned()],
        false => webhook.events.iter().map(ToString::to_string).collect(),
    }
}

/// The lines of a table without the space before its first column.
fn table_lines(table: &str) -> impl Iterator<Item = String> + '_ {
    table.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned())
}

/// A duration as the configuration takes it.
fn human(duration: Duration) -> String {
    jiff::SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{duration:?}"), |duration| format!("{duration:#}"))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
fn bytes(bytes: f64) -> String {
    human_bytes(bytes.round() as u64)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
fn number(number: f64) -> String {
    indicatif::HumanCount(number.round() as u64).to_string()
}

fn dollars(amount: f64) -> String {
    if amount > 0.0 && amount < 0.01 { "< $0.01".to_owned() } else { format!("${amount:.2}") }
}

/// Hundredths of a cent are below what an estimate can know.
fn cents(amount: f64) -> f64 {
    (amount * 10_000.0).round() / 10_000.0
}
