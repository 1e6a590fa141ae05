//! `walrust verify`: what it finds, what it repairs, and what it must never call sound.

mod advice;
mod mutations;
mod repair;

use std::fs;

use walrust_ltx::{Decoder, Encoder, Header, Mode};
use walrust_storage::Metadata;
use walrust_testkit::{Fixture, TestDatabase, connect};

use crate::fault_proxy::{Fault, FaultProxy};
use crate::recording_server::RecordingServer;
use crate::small_history::{NAME, SmallHistory, assert_empty};
use crate::storage::{Storage, on_both_storages};
use crate::walrust::{Outcome, Walrust, names_in};

fn verify(history: &SmallHistory, more: &[&str]) -> Outcome {
    history.walrust.run([&["verify", NAME], more].concat())
}

/// Asserts that a state cannot be restored, and that this is said with these words.
#[track_caller]
fn assert_critical(outcome: Outcome, phrases: &[&str]) {
    let text = outcome.stdout.clone();
    outcome.reported(2, &["critical finding"]);
    for phrase in phrases {
        assert!(text.contains(phrase), "{phrase:?} is not in:\n{text}");
    }
    assert!(text.ends_with("CRITICAL - not every state can be restored\n"), "{text}");
}

#[track_caller]
fn assert_warned(outcome: Outcome, phrases: &[&str]) {
    let text = outcome.stdout.clone();
    outcome.reported(1, &["warning", "every state can be restored"]);
    for phrase in phrases {
        assert!(text.contains(phrase), "{phrase:?} is not in:\n{text}");
    }
    assert!(text.ends_with("Warnings only - every state can be restored\n"), "{text}");
}

on_both_storages!(
    a_sound_history_passes_every_check,
    all_databases_are_verified,
    a_deep_look_runs_sqlites_check,
);

fn a_sound_history_passes_every_check(storage: &Storage) {
    let history = SmallHistory::of("first", storage.another());
    let outcome = verify(&history, &[]).succeeded();
    let size = |key: &str| history.bytes(key).len();
    let first = format!("Snapshot: TXID 1-1, {} bytes\n", size(&history.key(1, 1)));
    let url = history.storage.url();
    let begin = format!("Verifying backup: app in {url}...\n{first}Snapshot: TXID 1-4, ");
    assert!(outcome.stdout.starts_with(&begin), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("Incremental files: 5 files\n"), "{}", outcome.stdout);
    let ok = "  OK 0000000000000002-0000000000000002.ltx (1 TXIDs, ";
    assert!(outcome.stdout.contains(ok), "{}", outcome.stdout);
    let end = "Continuity: no gaps (TXID 1-6)\nAll checks passed - backup integrity verified\n";
    assert!(outcome.stdout.ends_with(end), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("Verified: 8/8 files ("), "{}", outcome.stdout);

    let result = verify(&history, &["--json", "--deep"]).succeeded().json();
    assert_eq!(result["result"], "passed", "{result:#}");
    assert_eq!(result["newest_txid"], "0000000000000006");
    assert_eq!(result["files"].as_array().map(Vec::len), Some(7));
    assert!(result["findings"].as_array().is_some_and(Vec::is_empty), "{result:#}");
    assert_eq!(history.storage.keys(""), history.keys(), "it changes nothing");
}

fn all_databases_are_verified(storage: &Storage) {
    let storage = storage.another();
    let walrust = Walrust::on(&storage);
    for name in ["one", "two"] {
        let path = walrust.file(&format!("{name}.db"));
        let application = connect(&path, 4096);
        application.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").expect("a table");
        walrust.snapshot(&path, &[]).succeeded();
    }
    let text = walrust.run(["verify", "--all"]).succeeded().stdout;
    let one = text.find("backup: one in").expect("the first database");
    assert!(one < text.find("backup: two in").expect("the second database"), "{text}");
    assert_eq!(text.matches("All checks passed").count(), 2, "{text}");
    let key = storage.keys("two/").into_iter().find(|key| key.ends_with(".ltx")).expect("a file");
    storage.write(&key, b"no LTX", &Metadata::new());
    let outcome = walrust.run(["verify", "--all", "--json"]);
    let databases = &outcome.json()["databases"];
    assert_eq!(
        (&databases[0]["result"], &databases[1]["result"]),
        (&"passed".into(), &"critical".into())
    );
    outcome.reported(2, &["critical finding"]);
}

