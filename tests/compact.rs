//! Keeping a history: what is merged and removed, by the command and by the daemon, and what of it
//! can be restored meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use walrust_ltx::{Decoder, Encoder, FileName, Header, Mode, Txid};
use walrust_storage::Metadata;
use walrust_testkit::{TestDatabase, WriterOptions, WriterProcess, assert_same_database, image};

use crate::small_history::{HEAD, NAME, SmallHistory};
use crate::storage::{Storage, on_both_storages};
use crate::walrust::{PATIENCE, QUICK, Walrust};

on_both_storages!(
    what_is_kept_is_restored_and_continued,
    c06_retention_beside_restores_fails_none_of_them,
);

/// Nothing but what stays in any case.
const LEAST: [&str; 8] = ["--hourly", "0", "--daily", "0", "--weekly", "0", "--monthly", "0"];
const DAY_MS: i64 = 86_400_000;

fn compact(walrust: &Walrust, more: &[&str]) -> Value {
    let arguments = ["compact", NAME, "--json"].into_iter().chain(more.iter().copied());
    walrust.run(arguments).succeeded().json()
}

fn name(min: u64, max: u64) -> FileName {
    let txid = |number| Txid::new(number).expect("TXIDs are from 1 on");
    FileName { min: txid(min), max: txid(max) }
}

/// Decisions by the TXIDs of the files.
fn decisions(result: &Value) -> BTreeMap<(u64, u64), String> {
    let files = result["files"].as_array().expect("a list of files");
    let txid = |file: &Value, field: &str| {
        u64::from_str_radix(file[field].as_str().expect("text"), 16).expect("hex digits")
    };
    let decision = |file: &Value| {
        let text = |field: &str| file[field].as_str().expect("text").to_owned();
        (
            (txid(file, "min_txid"), txid(file, "max_txid")),
            text("decision") + ": " + &text("reason"),
        )
    };
    files.iter().map(decision).collect()
}

#[test]
fn a_dry_run_says_why_and_changes_nothing() {
    let history = SmallHistory::new();
    let dry = compact(&history.walrust, &LEAST);
    assert_eq!((&dry["dry_run"], &dry["done"]), (&json!(true), &Value::Null));
    let into = format!("merge: merged into {}", name(2, 4));
    let expected = [
        ((1, 1), "keep: two snapshots stay in any case"),
        ((1, 4), "keep: latest snapshot"),
        ((2, 2), &into),
        ((3, 3), &into),
        ((4, 4), &into),
        ((5, 5), "keep: leads from one kept snapshot to the next"),
        ((6, 6), "keep: leads to the newest state"),
    ];
    assert_eq!(decisions(&dry), expected.map(|(file, text)| (file, text.to_owned())).into());
    assert_eq!(dry["totals"]["merge"]["files"], 3);

    let arguments = ["prune", NAME].into_iter().chain(LEAST);
    let text = history.walrust.run(arguments).succeeded().stdout;
    for phrase in [into.trim_start_matches("merge: "), "nothing was changed", "merge 3 files"] {
        assert!(text.contains(phrase), "{phrase:?} is not in: {text}");
    }
    assert_eq!(history.storage.keys(""), history.keys());
    // Within a day nothing is old.
    let dry = compact(&history.walrust, &[]);
    assert_eq!(dry["totals"]["keep"]["files"], 7, "{dry:#}");
    assert_eq!(dry["policy"], json!({ "hourly": 24, "daily": 7, "weekly": 12, "monthly": 12 }));
}

fn what_is_kept_is_restored_and_continued(storage: &Storage) {
    let database = TestDatabase::with_history(4096, 1, 20);
    database.run("CREATE TABLE more (x)");
    let walrust = Walrust::on(storage);
    let mut daemon = walrust.watch(&[database.path()]);
    storage.wait_for_txid(&mut daemon, NAME, 1);
    let mut states = BTreeMap::from([(1, database.image())]);
    for txid in 2..=12 {
        database.run("INSERT INTO more VALUES (randomblob(3000))");
        storage.wait_for_txid(&mut daemon, NAME, txid);
        states.insert(txid, database.image());
        if txid == 5 || txid == 9 {
            walrust.snapshot(database.path(), &[]).succeeded();
        }
    }
    daemon.stop();

    let force = [&LEAST[..], &["--force", "--grace", "0"]].concat();
    let result = compact(&walrust, &force);
    assert_eq!(result["problems"], json!([]));
    let left = [name(1, 5), name(1, 9), name(6, 9), name(10, 11), name(12, 12)];
    assert_eq!(storage.ltx_files(NAME), left);
    for txid in [5, 9, 11, 12] {
        let restored = walrust.restored(NAME, &["--txid", &txid.to_string()]);
        assert!(image(&restored) == states[&txid], "TXID {txid} is another state");
    }
    let output = walrust.file("none.db");
    walrust.restore(NAME, &output, &["--txid", "7"]).failed(6, &["(5) of ", "(9) of "]);
    assert_same_database(database.path(), &walrust.restored(NAME, &[]));
    // A second run finds nothing to do.
    assert_eq!(compact(&walrust, &force)["done"]["deleted"], json!([]));

    let mut daemon = walrust.watch(&[database.path()]);
    database.run("INSERT INTO more VALUES (randomblob(3000))");
    storage.wait_for_txid(&mut daemon, NAME, 13);
    daemon.stop();
    assert_eq!(storage.ltx_files(NAME).len(), left.len() + 1, "no snapshot, nothing came back");
    assert_same_database(database.path(), &walrust.restored(NAME, &[]));
}

