//! `walrust restore`: brings a database back.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use walrust_engine::RestoreTarget;
use walrust_history::{Planned, RestoreOptions, execute, plan};
use walrust_ltx::Txid;
use walrust_sqlite::{IntegrityCheck, Restored, check_output};

use super::{StorageArgs, human_bytes, print, print_json, rfc3339, shows_progress};
use crate::Error;
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// Name of the database in storage; `walrust list` shows the names
    #[arg(value_name = "NAME")]
    name: String,
    /// File to write
    #[arg(short, long, value_name = "FILE", required_unless_present = "plan")]
    output: Option<PathBuf>,
    #[command(flatten)]
    storage: StorageArgs,
    /// Restore the state after this transaction: a number, or 16 hex digits
    #[arg(long, value_name = "TXID", value_parser = parse_txid)]
    txid: Option<Txid>,
    /// Replace an existing output, and remove its -wal, -shm and -journal files
    #[arg(long)]
    force: bool,
    /// Print what would be fetched, and why; write nothing
    #[arg(long)]
    plan: bool,
    /// SQLite's check of the result
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

pub(super) async fn run(args: RestoreArgs, config: &Config) -> Result<(), Error> {
    if let Some(output) = args.output.as_ref().filter(|_| !args.plan) {
        // Before anything is fetched.
        check_output(output, args.force)?;
    }
    let store = args.storage.open(config).await?;
    let target = args.txid.map_or(RestoreTarget::Latest, RestoreTarget::Txid);
    let planned = plan(store.as_ref(), &args.name, target).await?;
    let Some(output) = args.output.filter(|_| !args.plan) else {
        return print_plan(&planned, &store.url(), args.json);
    };
    let options =
        RestoreOptions { force: args.force, integrity_check: args.integrity_check.into() };
    let bar = progress_bar(planned.plan.size());
    let drawn = bar.clone();
    let restored =
        execute(Arc::clone(&store), &planned, &output, options, move |read| drawn.inc(read)).await;
    bar.finish_and_clear();
    print_restored(&args.name, &output, &restored?, args.json)
}

/// Accepts what we print: 16 hex digits; and what people count: a decimal number.
fn parse_txid(text: &str) -> Result<Txid, String> {
    let txid =
        if text.len() == 16 { text.parse().ok() } else { text.parse().ok().and_then(Txid::new) };
    txid.ok_or_else(|| "a TXID is a number from 1 on, or 16 hex digits".to_owned())
}

fn progress_bar(size: u64) -> ProgressBar {
    if !shows_progress() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "restoring {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
    );
    ProgressBar::new(size).with_style(style.expect("the template is well-formed"))
}

fn print_plan(planned: &Planned, url: &str, as_json: bool) -> Result<(), Error> {
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
            "size": plan.size(),
            "files": files,
        }));
    }
    let mut text = format!(
        "{} in {url} ({}) at TXID {}: {} files, {}\n",
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
    output: &std::path::Path,
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
