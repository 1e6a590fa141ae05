//! `walrust explain`: it says what the daemon would do and starts nothing.

use std::fs;

use serde_json::Value;
use walrust_testkit::connect;

use crate::small_history::{HEAD, NAME, SmallHistory};
use crate::storage::Storage;
use crate::walrust::{Walrust, names_in};

/// Databases of different kinds, and a configuration for them.
fn configured() -> Walrust {
    let walrust = Walrust::alone();
    for name in ["app", "busy", "tenant1", "tenant2"] {
        let path = walrust.file(&format!("{name}.db"));
        let sql = "CREATE TABLE t (x); INSERT INTO t VALUES (randomblob(20000))";
        connect(&path, 4096).execute_batch(sql).expect("a new database");
    }
    fs::write(walrust.file("text.db"), "no database").expect("the directory is writable");
    let path = |name: &str| walrust.file(name).display().to_string();
    walrust.configure(&format!(
        "[s3]\nbucket = \"s3://backups/prod\"\nendpoint = \"https://fly.storage.tigris.dev\"\n\
         [sync]\nmax_changes = 500\nvalidation_interval = \"24h\"\ncompact_after_snapshot = true\n\
         [[databases]]\npath = \"{}\"\n\
         [[databases]]\npath = \"{}\"\nsnapshot_interval = \"10m\"\nvalidation_interval = 0\nhourly = 48\n\
         [[databases]]\npath = \"{}\"\n\
         [[databases]]\npath = \"{}\"\n\
         [[webhooks]]\nurl = \"https://user:pass@hooks.example.com/services/T0/hush\"\n\
         events = [\"validation_failed\"]\nsecret = \"quiet\"\n",
        path("app.db"),
        path("busy.db"),
        path("text.db"),
        path("tenant*.db"),
    ));
    walrust
}

