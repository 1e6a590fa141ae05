//! `walrust restore`: brings a database back.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde_json::json;
use walrust_engine::RestoreTarget;
use walrust_history::{DEFAULT_PARALLELISM, HistoryError, PlannedRestore, RestoreOptions};
use walrust_ltx::Txid;
use walrust_sqlite::{Cancellation, IntegrityCheck, Restored, check_output};
use walrust_storage::ObjectStore;

use super::progress::progress_bar;
use super::{StorageArgs, human_bytes, print, print_json, rfc3339};
use crate::Error;
use crate::config::Config;

/// A state that is older than this when it is restored to a time is told.
const NOTABLE_AGE_MS: i64 = 120_000;

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// Name of the database in storage; `walrust list` shows the names
    #[arg(value_name = "NAME")]
    name: String,
    /// File to create
    #[arg(short, long, value_name = "FILE", required_unless_present = "plan")]
    output: Option<PathBuf>,
    #[command(flatten)]
    storage: StorageArgs,
    /// Restore the state after this transaction: a decimal number, or 16 hex digits
    #[arg(long, value_name = "TXID", value_parser = parse_txid)]
    txid: Option<Txid>,
    /// Restore the last state at or before this time: RFC 3339, such as 2026-11-23T14:00:00Z, or
    /// relative, such as "10m ago" or "2 hours ago"
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "txid")]
    point_in_time: Option<Timestamp>,
    /// Replace an existing output, and remove its -wal, -shm and -journal files
    #[arg(long)]
    force: bool,
    /// Show what would be fetched, and why, without writing anything
    #[arg(long)]
    plan: bool,
    /// Concurrent requests; at most 16 MiB are fetched ahead, whatever their number
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PARALLELISM)]
    parallelism: NonZeroUsize,
    /// SQLite check to run on the result
    #[arg(long, value_name = "CHECK", value_enum, default_value_t = Check::Quick)]
    integrity_check: Check,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Check {
    Quick,
    Full,
    None,
}

impl From<Check> for IntegrityCheck {
    fn from(check: Check) -> Self {
        match check {
            Check::Quick => Self::Quick,
            Check::Full => Self::Full,
            Check::None => Self::None,
        }
    }
}

/// `cancellation` tells when it is too late to give the restore up.
pub(super) async fn run(
    args: RestoreArgs,
    config: &Config,
    cancellation: &Cancellation,
) -> Result<(), Error> {
    if let Some(output) = args.output.as_ref().filter(|_| !args.plan) {
        // Before anything is fetched.
        check_output(output, args.force)?;
    }
    let store = args.storage.open(config).await?;
    let planned = plan_for(&args, store.as_ref()).await?;
    let Some(output) = args.output.as_ref().filter(|_| !args.plan) else {
        return print_plan(&planned, &store.url(), args.json);
    };
    let options = RestoreOptions {
        force: args.force,
        integrity_check: args.integrity_check.into(),
        parallelism: args.parallelism,
        cancellation: cancellation.clone(),
    };
    let restored = match carry_out(&store, &planned, output, options.clone()).await {
        // Retention may delete what it does not need any more while it is read, and has left
        // another way to the same state.
        Err(error) if error.is_vanished_file() => {
            tracing::warn!(%error, "a file vanished during the restore; planning again");
            let planned = plan_for(&args, store.as_ref()).await?;
            carry_out(&store, &planned, output, options).await?
        }
        restored => restored?,
    };
    print_restored(&args.name, output, &restored, args.json)
}

async fn plan_for(
    args: &RestoreArgs,
    store: &dyn ObjectStore,
) -> Result<PlannedRestore, HistoryError> {
    match (args.point_in_time, args.txid) {
        (Some(time), _) => {
            let planned = PlannedRestore::plan_at(store, &args.name, time).await?;
            tell_age(&planned, time);
            Ok(planned)
        }
        (None, Some(txid)) => {
            PlannedRestore::plan(store, &args.name, RestoreTarget::Txid(txid)).await
        }
        (None, None) => PlannedRestore::plan(store, &args.name, RestoreTarget::Latest).await,
    }
}

