use std::fs;
use std::time::Duration;

use super::*;
use crate::resolver::Resolver;
use crate::settings::Typed;

fn load_text(text: &str) -> Result<Config, Error> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("walrust.toml");
    fs::write(&file, text).unwrap();
    load(Some(&file))
}

fn problem(text: &str) -> String {
    match load_text(text) {
        Err(error @ Error::ConfigFile { .. }) => error.to_string(),
        other => panic!("expected a problem with the file, got {other:?}"),
    }
}

#[test]
fn every_key_is_read() {
    let config = load_text(
        r#"
        [s3]
        bucket = "s3://my-bucket/backups"
        endpoint = "http://127.0.0.1:9000"
        region = "eu-west-1"
        path_style = true
        conditional_writes = "off"

        [sync]
        wal_sync_interval = "250ms"
        checkpoint_interval = 30
        min_checkpoint_page_count = 500

        [retry]
        max_retries = 7
        base_delay_ms = 50
        max_delay_ms = 10000

        [limits]
        upload_concurrency = 4

        [[databases]]
        path = "/data/app.db"
        prefix = "production"
        checkpoint_interval = "5m"
        "#,
    )
    .unwrap();
    assert_eq!(config.sync.wal_sync_interval, Some(Interval(Duration::from_millis(250))));
    assert_eq!(config.sync.checkpoint_interval, Some(Interval(Duration::from_secs(30))));
    assert_eq!(config.s3.conditional_writes, Some(ConditionalWrites::Off));
    assert_eq!(config.retry.max_retries, Some(7));
    assert_eq!(config.limits.upload_concurrency, Some(4));
    let database = &config.databases[0];
    assert_eq!(database.prefix.as_deref(), Some("production"));
    let sync = database.sync().or(&config.sync);
    assert_eq!(sync.checkpoint_interval, Some(Interval(Duration::from_secs(300))));
    assert_eq!(sync.min_checkpoint_page_count, Some(500));
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_nearest() {
    let text = problem("[sync]\nwal_sync_intervall = 1\n");
    assert!(text.contains("did you mean `wal_sync_interval`?"), "{text}");
    let text = problem("[[databases]]\npath = \"/a.db\"\nprefx = \"x\"\n");
    assert!(text.contains("did you mean `prefix`?"), "{text}");
    let text = problem("[encryption]\nkey = 1\n");
    assert!(text.contains("encryption"), "{text}");
}

#[test]
fn wrong_values_name_their_key() {
    let text = problem("[sync]\nwal_sync_interval = \"soon\"\n");
    assert!(text.contains("sync.wal_sync_interval") && text.contains("30s"), "{text}");
    let text = problem("[retry]\nmax_retries = \"many\"\n");
    assert!(text.contains("retry.max_retries"), "{text}");
    let text = problem("[sync]\nwal_sync_interval = -1\n");
    assert!(text.contains("sync.wal_sync_interval"), "{text}");
}

#[test]
fn a_named_file_must_exist() {
    let error = load(Some(Path::new("/nonexistent/walrust.toml"))).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/walrust.toml"));
}

#[test]
fn durations_have_units_or_are_seconds() {
    let parsed = |text| parse_interval(text).unwrap().0;
    assert_eq!(parsed("30"), Duration::from_secs(30));
    assert_eq!(parsed("0.5"), Duration::from_millis(500));
    assert_eq!(parsed("30s"), Duration::from_secs(30));
    assert_eq!(parsed("5m"), Duration::from_secs(300));
    assert_eq!(parsed("1h"), Duration::from_secs(3600));
    assert_eq!(parsed("200ms"), Duration::from_millis(200));
    assert_eq!(parsed("7d"), Duration::from_secs(7 * 86_400));
    assert_eq!(parsed("1w 2d 30m"), Duration::from_secs(9 * 86_400 + 1800));
    for text in ["", "soon", "-5s", "-1", "5 parsecs", "NaN"] {
        assert!(parse_interval(text).is_err(), "{text}");
    }
}

#[test]
fn e01_nobody_waits_for_longer_than_a_hundred_years() {
    assert_eq!(parse_interval("876600h").unwrap().0, Interval::LONGEST);
    assert_eq!(parse_interval("3155760000").unwrap().0, Interval::LONGEST);
    let huge = "9223372036854775807";
    for text in ["876600h 1s", "36526d", "3155760001", huge, "1e300", "inf"] {
        let error = parse_interval(text).unwrap_err();
        assert!(error.contains("100 years"), "{text}: {error}");
    }
    for value in ["\"876601h\"", "3155760001", "1e300", huge] {
        let text = problem(&format!("[sync]\nsnapshot_interval = {value}\n"));
        assert!(text.contains("line 2") && text.contains("100 years"), "{value}: {text}");
    }
    for key in ["base_delay_ms", "max_delay_ms", "circuit_breaker_cooldown_ms"] {
        let text = problem(&format!("[retry]\n{key} = {huge}\n"));
        assert!(text.contains("line 2") && text.contains("100 years"), "{key}: {text}");
    }
}

/// The keys of a schema: names of tables and keys, an array of tables as its entries.
fn keys_of(
    schema: &serde_json::Value,
    of: &serde_json::Value,
    prefix: &str,
    keys: &mut Vec<String>,
) {
    let of = match of.get("$ref").or_else(|| of.pointer("/items/$ref")) {
        Some(reference) => {
            let name = reference.as_str().unwrap().trim_start_matches("#/$defs/");
            &schema["$defs"][name]
        }
        None => of,
    };
    match of.get("properties").and_then(|it| it.as_object()) {
        Some(properties) => {
            for (name, of) in properties {
                keys_of(schema, of, &format!("{prefix}.{name}"), keys);
            }
        }
        None => keys.push(prefix.trim_start_matches('.').to_owned()),
    }
}

fn all_keys() -> Vec<String> {
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    let mut keys = Vec::new();
    keys_of(&schema, &schema, "", &mut keys);
    keys
}

#[test]
fn the_documented_file_holds_every_key_with_its_default() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/walrust.toml");
    let documented = Resolver::default().resolve(&read(&file).unwrap(), &Typed::default());
    let defaults = Resolver::default().resolve(&Config::default(), &Typed::default());
    assert_eq!(format!("{:?}", documented.unwrap()), format!("{:?}", defaults.unwrap()));
    let text = fs::read_to_string(file).unwrap();
    let keys = all_keys();
    assert!(keys.len() > 40, "{keys:?}");
    for key in keys {
        let name = key.rsplit('.').next().unwrap();
        assert!(text.contains(&format!("{name} = ")), "{key} is not documented");
    }
}