/// The rows of a result for people: what became of each file.
fn rows(text: &str) -> BTreeMap<String, String> {
    let ending = |line: &str| Some((line.split_once("0000")?.0.trim().to_owned(), line.to_owned()));
    let row = |line: &str| {
        let (what, line) = ending(line)?;
        let name = line[line.find("0000")?..].split_whitespace().next()?.to_owned();
        Some((name, what))
    };
    text.lines().skip(1).filter_map(row).collect()
}

#[test]
fn what_was_done_is_shown_and_not_what_would_be() {
    let history = SmallHistory::new();
    let force = [&["compact", NAME, "--force"], &LEAST[..]].concat();
    let run = |more: &[&str]| {
        let text = history.walrust.run([&force[..], more].concat()).succeeded().stdout;
        assert!(text.contains("RESULT") && !text.contains("DECISION"), "{text}");
        assert!(!text.contains("keep") && !text.contains("merge 3"), "{text}");
        let results = rows(&text);
        (text, results)
    };
    let parts = [name(2, 2), name(3, 3), name(4, 4)].map(|part| part.to_string());
    let (text, results) = run(&[]);
    for part in &parts {
        assert_eq!(results[part], "retired", "{text}");
    }
    assert_eq!(results[&name(2, 4).to_string()], "stored", "{text}");
    assert_eq!(results[&name(6, 6).to_string()], "kept", "{text}");
    assert!(text.contains("kept 4 files") && text.contains("stored 1 merged files"), "{text}");
    assert!(text.contains("; 3 files") && text.contains("deleted 0 files"), "{text}");
    // They still wait.
    let (text, results) = run(&[]);
    assert_eq!(results[&parts[0]], "retired", "{text}");
    assert!(text.contains("stored 0 merged") && text.contains("; 3 files"), "{text}");
    let (text, results) = run(&["--grace", "0"]);
    for part in &parts {
        assert_eq!(results[part], "deleted", "{text}");
    }
    assert!(text.contains("deleted 3 files") && !text.contains("out of the index,"), "{text}");
    let done = compact(&history.walrust, &[&LEAST[..], &["--force"]].concat());
    assert_eq!(done["files"][0]["outcome"], "kept", "{done:#}");
    assert_eq!(compact(&history.walrust, &LEAST)["files"][0]["outcome"], Value::Null);
}

#[test]
fn a_file_that_nothing_leads_to_is_not_said_to_lead_to_the_newest_state() {
    let history = SmallHistory::new();
    for (min, max) in [(3, 3), (5, 5), (6, 6)] {
        history.storage.delete(&history.key(min, max));
    }
    history.walrust.run(["verify", NAME, "--fix"]).reported(2, &["critical"]);
    let unreachable = "keep: inside the finest window, though no file leads to it";
    for policy in [&[][..], &LEAST] {
        assert_eq!(decisions(&compact(&history.walrust, policy))[&(4, 4)], unreachable);
    }
}

