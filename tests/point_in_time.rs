//! `restore --point-in-time`: the last state that was there at a time, or what there is on either
//! side of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan};
use rusqlite::Connection;
use serde_json::{Value, json};
use walrust_ltx::{Decoder, Encoder, Header, MergeOptions, Mode, merge};
use walrust_storage::Metadata;
use walrust_testkit::{Prng, connect};

use crate::fault_proxy::FaultProxy;
use crate::small_history::{HEAD, NAME, SmallHistory};
use crate::storage::Storage;
use crate::walrust::{Outcome, Walrust};

/// The time of each state, from the headers of the files.
fn times(storage: &Storage) -> BTreeMap<u64, i64> {
    let files = storage.ltx_files(NAME).into_iter();
    files.map(|file| (file.max.get(), storage.header(NAME, file).timestamp_ms)).collect()
}

fn rfc3339(timestamp_ms: i64) -> String {
    Timestamp::from_millisecond(timestamp_ms).expect("a time of this century").to_string()
}

fn plan_at(walrust: &Walrust, time: &str) -> Outcome {
    walrust.run(["restore", NAME, "--plan", "--json", "--point-in-time", time])
}

/// The TXID of the state that a restore to a time would give.
#[track_caller]
fn txid_at(walrust: &Walrust, timestamp_ms: i64) -> u64 {
    let plan = plan_at(walrust, &rfc3339(timestamp_ms)).succeeded().json();
    u64::from_str_radix(plan["txid"].as_str().expect("a TXID"), 16).expect("hex digits")
}

#[test]
fn c09_each_time_gives_the_last_state_that_was_there() {
    let history = SmallHistory::new();
    let times = times(&history.storage);
    assert_eq!(times.len() as u64, HEAD);
    for has_manifest in [true, false] {
        for (txid, time) in &times {
            assert_eq!(txid_at(&history.walrust, *time), *txid, "to the millisecond");
            if *txid > 1 {
                assert_eq!(txid_at(&history.walrust, *time - 1), *txid - 1);
            }
        }
        if has_manifest {
            history.storage.delete(&history.manifest());
        }
    }
    let output = history.walrust.restored(NAME, &["--point-in-time", &rfc3339(times[&3])]);
    let rows: u32 = Connection::open(output)
        .unwrap()
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 2, "the schema is TXID 1, and each later one a row");
}

#[test]
fn c09_an_idle_database_has_its_newest_state_until_now_and_none_in_the_future() {
    let history = SmallHistory::new();
    let newest = times(&history.storage)[&HEAD];
    for time in ["1ms ago", "0 seconds ago", &Timestamp::now().to_string()] {
        let plan = plan_at(&history.walrust, time).succeeded().json();
        assert_eq!(plan["txid"], "0000000000000006", "{time}");
        assert_eq!(plan["timestamp"], json!(rfc3339_ms(newest)), "{time}");
    }
    let tomorrow = (Timestamp::now() + 24.hours()).to_string();
    let outcome = plan_at(&history.walrust, &tomorrow);
    outcome.failed(6, &["in the future", "TXID 0000000000000006 (6)", &rfc3339_ms(newest)]);
}

fn rfc3339_ms(timestamp_ms: i64) -> String {
    format!("{:.3}", Timestamp::from_millisecond(timestamp_ms).expect("a time of this century"))
}

#[test]
fn c09_a_time_before_the_oldest_state_names_that_state() {
    let history = SmallHistory::new();
    let oldest = times(&history.storage)[&1];
    for time in ["2 hours ago", "10m ago", "3 days ago", "2020-01-01T00:00:00+02:00"] {
        let outcome = plan_at(&history.walrust, time);
        outcome.failed(6, &["begins later", "the oldest", &rfc3339_ms(oldest)]);
    }
    for time in ["10m", "yesterday", "2026-11-23", "2026-11-23T10:00:00", ""] {
        plan_at(&history.walrust, time).failed(2, &["RFC 3339", "10m ago"]);
    }
    let both = ["restore", NAME, "--plan", "--txid", "1", "--point-in-time", "1s ago"];
    history.walrust.run(both).failed(2, &["--txid", "--point-in-time"]);
}