/// Another value for each key than its default, and where it is to be seen.
const CHANGES: &[(&str, &str)] = &[
    ("databases.path", "\"/elsewhere.db\""),
    ("databases.prefix", "\"other\""),
    ("limits.bytes_in_flight", "\"1MiB\""),
    ("limits.requests_per_second", "7"),
    ("limits.requests_per_second_per_database", "7"),
    ("limits.snapshots_at_once", "7"),
    ("limits.upload_concurrency", "7"),
    ("limits.validation_bytes_per_second", "7"),
    ("retention.daily", "9"),
    ("retention.hourly", "9"),
    ("retention.monthly", "9"),
    ("retention.weekly", "9"),
    ("retry.base_delay_ms", "7"),
    ("retry.circuit_breaker_cooldown_ms", "7"),
    ("retry.circuit_breaker_enabled", "false"),
    ("retry.circuit_breaker_threshold", "7"),
    ("retry.max_delay_ms", "7"),
    ("retry.max_retries", "7"),
    ("state.dir", "\"/state\""),
    ("sync.checkpoint_interval", "7"),
    ("sync.compact_after_snapshot", "true"),
    ("sync.compact_interval", "7"),
    ("sync.max_changes", "7"),
    ("sync.max_interval", "7"),
    ("sync.min_checkpoint_page_count", "7"),
    ("sync.on_idle", "7"),
    ("sync.on_startup", "true"),
    ("sync.snapshot_interval", "7"),
    ("sync.validation_interval", "7"),
    ("sync.wal_limit_pages", "7"),
    ("sync.wal_pin", "\"connection\""),
    ("sync.wal_sync_interval", "7"),
    ("sync.wal_truncate_threshold_pages", "7"),
    ("webhooks.events", "[\"heartbeat\"]"),
    ("webhooks.heartbeat_interval", "7"),
    ("webhooks.secret", "\"text\""),
    ("webhooks.url", "\"https://other\""),
];