#[test]
fn it_says_what_would_be_done_with_each_database_and_does_nothing() {
    let walrust = configured();
    let before = walrust.files();
    let text = walrust.ask(["explain"]).succeeded().stdout;
    let sections =
        ["Databases", "Triggers", "Retention", "Validation", "Webhooks", "Estimated monthly cost"];
    let places: Vec<_> = sections.iter().map(|it| text.find(&format!("\n{it}\n"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{text}");
    for phrase in [
        "s3://backups/prod/busy",
        "s3://backups/prod/tenant2",
        "tenant*.db: matching files are picked up",
        "text cannot be replicated at the moment: ",
        "not a SQLite database",
        "4 databases:",
        "busy:",
        "snapshot, if the database changed: 1h after the previous one, after 500 commits",
        "snapshot, if the database changed: 10m after the previous one, after 500 commits",
        "checkpoint of the WAL: 1m after the previous one, at 1000 pages",
        "at most 52 snapshots; every state of the last 24 hours",
        "at most 76 snapshots; every state of the last 48 hours",
        "every 24h, at 16.00 MiB per second",
        "never (set validation_interval)",
        "https://hooks.example.com (signed): validation_failed",
        "TIGRIS",
        "a database of 10 GB",
    ] {
        assert!(text.contains(phrase), "{phrase:?} is not in:\n{text}");
    }
    let json = walrust.ask(["explain", "--json"]).succeeded().stdout;
    for secret in ["hush", "quiet", "pass@", "user:"] {
        assert!(!text.contains(secret) && !json.contains(secret), "{secret} is told");
    }
    assert_eq!(walrust.files(), before, "nothing is written");
}

#[test]
fn the_document_says_the_same() {
    let walrust = configured();
    let document = walrust.ask(["explain", "--json"]).succeeded().json();
    let databases = document["databases"].as_array().unwrap();
    let names: Vec<_> = databases.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["app", "busy", "text", "tenant1", "tenant2"]);
    let size = fs::metadata(walrust.file("app.db")).unwrap().len();
    assert_eq!(databases[0]["size"], size);
    assert_eq!(databases[0]["destination"], "s3://backups/prod/app");
    assert_eq!(databases[0]["problem"], Value::Null);
    assert!(databases[2]["problem"].as_str().unwrap().contains("not a SQLite database"));
    assert_eq!(databases[1]["retention"]["most_snapshots"], 76);
    assert_eq!(document["prices"]["provider"], "Tigris");
    assert_eq!(document["webhooks"][0]["url"], "https://hooks.example.com");
    // What is typed wins, as with `watch`.
    let typed = ["explain", "--json", "--retain-hourly", "1", "--snapshot-interval", "0"];
    let document = walrust.ask(typed).succeeded().json();
    assert_eq!(document["databases"][1]["retention"]["hourly"], 1);
    let triggers = document["databases"][1]["triggers"].to_string();
    assert!(triggers.contains("after 500 commits") && !triggers.contains("10m"), "{triggers}");
}

/// What a database of 10 GB costs in a month.
fn ten_gigabytes(walrust: &Walrust, more: &[&str]) -> Value {
    let document = walrust.ask([&["explain", "--json"], more].concat()).succeeded().json();
    document["examples"]["10 GB"].clone()
}

#[track_caller]
fn assert_near(found: &Value, expected: f64) {
    let found = found.as_f64().expect("a number");
    assert!((found - expected).abs() <= expected * 0.001 + 0.0001, "{found} is not {expected}");
}

#[test]
fn the_cost_is_that_of_a_calculation_by_hand() {
    let walrust = Walrust::alone();
    // One snapshot, and nothing else ever.
    let idle = ["--commits-per-hour", "0", "-b", "s3://b"];
    assert_near(&ten_gigabytes(&walrust, &idle)["cost_usd"]["AWS S3"]["total"], 0.23);
    let tigris = [&idle[..], &["--provider", "tigris"]].concat();
    assert_near(&ten_gigabytes(&walrust, &tigris)["cost_usd"]["Tigris"]["total"], 0.20);

    // A commit a minute, a snapshot an hour of which 52 stay, a day of files, and one merged file for
    // each of 7 days, 12 weeks and 12 months.
    let flags = ["--compact-after-snapshot", "--bytes-per-commit", "1000", "-b", "s3://b"];
    let busy = ten_gigabytes(&walrust, &flags);
    let commits = 24.0 + 7.0 * 24.0 + 12.0 * 168.0 + 12.0 * 730.0;
    let stored = 52.0 * 10e9 + commits * 60.0 * 1000.0;
    assert_near(&busy["stored_bytes"], stored);
    let costs = &busy["cost_usd"]["AWS S3"];
    assert_near(&costs["storage"], stored / 1e9 * 0.023);
    // 10 GB go in parts of 16 MiB; a manifest a minute; a compaction writes one file and two manifests.
    let parts = (10e9_f64 / 16.0 / 1024.0 / 1024.0).ceil() + 2.0;
    assert_near(&busy["puts"], 730.0 * (60.0 + parts + 60.0 + 3.0));
    let requests = costs["requests"].as_f64().unwrap();
    let puts = busy["puts"].as_f64().unwrap() * 0.005 / 1000.0;
    let lists = busy["lists"].as_f64().unwrap() * 0.005 / 1000.0;
    let gets = busy["gets"].as_f64().unwrap() * 0.0004 / 1000.0;
    assert_near(&costs["requests"], puts + lists + gets);
    assert_near(&costs["total"], stored / 1e9 * 0.023 + requests);
}

#[test]
fn a_store_without_known_prices_is_shown_with_those_of_all() {
    let walrust = Walrust::alone();
    let storage = Storage::directory();
    let document = walrust.ask(["explain", "--json", "-b", &storage.url()]).succeeded().json();
    assert_eq!(document["prices"]["provider"], Value::Null);
    assert_eq!(document["total"]["cost_usd"].as_object().unwrap().len(), 5);
    let text = walrust.ask(["explain", "-b", "s3://b", "--endpoint", "http://127.0.0.1:1"]);
    let text = text.succeeded().stdout;
    assert!(text.contains("are not known") && text.contains("BACKBLAZE B2"), "{text}");
    assert!(text.contains("none at the moment"), "{text}");
}

/// Makes the first state of a history two hours older, and returns how many hours it covers then.
fn make_two_hours_longer(history: &SmallHistory) -> f64 {
    let key = history.manifest();
    let mut manifest: Value =
        serde_json::from_slice(&history.storage.read(&key)).expect("the manifest is JSON");
    let files = manifest["files"].as_array_mut().expect("a list of files");
    let time = |file: &Value| -> jiff::Timestamp {
        file["created"].as_str().and_then(|time| time.parse().ok()).expect("a time")
    };
    let earlier = time(&files[0]) - jiff::SignedDuration::from_hours(2);
    let last = files.iter().map(time).max().expect("there are files");
    files[0]["created"] = earlier.to_string().into();
    let bytes = manifest.to_string();
    history.storage.write(&key, bytes.as_bytes(), &walrust_storage::Metadata::new());
    last.duration_since(earlier).as_secs_f64() / 3600.0
}

#[test]
fn databases_in_storage_are_measured() {
    let history = SmallHistory::new();
    let before = names_in(history.source.parent().unwrap());
    let source = history.source.display().to_string();
    let measured = |history: &SmallHistory| {
        let arguments = ["explain", &source, "--measure", "--json"];
        history.walrust.run(arguments).succeeded().json()["databases"][0].clone()
    };
    // It covers a second: that says nothing of an hour.
    let database = measured(&history);
    assert_eq!((&database["name"], &database["measured"]), (&NAME.into(), &false.into()));
    assert_eq!(database["commits_per_hour"], 60.0);
    let hours = make_two_hours_longer(&history);
    let database = measured(&history);
    assert_eq!(database["measured"], true);
    assert_near(&database["commits_per_hour"], (HEAD - 1) as f64 / hours);
    let snapshot = history.bytes(&history.key(1, 4)).len();
    assert_eq!(database["snapshot_bytes"], snapshot as f64);
    assert_eq!(names_in(history.source.parent().unwrap()), before, "nothing is written");
}

#[test]
fn files_that_were_merged_and_not_deleted_yet_are_measured_once() {
    let history = SmallHistory::new();
    let compact = |more: &[&str]| {
        let least = ["--hourly", "0", "--daily", "0", "--weekly", "0", "--monthly", "0", "--force"];
        history.walrust.run([&["compact", NAME], &least[..], more].concat()).succeeded();
    };
    let source = history.source.display().to_string();
    let measured = || {
        let outcome = history.walrust.run(["explain", &source, "--measure", "--json"]);
        outcome.succeeded().json()["databases"][0].clone()
    };
    compact(&[]);
    let hours = make_two_hours_longer(&history);
    let before = (history.storage.keys("").len(), measured());
    assert_near(&before.1["commits_per_hour"], (HEAD - 1) as f64 / hours);
    // What was merged goes, and makes no difference.
    compact(&["--grace", "0"]);
    assert!(history.storage.keys("").len() < before.0);
    assert_eq!(measured(), before.1);
}

#[test]
fn a_database_that_cannot_be_replicated_costs_nothing() {
    let walrust = configured();
    let document = walrust.ask(["explain", "--json"]).succeeded().json();
    let databases = document["databases"].as_array().unwrap();
    assert_eq!(databases[2]["monthly"], Value::Null);
    let puts = |usage: &Value| usage["puts"].as_f64();
    let sum: f64 = databases.iter().filter_map(|it| puts(&it["monthly"])).sum();
    // Each is rounded.
    assert!((puts(&document["total"]).unwrap() - sum).abs() <= 4.0, "{document}");
    let text = walrust.ask(["explain"]).succeeded().stdout;
    assert!(
        text.contains("not included, because they cannot be replicated at the moment: text\n"),
        "{text}"
    );
}

#[test]
fn an_empty_variable_is_no_endpoint() {
    let mut walrust = Walrust::alone();
    let provider = |walrust: &Walrust| {
        let outcome = walrust.ask(["explain", "--json", "-b", "s3://b"]).succeeded();
        outcome.json()["prices"]["provider"].clone()
    };
    walrust.set("AWS_ENDPOINT_URL_S3", "");
    assert_eq!(provider(&walrust), "AWS S3");
    walrust.set("AWS_ENDPOINT_URL", "https://fly.storage.tigris.dev");
    assert_eq!(provider(&walrust), "Tigris");
}

#[test]
fn it_says_that_watch_would_not_start_and_why() {
    let walrust = configured();
    let explained = walrust.ask(["explain", "--json"]).succeeded().json();
    assert_eq!(explained["refusal"], Value::Null);
    walrust.configure("");
    let [app, text] = ["app.db", "text.db"].map(|name| walrust.file(name).display().to_string());
    for (arguments, phrase) in [
        (vec!["-b", "s3://b"], "no databases given"),
        (vec![app.as_str()], "no storage given"),
        (vec![text.as_str(), "missing.db", "-b", "s3://b"], "none of the databases"),
        (vec![app.as_str(), "-b", "s3://b", "--endpoint", "https://me:hush@host"], "credentials"),
    ] {
        let explain = [&["explain"], &arguments[..]].concat();
        let told = walrust.ask(&explain).succeeded().stdout;
        assert!(told.contains("It would not start: ") && told.contains(phrase), "{told}");
        assert!(!told.contains("hush"), "{told}");
        let document = walrust.ask([&explain[..], &["--json"]].concat()).succeeded().json();
        let refusal = document["refusal"].as_str().unwrap();
        let watched = walrust.ask([&["watch"], &arguments[..]].concat());
        assert!(watched.code != Some(0) && watched.stderr.contains(refusal), "{watched:?}");
    }
}

#[test]
fn what_watch_would_refuse_is_refused() {
    let walrust = Walrust::alone();
    walrust.configure("[sync]\nvalidation_intervall = 1\n");
    walrust.ask(["explain"]).failed(2, &["validation_intervall", "validation_interval"]);
    walrust.configure("");
    walrust.ask(["explain", "-b", "gs://bucket"]).failed(2, &["gs://bucket"]);
    walrust.ask(["explain", "--commits-per-hour=-1"]).failed(2, &["commits-per-hour"]);
    walrust.ask(["explain", "--measure"]).failed(2, &["no storage given"]);
}
