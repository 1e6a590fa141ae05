//! `walrust config`: whether the configuration is valid, what is in force, and its schema.

use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};
use serde_json::{Map, Value, json};
use walrust_actors::WebhookUrl;
use walrust_storage::{ENDPOINT_VARIABLES, REGION_VARIABLES};

use super::keys::KeyArgs;
use super::{aligned, print, print_json, table};
use crate::Error;
use crate::config::{self, Config};
use crate::pattern::is_pattern;
use crate::resolver::{LeftOut, Resolution, Resolver};
use crate::settings::Typed;

/// The file that explains every key, with its default.
const DOCUMENTED: &str = include_str!("../../config/walrust.toml");

/// The keys that are flags as well, and the flags.
const FLAGS: [(&str, &str); 20] = [
    ("s3.bucket", "bucket"),
    ("s3.endpoint", "endpoint"),
    ("sync.wal_sync_interval", "wal_sync_interval"),
    ("sync.checkpoint_interval", "checkpoint_interval"),
    ("sync.min_checkpoint_page_count", "min_checkpoint_pages"),
    ("sync.wal_truncate_threshold_pages", "wal_truncate_threshold"),
    ("sync.snapshot_interval", "snapshot_interval"),
    ("sync.max_changes", "max_changes"),
    ("sync.max_interval", "max_interval"),
    ("sync.on_idle", "on_idle"),
    ("sync.on_startup", "on_startup"),
    ("sync.compact_after_snapshot", "compact_after_snapshot"),
    ("sync.compact_interval", "compact_interval"),
    ("sync.validation_interval", "validation_interval"),
    ("retention.hourly", "retain_hourly"),
    ("retention.daily", "retain_daily"),
    ("retention.weekly", "retain_weekly"),
    ("retention.monthly", "retain_monthly"),
    ("retry.max_retries", "max_retries"),
    ("control.socket", "control_socket"),
];

/// The keys for which the environment of every S3 client counts where the file says nothing.
const VARIABLES: [(&str, [&str; 2]); 2] =
    [("s3.endpoint", ENDPOINT_VARIABLES), ("s3.region", REGION_VARIABLES)];

/// The flags of `watch` that are keys, as they were typed or set in their variables.
#[derive(Clone, Debug)]
struct TypedKeys(Vec<Shown>);

impl Args for TypedKeys {
    fn augment_args(command: Command) -> Command {
        KeyArgs::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        KeyArgs::augment_args_for_update(command)
    }
}