/// Keys that do not concern the supervision tree: tests of the program show what they do.
const ELSEWHERE: &[&str] = &[
    "control.socket",
    "s3.bucket",
    "s3.conditional_writes",
    "s3.endpoint",
    "s3.path_style",
    "s3.region",
    "state.keep_deleted",
];

fn settings_of(text: &str) -> String {
    let config = load_text(text).unwrap();
    let settings = Resolver::default().resolve(&config, &Typed::default()).unwrap().settings;
    let secrets: Vec<_> = settings
        .webhooks
        .iter()
        .map(|it| (it.url.clone(), it.secret.as_ref().map(|it| it.reveal().to_owned())))
        .collect();
    format!("{settings:?} {secrets:?}")
}

#[test]
fn e01_every_key_has_an_effect() {
    let base = "[[databases]]\npath = \"/a.db\"\n[[webhooks]]\nurl = \"https://a\"\n";
    let before = settings_of(base);
    let mut left = all_keys();
    left.retain(|key| !ELSEWHERE.contains(&key.as_str()));
    for (key, value) in CHANGES {
        let (table, name) = key.rsplit_once('.').unwrap();
        let text = match *key {
            "databases.path" => base.replace("\"/a.db\"", value),
            "webhooks.url" => base.replace("\"https://a\"", value),
            _ if base.contains(&format!("[[{table}]]")) => {
                base.replace(&format!("[[{table}]]\n"), &format!("[[{table}]]\n{name} = {value}\n"))
            }
            _ => format!("{base}[{table}]\n{name} = {value}\n"),
        };
        assert_ne!(settings_of(&text), before, "{key} has no effect");
        left.retain(|known| known != key);
        if ["sync", "retention"].contains(&table) {
            let text =
                base.replace("[[databases]]\n", &format!("[[databases]]\n{name} = {value}\n"));
            assert_ne!(settings_of(&text), before, "{key} of one database has no effect");
            left.retain(|known| *known != format!("databases.{name}"));
        }
    }
    assert_eq!(left, Vec::<String>::new(), "keys of which no test shows an effect");
}

#[test]
fn the_schema_that_is_checked_in_is_that_of_the_program() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/walrust.schema.json");
    let checked_in: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    assert_eq!(
        checked_in, schema,
        "write it anew: walrust config schema > config/walrust.schema.json"
    );
}

#[test]
fn e01_problems_are_named_with_their_line() {
    let text = problem("[s3]\nbucket = \"a/b\"\n\n[sync]\nwal_sync_intervall = 1\n");
    assert!(text.contains("line 5") && text.contains("did you mean"), "{text}");
    let text = problem("[[databases]]\npath = \"/a.db\"\n[[databases]]\npath = 7\n");
    assert!(text.contains("line 4"), "{text}");
    let text = problem("[sync\n");
    assert!(text.contains("line 1") || text.contains("1:"), "{text}");
}