#[test]
fn a_state_that_is_much_older_than_the_time_is_told() {
    let history = SmallHistory::new();
    // The newest file is the only one, and of an hour ago.
    for key in history.keys() {
        if key != history.key(1, 1) {
            history.storage.delete(&key);
        }
    }
    let mut decoder = Decoder::new(history.bytes(&history.key(1, 1)), Mode::Strict).unwrap();
    let now = Timestamp::now().as_millisecond();
    let header = Header { timestamp_ms: now - 3_600_000, ..decoder.header().clone() };
    let mut encoder = Encoder::new(Vec::new(), header.clone()).unwrap();
    let mut page = vec![0; header.page_size.bytes()];
    while let Some(pgno) = decoder.next_page(&mut page).unwrap() {
        encoder.page(pgno, &page).unwrap();
    }
    let (bytes, _) = encoder.finish(decoder.finish().unwrap().post_apply).unwrap();
    history.storage.write(&history.key(1, 1), &bytes, &Metadata::new());
    let restored = |ago: &str| {
        let output = history.walrust.file("out.db");
        let more = ["--force", "--point-in-time", ago];
        history.walrust.restore(NAME, &output, &more).succeeded().stderr
    };
    let told = restored("10m ago");
    for phrase in ["TXID 0000000000000001", &rfc3339_ms(header.timestamp_ms), " min before"] {
        assert!(told.contains(phrase), "{told}");
    }
    assert_eq!(restored("59m ago"), "");
    let json = plan_at(&history.walrust, "10m ago").succeeded().json();
    assert_eq!(json["txid"], "0000000000000001", "the result is one document all the same");
}

/// What the manifest of a history is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Index {
    Whole,
    /// It does not know the newest files yet.
    Older,
    Missing,
    Damaged,
}

/// Replaces the files of TXID 2 and 3 by one that was merged from them.
fn merge_two_and_three(history: &SmallHistory, since: i64, index: Index, metadata: bool) {
    let sources = [history.key(2, 2), history.key(3, 3)];
    let decoder =
        |key: &String| Decoder::new(history.bytes(key), Mode::Strict).expect("a file of walrust");
    let inputs = sources.iter().map(decoder).collect();
    let (bytes, header, _) =
        merge(inputs, Vec::new(), MergeOptions::default()).expect("the files fit together");
    let since = rfc3339_ms(since);
    let kept = metadata.then(|| ("merged-since".to_owned(), since.clone()));
    let key = format!("{NAME}/{}", header.file_name());
    history.storage.write(&key, &bytes, &kept.into_iter().collect());
    for key in &sources {
        history.storage.delete(key);
    }
    match index {
        Index::Missing => return history.storage.delete(&history.manifest()),
        Index::Damaged => {
            return history.storage.write(&history.manifest(), b"{", &Metadata::new());
        }
        Index::Whole | Index::Older => {}
    }
    let manifest = history.bytes(&history.manifest());
    let mut manifest: Value = serde_json::from_slice(manifest).expect("JSON");
    let files = manifest["files"].as_array_mut().expect("a list of files");
    files.retain(|file| file["min"] != "0000000000000002");
    if index == Index::Older {
        files.retain(|file| file["min"] != "0000000000000003");
        let bytes = serde_json::to_vec(&manifest).expect("JSON");
        return history.storage.write(&history.manifest(), &bytes, &Metadata::new());
    }
    let merged = files.iter_mut().find(|file| file["min"] == "0000000000000003");
    let merged = merged.expect("the manifest has every file");
    merged["min"] = json!("0000000000000002");
    merged["size"] = json!(bytes.len());
    merged["sha256"] = json!("");
    merged["merged_since"] = json!(since);
    let bytes = serde_json::to_vec(&manifest).expect("JSON");
    history.storage.write(&history.manifest(), &bytes, &Metadata::new());
}

#[test]
fn c10_a_time_inside_a_merged_file_names_what_there_is_on_either_side() {
    for index in [Index::Whole, Index::Older, Index::Missing, Index::Damaged] {
        let history = SmallHistory::new();
        let times = times(&history.storage);
        merge_two_and_three(&history, times[&2], index, true);
        for inside in [times[&2], times[&3] - 1] {
            let outcome = plan_at(&history.walrust, &rfc3339(inside));
            let before = format!("TXID 0000000000000001 (1) of {}", rfc3339_ms(times[&1]));
            let after = format!("TXID 0000000000000003 (3) of {}", rfc3339_ms(times[&3]));
            outcome.failed(6, &["merged", &before, &after]);
        }
        // Before the first of the merged states nothing is hidden.
        assert_eq!(txid_at(&history.walrust, times[&2] - 1), 1);
        let outcome = history.walrust.run(["restore", NAME, "--plan", "--txid", "2"]);
        outcome.failed(6, &["TXID 0000000000000002 (2)", &rfc3339_ms(times[&3])]);

        let listing = history.walrust.list(NAME);
        let ranges = listing["ranges"].as_array().unwrap();
        let ends: Vec<_> =
            ranges.iter().map(|it| (&it["first_txid"], &it["last_txid"], &it["states"])).collect();
        let (first, third, last) = (hex(1), hex(3), hex(HEAD));
        assert_eq!(ends, [(&first, &first, &json!(1)), (&third, &last, &json!(4))], "{listing:#}");
        assert_eq!(ranges[1]["first_time"], json!(rfc3339_ms(times[&3])));
    }
}