impl FromArgMatches for TypedKeys {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let typed = FLAGS.iter().filter_map(|(key, flag)| {
            let source = match matches.value_source(flag)? {
                ValueSource::CommandLine => format!("--{}", flag.replace('_', "-")),
                ValueSource::EnvVariable => format!("$WALRUST_{}", flag.to_uppercase()),
                _ => return None,
            };
            let text = matches.get_raw(flag)?.next()?.to_string_lossy();
            Some(Shown { key: (*key).to_owned(), value: json!(text), source })
        });
        Ok(Self(typed.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check whether the configuration is valid
    Check {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the values in effect and where each comes from
    Show {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
        /// As `watch` would be started
        #[command(flatten)]
        typed: TypedKeys,
    },
    /// Print the JSON Schema of the configuration file
    Schema,
}

pub(super) fn run(args: ConfigArgs, named: Option<&Path>) -> Result<(), Error> {
    match args.command {
        ConfigCommand::Check { json } => check(named, json),
        ConfigCommand::Show { json, typed } => show(named, typed, json),
        ConfigCommand::Schema => print_json(&schemars::schema_for!(Config)),
    }
}

fn check(named: Option<&Path>, as_json: bool) -> Result<(), Error> {
    let file = config::find(named)?;
    let config = file.as_deref().map_or_else(|| Ok(Config::default()), config::read)?;
    let Resolution { settings, left_out } =
        Resolver::default().resolve(&config, &Typed::default())?;
    let patterns = config.databases.iter().filter(|it| is_pattern(&it.path)).count();
    let databases = settings.databases.len();
    if as_json {
        let left_out = left_out
            .iter()
            .map(|LeftOut { path, error }| json!({ "path": path, "error": error.to_string() }));
        return print_json(&json!({
            "file": file,
            "valid": true,
            "databases": databases,
            "patterns": patterns,
            "left_out": left_out.collect::<Vec<_>>(),
        }));
    }
    for LeftOut { path, error } in left_out {
        eprintln!("warning: {} is not replicated: {error}", path.display());
    }
    print(&match file {
        None => "no configuration file found: all defaults apply\n".to_owned(),
        Some(file) => {
            let file = file.display();
            format!("{file} is valid: {databases} databases, {patterns} patterns\n")
        }
    })
}

/// One key in force.
#[derive(Clone, Debug)]
struct Shown {
    key: String,
    value: Value,
    source: String,
}

fn show(named: Option<&Path>, TypedKeys(typed): TypedKeys, as_json: bool) -> Result<(), Error> {
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
    for (key, variables) in VARIABLES {
        let value = |variable: &&str| std::env::var(variable).ok().filter(|it| !it.is_empty());
        if let Some((variable, value)) =
            variables.iter().find_map(|variable| Some((variable, value(variable)?)))
        {
            set(&mut shown, key.to_owned(), json!(value), format!("${variable}"));
        }
    }
    let place = |key: &str| {
        let path: Vec<_> = key.split('.').map(str::to_owned).collect();
        let line = config::line_of(&text, &path).map_or(String::new(), |line| format!(":{line}"));
        format!("{}{line}", file.as_deref().unwrap_or(Path::new("")).display())
    };
    collect("", &config::parse(&text), &place, &mut shown);
    for Shown { key, value, source } in typed {
        // It wins over the whole file, also over the entries of databases.
        let of_database = key.strip_prefix("sync.").or(key.strip_prefix("retention."));
        if let Some(name) = of_database {
            let is_same = |shown: &&mut Shown| {
                shown.key.starts_with("databases.") && shown.key.rsplit('.').next() == Some(name)
            };
            for shown in shown.iter_mut().filter(is_same) {
                (shown.value, shown.source) = (value.clone(), source.clone());
            }
        }
        set(&mut shown, key, value, source);
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

/// Hides what only walrust and its receivers may know: secrets, all of a webhook but its origin, since
/// the rest often is the secret, and credentials in other URLs.
fn redact(key: &str, value: &mut Value) {
    const HIDDEN: &str = "[redacted]";
    let Value::String(text) = value else { return };
    if key.starts_with("webhooks.") {
        match key.rsplit('.').next() {
            Some("secret") => *text = HIDDEN.to_owned(),
            Some("url") => {
                *text = match WebhookUrl::parse(text) {
                    Ok(url) if url.has_more() => format!("{}/{HIDDEN}", url.origin()),
                    Ok(url) => url.origin(),
                    Err(_) => HIDDEN.to_owned(),
                };
            }
            _ => {}
        }
    } else if let Some((scheme, rest)) = text.split_once("://") {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let Some((_, host)) = host.rsplit_once('@') else { return };
        *text = format!("{scheme}://{HIDDEN}@{host}{path}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_of_watch_that_is_a_key_is_shown() {
        let command = KeyArgs::augment_args(Command::new("watch"));
        let mut flags: Vec<_> = command.get_arguments().map(|it| it.get_id().as_str()).collect();
        let mut shown: Vec<_> = FLAGS.iter().map(|(_, flag)| *flag).collect();
        flags.sort_unstable();
        shown.sort_unstable();
        assert_eq!(shown, flags);
        for (key, _) in FLAGS {
            let name = key.rsplit('.').next().unwrap();
            assert!(DOCUMENTED.contains(&format!("{name} = ")), "{key}");
        }
    }
}