/// Every checksum is right, and yet SQLite does not like what it sees.
fn a_deep_look_runs_sqlites_check(storage: &Storage) {
    let storage = storage.another();
    let walrust = Walrust::on(&storage);
    let path = walrust.file("app.db");
    let application = connect(&path, 4096);
    let sql = "CREATE TABLE t (x, y); CREATE INDEX i ON t (x);
        INSERT INTO t VALUES (1, 2), (3, 4);
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON t (y)' WHERE name = 'i'";
    application.execute_batch(sql).expect("SQLite allows it");
    walrust.snapshot(&path, &[]).succeeded();
    walrust.run(["verify", NAME]).succeeded();
    let outcome = walrust.run(["verify", NAME, "--deep"]);
    assert_critical(outcome, &["a restore of the newest state fails", "missing from index i"]);
}

#[test]
fn a_deep_look_downloads_no_page_twice_and_leaves_nothing_behind() {
    let storage = Storage::s3();
    let database = TestDatabase::with_history(4096, 3, 40);
    let mut walrust = Walrust::on(&storage);
    let path = walrust.file("app.db");
    fs::copy(database.path(), &path).unwrap();
    // Several pieces.
    let sql = "CREATE TABLE big (x); INSERT INTO big VALUES (randomblob(5000000))";
    connect(&path, 4096).execute_batch(sql).unwrap();
    walrust.snapshot(&path, &[]).succeeded();
    let proxy = FaultProxy::start();
    let scratch = walrust.file("scratch");
    fs::create_dir(&scratch).unwrap();
    walrust.set("AWS_ENDPOINT_URL_S3", &proxy.url());
    walrust.set("TMPDIR", &scratch.display().to_string());
    walrust.run(["verify", NAME, "--deep"]).succeeded();
    let size = storage.read(&storage.keys("app/0")[0]).len();
    let exchanges = proxy.exchanges();
    let gets = exchanges.iter().filter(|it| it.method == "GET" && it.file().is_some()).count();
    assert_eq!(gets, size.div_ceil(1 << 20), "one request for each piece");
    assert_empty(&scratch);
}

#[test]
fn c04_an_empty_bucket_and_an_unknown_name_do_not_pass() {
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    // A place that is not there cannot be looked at.
    walrust.run(["verify", NAME]).failed(4, &["the directory itself is missing"]);
    storage.write("notes.txt", b"no database", &Metadata::new());
    assert_critical(
        walrust.run(["verify", "nobody"]),
        &["nobody: there is no file to restore from"],
    );
    walrust.run(["verify", "--all"]).reported(2, &["critical"]);
    walrust.run(["verify"]).failed(2, &["<NAME>"]);
}

#[test]
fn storage_that_cannot_be_looked_at_is_no_finding() {
    let storage = Storage::s3();
    let mut walrust = Walrust::on(&storage);
    let refusing = RecordingServer::that_refuses();
    walrust.set("AWS_ENDPOINT_URL_S3", &refusing.url());
    walrust.run(["verify", NAME]).failed(4, &[]);
    walrust.run(["verify", "--all"]).failed(4, &[]);
    // A file that storage does not give.
    let history = SmallHistory::of("first", Storage::s3());
    let proxy = FaultProxy::start();
    let key = history.key(3, 3);
    let name = key.rsplit('/').next().unwrap().to_owned();
    proxy.set(move |exchange| match exchange.file() {
        Some(file) if exchange.method == "GET" && file.to_string() == name => {
            Fault::Answer(403, "AccessDenied")
        }
        _ => Fault::Pass,
    });
    let mut walrust = Walrust::on(&history.storage);
    walrust.set("AWS_ENDPOINT_URL_S3", &proxy.url());
    walrust.run(["verify", NAME]).failed(4, &[&key]);
    let outcome = walrust.run(["verify", "--all", "--json"]);
    assert!(outcome.json()["databases"][0]["error"].is_string(), "{}", outcome.stdout);
    outcome.reported(4, &[&key]);
}