#[test]
fn c10_where_nothing_tells_since_when_files_were_merged_no_time_between_has_an_answer() {
    for index in [Index::Missing, Index::Damaged] {
        let history = SmallHistory::new();
        let times = times(&history.storage);
        merge_two_and_three(&history, times[&2], index, false);
        for inside in [times[&1] + 1, times[&2], times[&3] - 1] {
            plan_at(&history.walrust, &rfc3339(inside)).failed(6, &["merged"]);
        }
        for txid in [1, 3, 4] {
            assert_eq!(txid_at(&history.walrust, times[&txid]), txid);
        }
    }
}

fn hex(txid: u64) -> Value {
    json!(format!("{txid:016x}"))
}

#[test]
fn c10_a_time_whose_files_were_removed_names_what_there_is_on_either_side() {
    let history = SmallHistory::new();
    let times = times(&history.storage);
    for txid in 2..=4 {
        history.storage.delete(&history.key(txid, txid));
    }
    for gone in [times[&2], times[&4] - 1] {
        let outcome = plan_at(&history.walrust, &rfc3339(gone));
        outcome.failed(6, &["removed", &rfc3339_ms(times[&1]), &rfc3339_ms(times[&4])]);
    }
    assert_eq!(txid_at(&history.walrust, times[&4]), 4);
    assert_eq!(txid_at(&history.walrust, times[&5]), 5);
}

#[test]
fn c02_a_time_whose_state_was_lost_is_not_answered_with_an_older_one() {
    let history = SmallHistory::new();
    let times = times(&history.storage);
    history.storage.delete(&history.key(HEAD, HEAD));
    let lost = "0000000000000006-0000000000000006.ltx";
    plan_at(&history.walrust, "0s ago").failed(5, &[lost, "--txid 0000000000000005"]);
    assert_eq!(txid_at(&history.walrust, times[&HEAD] - 1), 5, "it was not there yet");
    history.repair();

    // Nothing leads to the states behind the gap.
    history.storage.delete(&history.key(1, 4));
    history.storage.delete(&history.key(3, 3));
    plan_at(&history.walrust, "0s ago").failed(6, &["gap", &history.key(4, 4)]);
    assert_eq!(txid_at(&history.walrust, times[&2]), 2);
}

#[test]
fn c15_a_merged_file_keeps_the_time_of_its_last_state() {
    let history = SmallHistory::new();
    let before = times(&history.storage);
    let third = history.walrust.restored(NAME, &["--txid", "3"]);
    merge_two_and_three(&history, before[&2], Index::Whole, true);
    let after = times(&history.storage);
    assert_eq!(after[&3], before[&3]);
    assert_eq!(txid_at(&history.walrust, before[&3]), 3);
    assert_eq!(txid_at(&history.walrust, before[&4] - 1), 3);
    let time = rfc3339(before[&3]);
    let merged = history.walrust.restored(NAME, &["--point-in-time", &time]);
    assert!(std::fs::read(third).unwrap() == std::fs::read(merged).unwrap());
}

#[test]
fn c15_a_time_is_found_without_a_request_for_each_file() {
    const FILES: u64 = 60;
    let history = SmallHistory::of("s3", Storage::s3());
    // Only names and headers count: a plan is made of nothing else.
    let header = history.bytes(&history.key(HEAD, HEAD))[..100].to_vec();
    for txid in HEAD + 1..=FILES {
        let mut bytes = header.clone();
        bytes[16..24].copy_from_slice(&txid.to_be_bytes());
        bytes[24..32].copy_from_slice(&txid.to_be_bytes());
        let key = format!("{NAME}/{txid:016x}-{txid:016x}.ltx");
        history.storage.write(&key, &bytes, &Metadata::new());
    }
    let proxy = FaultProxy::start();
    let mut walrust = Walrust::on(&history.storage);
    walrust.set("AWS_ENDPOINT_URL_S3", &proxy.url());
    assert_eq!(txid_at(&walrust, times(&history.storage)[&HEAD]), FILES);
    let requests = proxy.exchanges().len();
    assert!(requests <= 12, "{requests} requests for {FILES} files");
}