#[test]
fn c06_files_that_go_are_deleted_by_a_run_after_the_grace_period() {
    let history = SmallHistory::new();
    let force = [&LEAST[..], &["--force"]].concat();
    let arguments = ["compact", NAME].into_iter().chain(force.iter().copied());
    let text = history.walrust.run(arguments).succeeded().stdout;
    assert!(text.contains("deletes them") && text.contains("3600 s"), "{text}");
    let all = |storage: &Storage| storage.ltx_files(NAME).len();
    assert_eq!(all(&history.storage), 8, "the merged file is there as well");
    let again = compact(&history.walrust, &force);
    assert_eq!((all(&history.storage), &again["done"]["deleted"]), (8, &json!([])));
    let retired = again["files"].as_array().expect("a list of files").iter();
    assert_eq!(retired.filter(|file| file["retired_since"].is_string()).count(), 3);

    // The daemon does not put them back.
    let mut daemon = history.walrust.watch(&[&history.source]);
    walrust_testkit::connect(&history.source, 512)
        .execute_batch("INSERT INTO t (x) VALUES ('seven')")
        .expect("the table is there");
    history.storage.wait_for_txid(&mut daemon, NAME, HEAD + 1);
    daemon.stop();
    let manifest: Value =
        serde_json::from_slice(&history.storage.read(&history.manifest())).expect("JSON");
    assert_eq!(manifest["retired"].as_array().map(Vec::len), Some(3), "{manifest:#}");

    let done = compact(&history.walrust, &[&force[..], &["--grace", "0"]].concat());
    assert_eq!(done["done"]["deleted"].as_array().map(Vec::len), Some(5), "{done:#}");
    assert_same_database(&history.source, &history.walrust.restored(NAME, &[]));
}

/// Gives the states of a history other times, with everything that follows from them.
fn date(history: &SmallHistory, ages_ms: impl Fn(u64) -> i64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let now_ms = i64::try_from(now.as_millis()).expect("a clock before the year 292 million");
    let mut manifest: Value =
        serde_json::from_slice(history.bytes(&history.manifest())).expect("JSON");
    let entries = manifest["files"].as_array_mut().expect("a list of files");
    for (file, entry) in history.storage.ltx_files(NAME).iter().zip(entries) {
        let key = format!("{NAME}/{file}");
        let mut decoder = Decoder::new(history.bytes(&key), Mode::Strict).expect("a file of ours");
        let timestamp_ms = now_ms - ages_ms(file.max.get());
        let header = Header { timestamp_ms, ..decoder.header().clone() };
        let mut page = vec![0; header.page_size.bytes()];
        let mut encoder = Encoder::new(Vec::new(), header).expect("a header of ours");
        while let Some(pgno) = decoder.next_page(&mut page).expect("a file of ours") {
            encoder.page(pgno, &page).expect("a page of ours");
        }
        let trailer = decoder.finish().expect("a file of ours");
        let (bytes, _) = encoder.finish(trailer.post_apply).expect("a file of ours");
        let sha256 = walrust_sqlite::hex(&Sha256::digest(&bytes));
        let time = jiff::Timestamp::from_millisecond(timestamp_ms).expect("a time of this age");
        entry["created"] = json!(format!("{time:.3}"));
        entry["sha256"] = json!(sha256);
        let mut metadata = history.metadata(&key).clone();
        metadata.insert("sha256".to_owned(), sha256);
        history.storage.write(&key, &bytes, &metadata);
    }
    let bytes = serde_json::to_vec(&manifest).expect("JSON");
    history.storage.write(&history.manifest(), &bytes, &Metadata::new());
}

#[test]
fn ages_come_from_the_times_of_the_states() {
    let history = SmallHistory::new();
    // Two snapshots, of four months and of three days ago.
    date(&history, |txid| match txid {
        1 => 120 * DAY_MS,
        2 => 119 * DAY_MS,
        3 => 5 * DAY_MS,
        4 => 3 * DAY_MS,
        5 => 2 * DAY_MS,
        _ => 1000,
    });
    let result = decisions(&compact(&history.walrust, &[]));
    assert!(result[&(1, 1)].starts_with("keep: monthly of "), "{result:?}");
    let latest = &result[&(1, 4)];
    assert!(latest.contains("daily of") && latest.contains("weekly of"), "{result:?}");
    for txid in 2..=4 {
        assert_eq!(result[&(txid, txid)], format!("merge: merged into {}", name(2, 4)));
    }
    let daily_only =
        compact(&history.walrust, &["--daily", "2", "--weekly", "0", "--monthly", "0"]);
    assert_eq!(decisions(&daily_only)[&(1, 1)], "keep: two snapshots stay in any case");

    // The configuration says what the flags do not.
    history.walrust.configure("[retention]\nhourly = 60\nmonthly = 3\n");
    let configured = compact(&history.walrust, &["--weekly", "9"]);
    let expected = json!({ "hourly": 60, "daily": 7, "weekly": 9, "monthly": 3 });
    assert_eq!(configured["policy"], expected);
    let path = history.source.display();
    let entry =
        format!("[[databases]]\npath = \"{path}\"\nhourly = 1\ncompact_interval = \"2m\"\n");
    history.walrust.configure(&format!("{entry}[retention]\nhourly = 60\n"));
    let configured = compact(&history.walrust, &[]);
    assert_eq!(
        (&configured["policy"]["hourly"], &configured["grace_seconds"]),
        (&json!(1), &json!(120.0))
    );

    let force = ["--force", "--grace", "0"];
    compact(&history.walrust, &force);
    let times = |file| history.storage.header(NAME, file).timestamp_ms;
    let age_ms = times(name(6, 6)) - times(name(2, 4));
    assert!((age_ms - 3 * DAY_MS).abs() < 60_000, "the time of its last state: {age_ms}");
    assert_same_database(&history.source, &history.walrust.restored(NAME, &[]));
}