/// 1 would say that every state can be restored.
#[test]
fn c04_whoever_cannot_look_never_says_that_there_are_warnings_only() {
    let mut history = SmallHistory::new();
    let nowhere = history.walrust.file("nowhere").display().to_string();
    history.walrust.set("TMPDIR", &nowhere);
    verify(&history, &["--deep"]).failed(2, &["TMPDIR"]);
    history.walrust.run(["verify", "--all", "--deep"]).reported(2, &["TMPDIR"]);
    let limited = std::process::Command::new("sh")
        .args(["-c", "exec \"$0\" \"$@\" > /dev/full"])
        .args([env!("CARGO_BIN_EXE_walrust"), "verify", NAME, "-b", &history.storage.url()])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&limited.stderr);
    assert!(error.contains("standard output"), "{error}");
    assert_eq!(limited.status.code(), Some(2), "{error}");
}

#[test]
fn files_that_are_missing_are_critical() {
    let history = SmallHistory::new();
    for (min, max, more) in [
        (1, 1, "continues TXID 0000000000000001, which no file leads to"),
        (1, 4, "Verified: 7/7 files"),
        (3, 3, "continues TXID 0000000000000003, which no file leads to"),
        (5, 5, "the newest state cannot be restored: the history has a gap"),
        (6, 6, "Verified: 7/7 files"),
    ] {
        let key = history.key(min, max);
        history.storage.delete(&key);
        let missing =
            format!("CRITICAL {key}: it is in the manifest or was listed, and is not there");
        assert_critical(verify(&history, &[]), &[&missing, more]);
        history.repair();
    }
}

#[test]
fn c05_a_file_that_decodes_and_is_another_one_is_found() {
    let mut history = SmallHistory::new();
    history.forget_metadata();
    let other = SmallHistory::of("the other", Storage::directory());
    for (min, max) in [(1, 4), (3, 3), (5, 5), (6, 6)] {
        let key = history.key(min, max);
        history.storage.write(&key, other.bytes(&key), &Metadata::new());
        assert_critical(verify(&history, &[]), &["its SHA-256 is", "the manifest says"]);
        // What the chain tells, without the manifest.
        history.storage.delete(&history.manifest());
        assert_critical(verify(&history, &[]), &["checksum"]);
        history.repair();
    }
}

/// Writes a file again, with another header or other pages, so that its own checksums are right.
fn forged(bytes: &[u8], header: impl Fn(&mut Header), page: impl Fn(u32, &mut [u8])) -> Vec<u8> {
    let mut decoder = Decoder::new(bytes, Mode::Strict).expect("an LTX file");
    let mut forged = decoder.header().clone();
    header(&mut forged);
    let mut buffer = vec![0; forged.page_size.bytes()];
    let mut encoder = Encoder::new(Vec::new(), forged).expect("a valid header");
    while let Some(pgno) = decoder.next_page(&mut buffer).expect("a valid page") {
        page(pgno, &mut buffer);
        encoder.page(pgno, &buffer).expect("a page");
    }
    let post_apply = decoder.finish().expect("a valid file").post_apply;
    encoder.finish(post_apply).expect("a valid file").0
}