/// A commit of the application.
struct Commit {
    begun_ms: i64,
    ended_ms: i64,
}

/// Restores to random times of a history that a daemon has recorded beside a busy application.
/// `WALRUST_PITR_SECONDS=600` makes the history as long, with 200 times.
#[test]
fn c09_random_times_of_a_busy_database_are_states_that_existed() {
    let seconds = std::env::var("WALRUST_PITR_SECONDS").ok().and_then(|text| text.parse().ok());
    let (length, targets) = seconds.map_or((3, 12), |seconds: u64| (seconds, 200));
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("app.db");
    let application = connect(&source, 1024);
    application
        .execute_batch(
            "CREATE TABLE entries (id INTEGER PRIMARY KEY, text);
             CREATE TABLE totals (entries, length); INSERT INTO totals VALUES (0, 0);",
        )
        .unwrap();
    let interval_ms = 100;
    let arguments = ["--wal-sync-interval", "100ms"];
    let mut daemon = walrust.watch_with([&[source.to_str().unwrap()], &arguments[..]].concat());
    storage.wait_for_txid(&mut daemon, NAME, 1);
    let commits = write_for(&application, Duration::from_secs(length));
    drop(application);
    daemon.stop();

    let states = times(&storage);
    let seed = commits[0].begun_ms as u64;
    let mut prng = Prng::new(seed);
    let (first, last) = (commits[0].begun_ms, commits[commits.len() - 1].ended_ms);
    let mut ages = Vec::new();
    for _ in 0..targets {
        let time = first + prng.between(0, (last - first) as u64) as i64;
        let state = states.iter().rev().find(|(_, at)| **at <= time).expect("the base");
        assert_eq!(txid_at(&walrust, time), *state.0, "{time} of seed {seed}");
        let output = walrust.file("then.db");
        walrust.restore(NAME, &output, &["--force", "--point-in-time", &rfc3339(time)]).succeeded();
        let count = entries_of(&output);
        assert!(
            count == 0 || commits[count - 1].begun_ms <= time,
            "{time} of seed {seed}: entry {count} is newer"
        );
        let missing = commits.get(count).map_or(i64::MAX, |missing| missing.ended_ms);
        ages.push(time.saturating_sub(missing));
    }
    // An interval and a commit, and what a busy machine adds: in a short run a single pause of it may
    // be more, and lie between many of the targets.
    ages.sort_unstable();
    let age = ages[if seconds.is_some() { targets - 1 } else { targets / 2 }];
    assert!(age <= interval_ms + 1500, "of seed {seed}, ages in milliseconds: {ages:?}");
}

/// Commits entries for a while, each in two tables at once.
fn write_for(application: &Connection, duration: Duration) -> Vec<Commit> {
    let begun = Instant::now();
    let mut commits = Vec::new();
    while begun.elapsed() < duration {
        let text = "x".repeat(commits.len() % 700);
        let begun_ms = Timestamp::now().as_millisecond();
        application
            .execute_batch(&format!(
                "BEGIN; INSERT INTO entries (text) VALUES ('{text}');
                 UPDATE totals SET entries = entries + 1, length = length + {}; COMMIT;",
                text.len()
            ))
            .expect("nobody else writes");
        commits.push(Commit { begun_ms, ended_ms: Timestamp::now().as_millisecond() });
        std::thread::sleep(Duration::from_millis(3));
    }
    commits
}

/// The number of entries of a restored database, which must be one that existed.
#[track_caller]
fn entries_of(database: &std::path::Path) -> usize {
    let connection = Connection::open(database).expect("a database");
    let query =
        "SELECT count(*), coalesce(sum(length(text)), 0), coalesce(max(id), 0) FROM entries";
    let (count, length, newest): (u32, u32, u32) = connection
        .query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .expect("the table is there");
    let totals = "SELECT entries, length FROM totals";
    let totals: (u32, u32) = connection
        .query_row(totals, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("the table is there");
    assert_eq!(((count, length), newest), (totals, count), "no state of the application");
    assert_eq!(length, (0..count).map(|number| number % 700).sum::<u32>());
    count as usize
}