/// Says which state a time means, if that may surprise: nothing may have been written for a while, or
/// nothing replicated.
fn tell_age(planned: &PlannedRestore, time: Timestamp) {
    let Some(found) = planned.timestamp_ms else { return };
    let age_ms = time.as_millisecond().saturating_sub(found);
    if age_ms > NOTABLE_AGE_MS {
        eprintln!(
            "note: the last state that was there at {time:.3} is TXID {} of {}, {} min before",
            planned.plan.head,
            rfc3339(found),
            age_ms / 60_000
        );
    }
}

async fn carry_out(
    store: &Arc<dyn ObjectStore>,
    planned: &PlannedRestore,
    output: &Path,
    options: RestoreOptions,
) -> Result<Restored, HistoryError> {
    let bar = progress_bar("restoring", planned.plan.size());
    let drawn = bar.clone();
    let progress = move |read| drawn.inc(read);
    let restored = planned.execute(Arc::clone(store), output, options, progress).await;
    bar.finish_and_clear();
    restored
}

/// Accepts what we print, RFC 3339, and what people say: how long ago.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    const FORMS: &str = "give RFC 3339 with a time zone, such as 2026-11-23T14:00:00Z, or a relative \
                         time, such as \"10m ago\" or \"2 hours ago\"";
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago: Span = text.parse().map_err(|_| FORMS)?;
    if !text.trim_end().ends_with("ago") {
        return Err(FORMS.to_owned());
    }
    // Without a zone a day has 24 hours.
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    now.checked_add(ago).map(|time| time.timestamp()).map_err(|error| error.to_string())
}

/// Accepts what we print: 16 hex digits; and what people count: a decimal number.
fn parse_txid(text: &str) -> Result<Txid, String> {
    let txid =
        if text.len() == 16 { text.parse().ok() } else { text.parse().ok().and_then(Txid::new) };
    txid.ok_or_else(|| "a TXID is a decimal number of at least 1, or 16 hex digits".to_owned())
}

fn print_plan(planned: &PlannedRestore, url: &str, as_json: bool) -> Result<(), Error> {
    let plan = &planned.plan;
    if as_json {
        let files: Vec<_> = plan
            .files
            .iter()
            .map(|(file, role)| {
                json!({
                    "key": file.key,
                    "min_txid": file.name.min.to_string(),
                    "max_txid": file.name.max.to_string(),
                    "size": file.size,
                    "reason": role.to_string(),
                })
            })
            .collect();
        return print_json(&json!({
            "name": planned.name,
            "url": url,
            "layout": planned.layout.to_string(),
            "txid": plan.head.to_string(),
            "timestamp": planned.timestamp_ms.map(rfc3339),
            "size": plan.size(),
            "files": files,
        }));
    }
    let time = planned.timestamp_ms.map_or_else(|| "unknown time".to_owned(), rfc3339);
    let mut text = format!(
        "{} in {url} ({}) at TXID {} of {time}: {} files, {}\n",
        planned.name,
        planned.layout,
        plan.head,
        plan.files.len(),
        human_bytes(plan.size())
    );
    for (file, role) in &plan.files {
        text += &format!("  {}  {}  {role}\n", file.key, human_bytes(file.size));
    }
    print(&text)
}

fn print_restored(
    name: &str,
    output: &Path,
    restored: &Restored,
    as_json: bool,
) -> Result<(), Error> {
    let size = u64::from(restored.page_count) * u64::from(restored.page_size.get());
    let time = rfc3339(restored.timestamp_ms);
    if as_json {
        return print_json(&json!({
            "name": name,
            "output": output.display().to_string(),
            "txid": restored.txid.to_string(),
            "timestamp": time,
            "page_size": restored.page_size.get(),
            "page_count": restored.page_count,
            "checksum": restored.checksum.to_string(),
        }));
    }
    print(&format!(
        "restored {name} to {}: TXID {} of {time}, {}\n",
        output.display(),
        restored.txid,
        human_bytes(size)
    ))
}
