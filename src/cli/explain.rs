//! `walrust explain`: what `watch` would do, and what it would cost. Starts nothing, writes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use walrust_actors::Settings;
use walrust_engine::{ChangeRate, Provider};
use walrust_sqlite::check_database;
use walrust_storage::{ENDPOINT_VARIABLES, StorageUrl, check_endpoint};

use super::keys::KeyArgs;
use super::watch::check_start;
use super::{print, print_json};
use crate::Error;
use crate::config::{self, Config};
use crate::pattern::is_pattern;
use crate::resolver::{Resolution, Resolver};
use crate::settings;
use crate::storage_source::StorageSource;

mod estimate;
mod measurement;
mod report;

use estimate::Estimate;
use measurement::{Measured, measure};
use report::Report;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Database files, or patterns in quotes, in addition to those of the configuration file
    #[arg(value_name = "DATABASE")]
    databases: Vec<PathBuf>,
    #[command(flatten)]
    keys: KeyArgs,
    /// Whose prices to use [default: derived from the endpoint]
    #[arg(long, value_name = "PROVIDER", value_enum)]
    provider: Option<Prices>,
    /// Commits per hour of each database
    #[arg(long, value_name = "N", default_value_t = 60.0, value_parser = parse_amount)]
    commits_per_hour: f64,
    /// Bytes that each commit adds to storage
    #[arg(long, value_name = "BYTES", default_value_t = 4096.0, value_parser = parse_amount)]
    bytes_per_commit: f64,
    /// Measure the sizes and commits of databases that are already in storage, from their manifests
    #[arg(long)]
    measure: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// A provider with public prices.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Prices {
    Aws,
    Backblaze,
    Cloudflare,
    Google,
    Tigris,
}

impl From<Prices> for Provider {
    fn from(prices: Prices) -> Self {
        match prices {
            Prices::Aws => Self::Aws,
            Prices::Backblaze => Self::Backblaze,
            Prices::Cloudflare => Self::Cloudflare,
            Prices::Google => Self::Google,
            Prices::Tigris => Self::Tigris,
        }
    }
}

pub(super) async fn run(args: ExplainArgs, file: Option<&Path>) -> Result<(), Error> {
    let file = config::find(file)?;
    let config = file.as_deref().map_or_else(|| Ok(Config::default()), config::read)?;
    let (storage, typed) = args.keys.split(args.databases);
    let Resolution { settings, left_out } = Resolver::default().resolve(&config, &typed)?;
    let patterns = config.databases.iter().map(|section| &section.path).chain(&typed.databases);
    let patterns: Vec<PathBuf> = patterns.filter(|path| is_pattern(path)).cloned().collect();
    let bucket = storage.url(&config);
    let url: Option<StorageUrl> = bucket.as_ref().ok().map(|url| url.parse()).transpose()?;
    let endpoint = endpoint(&storage, &config);
    let provider = args.provider.map(Provider::from);
    let provider = provider.or_else(|| provider_of(url.as_ref()?, endpoint.as_deref()));
    // In the order in which `watch` finds out. A directory has no endpoint.
    let refusal =
        check_start(&settings, patterns.len() + left_out.len()).and(bucket.map(drop)).err();
    let refusal = refusal.map(|error| error.to_string()).or_else(|| match url {
        Some(StorageUrl::S3 { .. }) => check_endpoint(endpoint.as_deref()?).err(),
        _ => None,
    });
    let assumed = ChangeRate {
        commits_per_hour: args.commits_per_hour,
        bytes_per_commit: args.bytes_per_commit,
    };
    let measured = match args.measure {
        true => measure(storage.open(&config).await?.as_ref(), &settings).await?,
        false => Measured::default(),
    };
    let any = settings::of_any_database(&config, &typed);
    let problems = problems(&settings);
    let report = Report {
        file,
        url: url.map(|url| url.to_string()),
        patterns,
        refusal,
        estimate: Estimate::new(&settings, &problems, &any, &measured, assumed, provider),
        problems,
        left_out,
        settings,
    };
    if args.json { print_json(&report.to_json()) } else { print(&report.to_text()) }
}

/// The endpoint of the arguments, else of the configuration, else of the environment, where an empty
/// variable counts as unset.
fn endpoint(storage: &StorageSource, config: &Config) -> Option<String> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let named = storage.endpoint.clone().or_else(|| config.s3.endpoint.clone());
    named.or_else(|| ENDPOINT_VARIABLES.into_iter().find_map(variable))
}

/// Whose prices apply to a store. A directory has none.
fn provider_of(url: &StorageUrl, endpoint: Option<&str>) -> Option<Provider> {
    let StorageUrl::S3 { .. } = url else { return None };
    Provider::of_endpoint(endpoint)
}

/// Why databases cannot be replicated at the moment, by their names.
type Problems = BTreeMap<String, String>;

fn problems(settings: &Settings) -> Problems {
    let checks = settings.databases.iter().map(|it| (&it.name, check_database(&it.path)));
    checks.filter_map(|(name, check)| Some((name.clone(), check.err()?.to_string()))).collect()
}

fn parse_amount(text: &str) -> Result<f64, String> {
    let amount: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    match amount.is_finite() && amount >= 0.0 {
        true => Ok(amount),
        false => Err(format!("{text} must be a number of at least 0")),
    }
}
