//! `walrust config`: whether the configuration is valid, what is in force, and its schema.

use std::env;
use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{aligned, print, print_json, table};
use crate::Error;
use crate::config::{self, Config};
use crate::settings::{self, Typed};
use crate::tenants::{Tenants, is_pattern};

/// The file that explains every key, with its default.
const DOCUMENTED: &str = include_str!("../../config/walrust.toml");

/// Environment variables that stand for keys.
const VARIABLES: [(&str, &str); 15] = [
    ("s3.bucket", "WALRUST_BUCKET"),
    ("s3.endpoint", "WALRUST_ENDPOINT"),
    ("sync.wal_sync_interval", "WALRUST_WAL_SYNC_INTERVAL"),
    ("sync.checkpoint_interval", "WALRUST_CHECKPOINT_INTERVAL"),
    ("sync.min_checkpoint_page_count", "WALRUST_MIN_CHECKPOINT_PAGES"),
    ("sync.wal_truncate_threshold_pages", "WALRUST_WAL_TRUNCATE_THRESHOLD"),
    ("sync.snapshot_interval", "WALRUST_SNAPSHOT_INTERVAL"),
    ("sync.max_changes", "WALRUST_MAX_CHANGES"),
    ("sync.max_interval", "WALRUST_MAX_INTERVAL"),
    ("sync.on_idle", "WALRUST_ON_IDLE"),
    ("sync.on_startup", "WALRUST_ON_STARTUP"),
    ("sync.compact_after_snapshot", "WALRUST_COMPACT_AFTER_SNAPSHOT"),
    ("sync.compact_interval", "WALRUST_COMPACT_INTERVAL"),
    ("retry.max_retries", "WALRUST_MAX_RETRIES"),
    ("control.socket", "WALRUST_CONTROL_SOCKET"),
];

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the configuration is valid
    Check,
    /// Print the values in force, and where each comes from
    Show {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of the configuration file
    Schema,
}

pub(super) fn run(args: &ConfigArgs, named: Option<&Path>) -> Result<(), Error> {
    match args.command {
        ConfigCommand::Check => check(named),
        ConfigCommand::Show { json } => show(named, json),
        ConfigCommand::Schema => print_json(&schemars::schema_for!(Config)),
    }
}

fn check(named: Option<&Path>) -> Result<(), Error> {
    let Some(file) = config::find(named)? else {
        return print("there is no configuration file: everything has its default\n");
    };
    let config = config::read(&file)?;
    let settings = settings::resolve(&config, &Typed::default(), &mut Tenants::default())?;
    let patterns = config.databases.iter().filter(|it| is_pattern(&it.path)).count();
    let databases = settings.databases.len();
    let file = file.display();
    print(&format!("{file} is valid: {databases} databases, {patterns} patterns\n"))
}

/// One key in force.
struct Shown {
    key: String,
    value: Value,
    source: String,
}

fn show(named: Option<&Path>, as_json: bool) -> Result<(), Error> {
    let file = config::find(named)?;
    let text = match &file {
        Some(file) => {
            // Only what is valid is in force.
            config::read(file)?;
            let what = format!("cannot read {}", file.display());
            std::fs::read_to_string(file).map_err(|source| Error::Io { what, source })?
        }
        None => String::new(),
    };
    let mut shown = Vec::new();
    collect("", &config::parse(DOCUMENTED), &|_| "default".to_owned(), &mut shown);
    let place = |key: &str| {
        let path: Vec<_> = key.split('.').map(str::to_owned).collect();
        let line = config::line_of(&text, &path).map_or(String::new(), |line| format!(":{line}"));
        format!("{}{line}", file.as_deref().unwrap_or(Path::new("")).display())
    };
    collect("", &config::parse(&text), &place, &mut shown);
    for (key, variable) in VARIABLES {
        if let Some(value) = env::var(variable).ok().filter(|value| !value.is_empty()) {
            set(&mut shown, key.to_owned(), json!(value), format!("${variable}"));
        }
    }
    for shown in &mut shown {
        redact(&shown.key, &mut shown.value);
    }
    if as_json {
        let keys = shown
            .into_iter()
            .map(|Shown { key, value, source }| (key, json!({ "value": value, "source": source })));
        return print_json(&Value::Object(keys.collect::<Map<_, _>>()));
    }
    let mut rows = table(["KEY", "VALUE", "SOURCE"]);
    for Shown { key, value, source } in shown {
        rows.add_row([key, value.to_string(), source]);
    }
    print(&format!("{}\n", aligned(rows, &[])))
}

/// Puts every value of a parsed file in its place; one that is there is replaced.
fn collect(
    prefix: &str,
    table: &Map<String, Value>,
    source: &dyn Fn(&str) -> String,
    shown: &mut Vec<Shown>,
) {
    for (name, leaf) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        descend(&key, leaf, source, shown);
    }
}

fn descend(key: &str, leaf: &Value, source: &dyn Fn(&str) -> String, shown: &mut Vec<Shown>) {
    match leaf {
        Value::Object(inner) => collect(key, inner, source, shown),
        Value::Array(entries) if entries.iter().any(Value::is_object) => {
            for (index, entry) in entries.iter().enumerate() {
                descend(&format!("{key}.{index}"), entry, source, shown);
            }
        }
        leaf => set(shown, key.to_owned(), leaf.clone(), source(key)),
    }
}

fn set(shown: &mut Vec<Shown>, key: String, value: Value, source: String) {
    match shown.iter_mut().find(|known| known.key == key) {
        Some(known) => (known.value, known.source) = (value, source),
        None => shown.push(Shown { key, value, source }),
    }
}

/// Hides what only walrust and its receivers may know: secrets, the paths of webhooks, which often
/// are the secret, and credentials in URLs.
fn redact(key: &str, value: &mut Value) {
    const HIDDEN: &str = "[redacted]";
    let Value::String(text) = value else { return };
    let in_webhook = key.starts_with("webhooks.");
    if in_webhook && key.ends_with(".secret") {
        *text = HIDDEN.to_owned();
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let (host, path) = rest.split_once('/').map_or((rest, None), |(host, it)| (host, Some(it)));
        let shown_host = host.rsplit('@').next().unwrap_or_default();
        let user = if shown_host == host { "" } else { "[redacted]@" };
        let path = match path {
            Some(path) if in_webhook && !path.is_empty() => format!("/{HIDDEN}"),
            Some(path) => format!("/{path}"),
            None => String::new(),
        };
        *text = format!("{scheme}://{user}{shown_host}{path}");
    }
}
