use std::fs;

use super::*;

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
    for text in ["", "soon", "-5s", "-1", "5 parsecs", "NaN", "inf"] {
        assert!(parse_interval(text).is_err(), "{text}");
    }
}

#[test]
fn the_documented_file_holds_every_key_with_its_default() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/walrust.toml");
    let config = load(Some(&file)).unwrap();
    assert_eq!(config.s3.conditional_writes, Some(ConditionalWrites::Auto));
    let sync = config.sync;
    assert_eq!(sync.wal_sync_interval, Some(Interval(SyncDefaults::WAL_SYNC_INTERVAL)));
    assert_eq!(sync.checkpoint_interval, Some(Interval(SyncDefaults::CHECKPOINT_INTERVAL)));
    assert_eq!(sync.min_checkpoint_page_count, Some(SyncDefaults::MIN_CHECKPOINT_PAGES));
    let retry = walrust_engine::RetryPolicy::default();
    assert_eq!(config.retry.max_retries, Some(retry.max_retries));
    assert_eq!(config.retry.base_delay_ms.map(Duration::from_millis), Some(retry.base_delay));
    assert_eq!(config.retry.max_delay_ms.map(Duration::from_millis), Some(retry.max_delay));
    assert_eq!(config.limits.upload_concurrency, Some(SyncDefaults::UPLOAD_CONCURRENCY));
    let text = fs::read_to_string(file).unwrap();
    for key in ["bucket", "endpoint", "region", "path_style", "path", "prefix"] {
        assert!(text.contains(&format!("{key} = ")), "{key} is not documented");
    }
}
