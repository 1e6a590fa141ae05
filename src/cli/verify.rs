//! `walrust verify`: proves that databases in storage can be restored.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use clap::Args;
use futures_util::StreamExt;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use walrust_engine::{StoredFile, database_names, manifest_key};
use walrust_history::{
    Finding, HistoryError, Remedy, Severity, VERIFY_PARALLELISM, Verification, Verify,
    VerifyOptions,
};
use walrust_storage::ObjectStore;

use super::progress::progress_bar;
use super::{StorageArgs, human_bytes, print, print_json};
use crate::Error;
use crate::config::Config;

const EXIT_CODES: &str = "\
Exit codes:
  0  all checks passed
  1  warnings only: every state can be restored; or --fix has repaired all that was found
  2  critical: not every state can be restored; also: not verified, or bad arguments
  4  storage could not be read";

/// Databases that are looked at together, if all are.
const TOGETHER: usize = 4;

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct VerifyArgs {
    /// Name of the database in storage; `walrust list` shows the names
    #[arg(value_name = "NAME", required_unless_present = "all")]
    name: Option<String>,
    /// Verify every database in storage
    #[arg(long, conflicts_with = "name")]
    all: bool,
    #[command(flatten)]
    storage: StorageArgs,
    /// Repair the manifest: remove entries of missing files, add entries of unlisted ones. The files
    /// themselves are never changed
    #[arg(long)]
    fix: bool,
    /// Also restore the newest state to a scratch file and run SQLite's integrity_check on it
    #[arg(long)]
    deep: bool,
    /// Files to read concurrently; each uses up to 4 MiB of memory
    #[arg(long, value_name = "N", default_value_t = VERIFY_PARALLELISM)]
    parallelism: NonZeroUsize,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: VerifyArgs, config: &Config) -> Result<(), Error> {
    let store = args.storage.open(config).await?;
    let names = match &args.name {
        Some(name) => vec![name.trim_matches('/').to_owned()],
        None => all_names(store.as_ref()).await?,
    };
    let together = if args.all { TOGETHER } else { 1 };
    let parallelism = args.parallelism.get().div_ceil(together);
    let options = VerifyOptions {
        deep: args.deep,
        parallelism: NonZeroUsize::new(parallelism).unwrap_or(NonZeroUsize::MIN),
        ..VerifyOptions::default()
    };
    let bar = progress_bar("verifying", 0);
    let verified = names.iter().map(|name| {
        let (store, bar) = (&store, bar.clone());
        async move { verify(store, name, &options, args.fix, bar).await }
    });
    let mut verified = futures_util::stream::iter(verified).buffered(together);
    let mut outcome = Outcome::default();
    for name in &names {
        let verified = verified.next().await.expect("one result for each name");
        let verified = match verified {
            Ok(verified) => verified,
            // The others can be looked at all the same.
            Err(error) if args.all => {
                outcome.fail(name, error, args.json);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        outcome.count(&verified);
        match args.json {
            true => outcome.documents.push(verified.to_json()),
            false => bar.suspend(|| print(&verified.to_text(&store.url())))?,
        }
    }
    bar.finish_and_clear();
    if args.json {
        let documents = std::mem::take(&mut outcome.documents);
        let document = match args.all {
            true => json!({ "url": store.url(), "databases": documents }),
            false => documents.into_iter().next().unwrap_or_default(),
        };
        print_json(&document)?;
    } else if names.is_empty() {
        print(&format!("there are no databases in {}\n", store.url()))?;
    }
    outcome.result(names.is_empty())
}

async fn all_names(store: &dyn ObjectStore) -> Result<Vec<String>, Error> {
    let listing = walrust_history::patiently(|| store.list("", None)).await?;
    Ok(database_names(listing.iter().map(|entry| entry.key.as_str())))
}

/// A history that was looked at, and what was repaired.
struct Verified {
    verification: Verification,
    repaired: Vec<Finding>,
}

async fn verify(
    store: &Arc<dyn ObjectStore>,
    name: &str,
    options: &VerifyOptions,
    fix: bool,
    bar: ProgressBar,
) -> Result<Verified, HistoryError> {
    let verify = Verify::begin(store.as_ref(), name).await?;
    bar.inc_length(verify.size());
    let mut verification = verify.run(store, options, move |read| bar.inc(read)).await?;
    let repaired = match fix {
        true => verification.repair_index(store.as_ref()).await?,
        false => Vec::new(),
    };
    Ok(Verified { verification, repaired })
}

/// What came of all databases.
#[derive(Default)]
struct Outcome {
    warnings: usize,
    critical: usize,
    remedies: BTreeSet<Remedy>,
    failure: Option<HistoryError>,
    documents: Vec<Value>,
}

impl Outcome {
    fn count(&mut self, verified: &Verified) {
        // What had to be repaired is not passed over in silence.
        self.warnings += verified.repaired.len();
        self.remedies.extend(verified.verification.remedy());
        for finding in &verified.verification.findings {
            match finding.problem.severity() {
                Severity::Warning => self.warnings += 1,
                Severity::Critical => self.critical += 1,
            }
        }
    }

    fn fail(&mut self, name: &str, error: HistoryError, as_json: bool) {
        match as_json {
            true => self.documents.push(json!({ "name": name, "error": error.to_string() })),
            false => eprintln!("{name} could not be verified: {error}"),
        }
        self.failure.get_or_insert(error);
    }

    fn result(self, found_nothing: bool) -> Result<(), Error> {
        let Self { warnings, mut critical, mut remedies, failure, .. } = self;
        if found_nothing {
            // Where backups are expected, their absence is the worst that can be found.
            critical = 1;
            remedies.insert(Remedy::OtherPlace);
        }
        match failure {
            Some(error) if critical == 0 => Err(error.into()),
            _ if critical + warnings > 0 => Err(Error::Findings { warnings, critical, remedies }),
            _ => Ok(()),
        }
    }
}

impl Verified {
    /// The findings about each object.
    fn by_key(&self) -> BTreeMap<&str, Vec<&Finding>> {
        let mut by_key: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
        for finding in &self.verification.findings {
            by_key.entry(&finding.key).or_default().push(finding);
        }
        by_key
    }

    /// Files that are as they should be, the manifest included, and all that were looked at.
    fn counts(&self) -> (usize, usize) {
        let by_key = self.by_key();
        let Verification { name, files, .. } = &self.verification;
        let manifest = self.verification.has_manifest().then(|| manifest_key(name));
        let keys = files.iter().map(|file| file.key.as_str()).chain(manifest.as_deref());
        let all = keys.clone().count();
        (keys.filter(|key| !by_key.contains_key(key)).count(), all)
    }

    fn to_text(&self, url: &str) -> String {
        let Verification { name, files, head, .. } = &self.verification;
        let (snapshots, incrementals): (Vec<&StoredFile>, Vec<&StoredFile>) =
            files.iter().partition(|file| file.name.is_snapshot());
        let mut text = format!("Verifying backup: {name} in {url}...\n");
        for file in snapshots {
            let (min, max) = (file.name.min.get(), file.name.max.get());
            text += &format!("Snapshot: TXID {min}-{max}, {} bytes\n", file.size);
        }
        text += &format!("Incremental files: {} files\n", incrementals.len());
        let mut by_key = self.by_key();
        for file in files {
            match by_key.remove(file.key.as_str()) {
                None => {
                    let txids = file.name.max.get() - file.name.min.get() + 1;
                    let size = human_bytes(file.size);
                    text += &format!("  OK {} ({txids} TXIDs, {size})\n", file.name);
                }
                Some(findings) => text += &lines(&file.name.to_string(), &findings),
            }
        }
        for (key, findings) in by_key {
            text += &lines(key, &findings);
        }
        for Finding { key, problem } in &self.repaired {
            text += &format!("  FIXED {key}: {problem}\n");
        }
        let (sound, all) = self.counts();
        let size = human_bytes(self.verification.size());
        text += &format!("Verified: {sound}/{all} files ({size} total)\n");
        let is_critical = self.verification.severity() == Some(Severity::Critical);
        text += &match head {
            Some(head) if !is_critical => format!("Continuity: no gaps (TXID 1-{})\n", head.get()),
            _ => "Continuity: broken\n".to_owned(),
        };
        text + &self.verdict() + "\n"
    }

    fn verdict(&self) -> String {
        let Verification { lost, head, .. } = &self.verification;
        let verdict = match self.verification.severity() {
            Some(Severity::Critical) => "CRITICAL - not every state can be restored",
            Some(Severity::Warning) => "Warnings only - every state can be restored",
            None if self.repaired.is_empty() => "All checks passed - backup integrity verified",
            None => "All findings were repaired - backup integrity verified",
        };
        let Some(lost) = lost else { return verdict.to_owned() };
        let newest = head.map_or("no state can be restored".to_owned(), |head| {
            format!("the newest state that can be restored is TXID {head} ({})", head.get())
        });
        let lost = format!(
            "LOST - the newest states, up to TXID {lost} ({}), are gone from storage; {newest}",
            lost.get()
        );
        match self.verification.severity() {
            Some(Severity::Critical) => format!("{lost}\n{verdict}"),
            _ => lost,
        }
    }

    fn to_json(&self) -> Value {
        let Verification { name, layout, files, findings, head, lost, .. } = &self.verification;
        let by_key = self.by_key();
        let finding = |it: &Finding| {
            json!({
                "key": it.key,
                "severity": severity(it),
                "message": it.problem.to_string(),
            })
        };
        let file = |file: &StoredFile| {
            json!({
                "key": file.key,
                "min_txid": file.name.min.to_string(),
                "max_txid": file.name.max.to_string(),
                "snapshot": file.name.is_snapshot(),
                "size": file.size,
                "ok": !by_key.contains_key(file.key.as_str()),
            })
        };
        let result = match self.verification.severity() {
            None if lost.is_some() => "warnings",
            None => "passed",
            Some(Severity::Warning) => "warnings",
            Some(Severity::Critical) => "critical",
        };
        json!({
            "name": name,
            "layout": layout.to_string(),
            "result": result,
            "newest_txid": head.map(|txid| txid.to_string()),
            "lost_txid": lost.map(|txid| txid.to_string()),
            "size": self.verification.size(),
            "files": files.iter().map(file).collect::<Vec<_>>(),
            "findings": findings.iter().map(finding).collect::<Vec<_>>(),
            "repaired": self.repaired.iter().map(finding).collect::<Vec<_>>(),
        })
    }
}

fn lines(what: &str, findings: &[&Finding]) -> String {
    let line =
        |it: &&Finding| format!("  {} {what}: {}\n", severity(it).to_uppercase(), it.problem);
    findings.iter().map(line).collect()
}

fn severity(finding: &Finding) -> &'static str {
    match finding.problem.severity() {
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}