#[test]
fn c05_a_page_that_does_not_add_up_is_found_without_any_hash() {
    let mut history = SmallHistory::new();
    history.forget_metadata();
    history.storage.delete(&history.manifest());
    for (min, max) in [(2, 2), (5, 5), (6, 6)] {
        let key = history.key(min, max);
        let bytes = forged(history.bytes(&key), |_| {}, |pgno, page| page[pgno as usize] ^= 1);
        history.storage.write(&key, &bytes, &Metadata::new());
        let phrase = format!("CRITICAL {}: after it the database should have checksum", &key[4..]);
        assert_critical(verify(&history, &[]), &[&phrase]);
        let txid = max.to_string();
        history.restore_fails(&["--txid", &txid]).failed(5, &[&key]);
        history.storage.write(&key, history.bytes(&key), &Metadata::new());
    }
    let file = history.key(5, 5);
    let bytes = forged(history.bytes(&file), |header| header.commit += 1, |_, _| {});
    history.storage.write(&file, &bytes, &Metadata::new());
    assert_critical(verify(&history, &[]), &["are in no file"]);
}

#[test]
fn an_entry_that_is_wrong_is_critical() {
    let history = SmallHistory::new();
    let manifest = String::from_utf8(history.bytes(&history.manifest()).to_vec()).unwrap();
    let created = &manifest[manifest.rfind("\"created\": \"").unwrap() + 12..][..10];
    for (from, to, field) in [
        (created, "2001-01-01", "its time is"),
        ("\"commit\": 3", "\"commit\": 4", "its number of pages is"),
        ("\"kind\": \"incremental\"", "\"kind\": \"snapshot\"", "its kind is"),
    ] {
        assert!(manifest.contains(from), "{from} is not in {manifest}");
        let wrong = manifest.replacen(from, to, 1);
        history.storage.write(&history.manifest(), wrong.as_bytes(), &Metadata::new());
        assert_critical(verify(&history, &[]), &[field, "the manifest says"]);
    }
}

#[test]
fn what_no_restore_suffers_from_is_a_warning() {
    let history = SmallHistory::new();
    history.storage.write("app/notes.txt", b"foreign", &Metadata::new());
    let foreign = "WARNING app/notes.txt: it is neither an LTX file nor the manifest";
    assert_warned(verify(&history, &[]), &[foreign]);
    // Another database below it is none of its business.
    history.storage.delete("app/notes.txt");
    history.storage.write("app/nested/notes.txt", b"foreign", &Metadata::new());
    verify(&history, &[]).succeeded();
    history.storage.delete(&history.manifest());
    assert_warned(verify(&history, &[]), &["WARNING app/manifest.json: it is missing"]);
}

#[test]
fn a_manifest_of_a_newer_program_is_not_judged() {
    let history = SmallHistory::new();
    let manifest = String::from_utf8(history.bytes(&history.manifest()).to_vec()).unwrap();
    let newer = manifest.replace("\"format\": 1", "\"format\": 2");
    history.storage.write(&history.manifest(), newer.as_bytes(), &Metadata::new());
    let outcome = verify(&history, &["--fix"]);
    assert!(
        !outcome.stdout.contains("OK") && !outcome.stdout.contains("FIXED"),
        "{}",
        outcome.stdout
    );
    assert_critical(outcome, &["app/manifest.json: it has format 2", "use a newer walrust"]);
    assert_eq!(history.storage.read(&history.manifest()), newer.as_bytes());
}

#[test]
fn a_tree_of_litestream_is_verified_as_far_as_its_files_tell() {
    let walrust = Walrust::alone();
    let tree = walrust.file("tree");
    fs::create_dir(&tree).expect("the directory is writable");
    Fixture::named("litestream-replica-upgrade-0515-0517").copy_to(&tree);
    let bucket = format!("file://{}", tree.display());
    walrust.run(["verify", "replica", "--deep", "-b", &bucket]).succeeded();
    let files = names_in(&tree.join("replica/ltx/0"));
    let newest = tree.join("replica/ltx/0").join(files.last().expect("a file"));
    let mut bytes = fs::read(&newest).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).expect("the file is writable");
    assert_critical(walrust.run(["verify", "replica", "-b", &bucket]), &["CRITICAL 0"]);
}