#[test]
fn e01_lines_are_those_of_toml_however_it_is_written() {
    for (line, text) in [
        (1, "sync = { wal_sync_intervall = 1 }\n"),
        (2, "# [retry]\nsync.wal_sync_intervall = 1\n"),
        (3, "[\"sync\"] # a table\n\n  'wal_sync_intervall' = 1\n"),
        (
            5,
            "[s3]\nbucket = \"\"\"\n[sync]\"\"\"\n[sync]\nwal_sync_intervall = 1\n"
                .replacen("\n[sync]\"", "[sync]\\\n\"", 1)
                .as_str(),
        ),
    ] {
        let text = problem(text);
        assert!(text.contains(&format!("line {line}:")), "line {line}: {text}");
    }
}

#[test]
fn e04_errors_do_not_repeat_secrets() {
    let webhook = "[[webhooks]]\nurl = \"https://a/token\"\n";
    let text = problem("[[webhooks]]\nurl = \"https://exa mple.com/token\"\n");
    assert!(!text.contains("token") && text.contains("line 2"), "{text}");
    for wrong in [
        "secret = \"hush\nmore\"",
        "secret = hush",
        "secret = 1234567",
        "secret = [\"hush\"]",
        "secret = \"hush\"\nsecret = \"hush\"",
    ] {
        let text = problem(&format!("{webhook}{wrong}\n"));
        for hidden in ["hush", "1234567", "token"] {
            assert!(!text.contains(hidden), "{wrong}: {text}");
        }
        assert!(text.contains("line "), "{text}");
    }
    let secret = load_text(&format!("{webhook}secret = \"hush\"\n")).unwrap();
    assert!(!format!("{secret:?}").contains("hush"));
}

#[test]
fn e11_what_is_not_built_is_not_accepted() {
    for text in [
        "[metrics]\nport = 1\n",
        "[telemetry]\n",
        "[encryption]\nkey = \"k\"\n",
        "[[databases]]\npath = \"/a.db\"\nencryption = true\n",
    ] {
        let problem = problem(text);
        assert!(problem.contains("unknown key") && problem.contains("line "), "{problem}");
        assert!(!problem.contains("did you mean"), "{problem}");
    }
}

#[test]
fn e01_values_that_cannot_work_are_named_with_their_line() {
    for (text, line, phrase) in [
        ("[s3]\nbucket = \"gs://bucket\"\n", 2, "s3.bucket"),
        ("[s3]\nregion = \"x\"\nendpoint = \"localhost:9000\"\n", 3, "s3.endpoint"),
        ("[limits]\nupload_concurrency = 0\n", 2, "limits.upload_concurrency"),
        ("[limits]\nsnapshots_at_once = 0\n", 2, "limits.snapshots_at_once"),
        ("[state]\nkeep_deleted = \"59s\"\n", 2, "state.keep_deleted"),
        ("[retry]\ncircuit_breaker_threshold = 0\n", 2, "circuit_breaker_enabled"),
        ("[[webhooks]]\nurl = \"example.com\"\n", 2, "webhooks.0.url"),
        ("[[webhooks]]\nurl = \"https://\"\n", 2, "webhooks.0.url"),
        ("[[webhooks]]\nurl = \"https://exa mple.com/x\"\n", 2, "webhooks.0.url"),
        ("[[webhooks]]\nurl = \"https://a\"\nevents = [\"sync_faild\"]\n", 3, "`sync_failed`"),
        ("[[databases]]\npath = \"/a/**b/*.db\"\n", 2, "databases.0.path"),
        ("[[databases]]\npath = \"\"\n", 2, "databases.0.path"),
        ("[[databases]]\npath = \"/a.db\"\n[[databases]]\npath = \"/./a.db\"\n", 4, "line 2"),
        ("[[databases]]\npath = \"/a.db\"\nprefix = \"a//b\"\n", 3, "databases.0.prefix"),
    ] {
        let problem = problem(text);
        assert!(problem.contains(&format!("line {line}:")), "{text}: {problem}");
        assert!(problem.contains(phrase), "{text}: {problem}");
    }
    let all = problem("[limits]\nupload_concurrency = 0\nsnapshots_at_once = 0\n");
    assert!(all.contains("line 2:") && all.contains("line 3:"), "every problem: {all}");
}