#[test]
fn c08_a_damaged_file_is_named_and_stays() {
    let history = SmallHistory::new();
    let key = history.key(3, 3);
    let mut bytes = history.bytes(&key).to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    history.storage.write(&key, &bytes, history.metadata(&key));
    let force = [&LEAST[..], &["--force", "--grace", "0"]].concat();
    let result = compact(&history.walrust, &force);
    let problems = result["problems"].as_array().expect("a list");
    assert!(
        problems.len() == 1 && problems[0].as_str().expect("text").contains(&key),
        "{result:#}"
    );
    assert_eq!(history.storage.ltx_files(NAME).len(), 7, "nothing could be merged around it");
    assert_same_database(&history.source, &history.walrust.restored(NAME, &[]));
}

#[test]
fn c07_without_a_whole_listing_or_a_manifest_nothing_is_touched() {
    let history = SmallHistory::new();
    let force = [&["compact", NAME, "--force", "--grace", "0"], &LEAST[..]].concat();
    let key = history.key(5, 5);
    history.storage.delete(&key);
    let file = name(5, 5).to_string();
    history.walrust.run(&force).failed(5, &["manifest.json lists", &file, "walrust verify --fix"]);
    history.repair();
    history.storage.delete(&history.manifest());
    let phrases =
        ["manifest.json is missing", "walrust verify --fix", "within a minute of its next"];
    history.walrust.run(&force).failed(1, &phrases);
    assert_eq!(history.storage.ltx_files(NAME).len(), 7);
    let peer = format!("peer/0000/{}", name(1, 1));
    history.storage.write(&peer, b"of Litestream", &Metadata::new());
    history
        .walrust
        .run(["compact", "peer", "--force"])
        .failed(1, &["another program", "litestream"]);
    history.walrust.run(["compact", "nobody"]).failed(6, &["no backup named \"nobody\""]);
}

/// How long the daemon and the restores go on; longer with `RETENTION_SECONDS`.
fn duration() -> Duration {
    let seconds = std::env::var("RETENTION_SECONDS").ok();
    let seconds = seconds.map(|text| text.parse().expect("RETENTION_SECONDS is a number"));
    Duration::from_secs(seconds.unwrap_or(6))
}

/// Commits of which less than half must be files: those before the last two snapshots are none.
const ENOUGH: u64 = 300;

fn c06_retention_beside_restores_fails_none_of_them(storage: &Storage) {
    let (_directory, source) = TestDatabase::with_history(4096, 7, 20).close();
    let walrust = Walrust::on(storage);
    let mut arguments = vec![source.display().to_string()];
    arguments.extend(QUICK.map(str::to_owned));
    let keys = ["--compact-interval", "1s", "--compact-after-snapshot", "--max-changes", "40"];
    arguments.extend(keys.map(str::to_owned));
    for tier in ["hourly", "daily", "weekly", "monthly"] {
        arguments.extend([format!("--retain-{tier}"), "0".to_owned()]);
    }
    let mut daemon = walrust.watch_with(&arguments);
    storage.wait_for_manifest(&mut daemon, NAME);
    let options = WriterOptions { commits_per_second: Some(60), ..WriterOptions::default() };
    let mut writer = WriterProcess::spawn(&source, &options);
    writer.wait_for_commit(5, PATIENCE);
    let (began, mut restores) = (Instant::now(), 0);
    let output = walrust.file("restored.db");
    // A busy machine gets so far later.
    while began.elapsed() < duration() || restores <= 5 || writer.commits() < ENOUGH {
        walrust.restore(NAME, &output, &["--force"]).succeeded();
        restores += 1;
    }
    writer.stop();
    daemon.wait_for_line(&["history compacted"]);
    daemon.wait_until("fewer files than half of the states", |_| {
        (storage.ltx_files(NAME).len() as u64) * 2 < storage.head(NAME)
    });
    daemon.stop();
    assert_same_database(&source, &walrust.restored(NAME, &[]));
}
