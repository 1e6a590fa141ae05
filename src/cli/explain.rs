//! `walrust explain`: what `watch` would do, and what it would cost. Starts nothing, writes nothing.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use walrust_actors::Settings;
use walrust_engine::{ChangeRate, Provider};
use walrust_sqlite::check_database;
use walrust_storage::StorageUrl;

use super::watch::KeyArgs;
use super::{print, print_json};
use crate::Error;
use crate::config::{self, Config};
use crate::settings;
use crate::tenants::{Tenants, is_pattern};

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
    /// Whose prices are used [default: as the endpoint tells]
    #[arg(long, value_name = "PROVIDER", value_enum)]
    provider: Option<Prices>,
    /// Commits of each database in an hour
    #[arg(long, value_name = "N", default_value_t = 60.0, value_parser = parse_amount)]
    commits_per_hour: f64,
    /// Bytes that a commit adds to what is stored
    #[arg(long, value_name = "BYTES", default_value_t = 4096.0, value_parser = parse_amount)]
    bytes_per_commit: f64,
    /// Measure sizes and commits of databases that are in storage already; reads their manifests
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
    let settings = settings::resolve(&config, &typed, &mut Tenants::default())?;
    let patterns = config.databases.iter().map(|section| &section.path).chain(&typed.databases);
    let patterns: Vec<PathBuf> = patterns.filter(|path| is_pattern(path)).cloned().collect();
    let bucket = storage.bucket.as_deref().or(config.s3.bucket.as_deref());
    let url: Option<StorageUrl> = bucket.map(str::parse).transpose()?;
    let provider = args.provider.map(Provider::from).or_else(|| {
        let endpoint = storage.endpoint.clone().or_else(|| config.s3.endpoint.clone());
        provider_of(url.as_ref()?, endpoint)
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
    let report = Report {
        file,
        url: url.map(|url| url.to_string()),
        patterns,
        estimate: Estimate::new(&settings, &any, &measured, assumed, provider),
        problems: problems(&settings),
        settings,
    };
    if args.json { print_json(&report.to_json()) } else { print(&report.to_text()) }
}

/// Whose prices apply to a store. A directory has none.
fn provider_of(url: &StorageUrl, endpoint: Option<String>) -> Option<Provider> {
    let StorageUrl::S3 { .. } = url else { return None };
    let variables = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
    let from_environment = || variables.iter().find_map(|name| std::env::var(name).ok());
    Provider::of_endpoint(endpoint.or_else(from_environment).as_deref())
}

/// Why databases cannot be replicated at the moment, by their names.
fn problems(settings: &Settings) -> Vec<(String, String)> {
    let checks = settings.databases.iter().map(|it| (&it.name, check_database(&it.path)));
    checks.filter_map(|(name, check)| Some((name.clone(), check.err()?.to_string()))).collect()
}

fn parse_amount(text: &str) -> Result<f64, String> {
    let amount: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    match amount.is_finite() && amount >= 0.0 {
        true => Ok(amount),
        false => Err(format!("{text} is not an amount")),
    }
}
