//! Damage in storage: a restore finds it, names the file, and leaves nothing behind.
//!
//! Storage keeps a SHA-256 beside each object. The files prove themselves without it too, so most
//! tests take it away first: then nothing but the format itself stands between the damage and a
//! wrong database.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use walrust_ltx::{Decoder, Encoder, Header, Mode};
use walrust_storage::Metadata;
use walrust_testkit::{Prng, assert_same_database, connect};

use crate::small_history::{NAME, SmallHistory};
use crate::storage::Storage;
use crate::walrust::{Outcome, Walrust};

/// Bytes of each object that are flipped, one at a time.
const FLIPS: usize = 100;

/// For each file the restore that reads it.
fn restores(history: &SmallHistory) -> [(String, &'static [&'static str]); 6] {
    const LATEST: &[&str] = &[];
    const THIRD: &[&str] = &["--txid", "3"];
    [
        (history.key(1, 1), THIRD),
        (history.key(2, 2), THIRD),
        (history.key(3, 3), THIRD),
        (history.key(1, 4), LATEST),
        (history.key(5, 5), LATEST),
        (history.key(6, 6), LATEST),
    ]
}

/// Asserts that a failure is about the integrity of a file, which it names.
#[track_caller]
fn assert_found(outcome: Outcome, key: &str, what: &str) {
    assert!(matches!(outcome.code, Some(5 | 6)), "{what}: {:?} {}", outcome.code, outcome.stderr);
    let code = outcome.code.unwrap_or_default();
    outcome.failed(code, &[key]);
}

/// All offsets of a small object, else an even spread of them, both ends included.
fn offsets(length: usize) -> impl Iterator<Item = usize> {
    let step = length.div_ceil(FLIPS).max(1);
    (0..length).step_by(step).chain([length - 1])
}

/// Flips bytes, with and without the SHA-256 that storage keeps beside the object.
fn flip_bytes_of(index: usize) {
    let history = SmallHistory::new();
    let (key, more) = restores(&history)[index].clone();
    let metadata = history.metadata(&key).clone();
    let reference = history.walrust.restored(NAME, more);
    let sound = fs::read(&reference).expect("a restored database");
    fs::remove_file(reference).expect("a restored database");
    let mut prng = Prng::new(index as u64);
    let original = history.bytes(&key).to_vec();
    for offset in offsets(original.len()) {
        let mut bytes = original.clone();
        bytes[offset] ^= prng.between(1, 255) as u8;
        history.storage.write(&key, &bytes, &metadata);
        let what = format!("byte {offset} of {key} is {:#04x}", bytes[offset]);
        assert_found(history.restore_fails(more), &key, &what);
        history.storage.write(&key, &bytes, &Metadata::new());
        let output = history.walrust.file("out.db");
        let outcome = history.walrust.restore(NAME, &output, more);
        if outcome.code == Some(0) {
            // LZ4 can say one page in several ways: the bytes differ, the database must not.
            assert!(fs::read(&output).expect("an output") == sound, "{what}");
            fs::remove_file(&output).expect("an output");
        } else {
            assert_found(outcome, &key, &what);
            assert!(!output.exists(), "{what}");
        }
    }
}

#[test]
fn a_flipped_byte_of_the_first_snapshot_is_found() {
    flip_bytes_of(0);
}

#[test]
fn a_flipped_byte_of_an_incremental_is_found() {
    flip_bytes_of(1);
}

#[test]
fn c05_a_flipped_byte_of_a_later_snapshot_is_found() {
    flip_bytes_of(3);
}

#[test]
fn a_flipped_byte_of_the_last_file_is_found() {
    flip_bytes_of(5);
}

#[test]
fn a_flipped_byte_of_the_manifest_is_told_and_stops_no_restore() {
    let history = SmallHistory::new();
    let key = history.manifest();
    let original = history.bytes(&key).to_vec();
    let mut prng = Prng::new(7);
    for offset in offsets(original.len()) {
        let mut bytes = original.clone();
        bytes[offset] ^= prng.between(1, 255) as u8;
        history.storage.write(&key, &bytes, history.metadata(&key));
        let output = history.walrust.file("out.db");
        let outcome = history.walrust.restore(NAME, &output, &["--force"]);
        if outcome.code == Some(1) {
            // Another digit in the one place where it makes the format one of the future.
            outcome.failed(1, &[&key, "format", "newer walrust"]);
            assert!(original[..offset].ends_with(b"\"format\": "), "byte {offset}");
            continue;
        }
        let outcome = outcome.succeeded();
        for phrase in [&key, "verify --fix"] {
            assert!(outcome.stderr.contains(phrase), "byte {offset}: {}", outcome.stderr);
        }
        assert_same_database(&history.source, &output);
    }
}

/// A history whose manifest is no manifest any more.
fn with_damaged_manifest() -> SmallHistory {
    let history = SmallHistory::new();
    let cut = &history.bytes(&history.manifest())[..200];
    history.storage.write(&history.manifest(), cut, &Metadata::new());
    history
}

#[test]
fn without_its_manifest_a_history_is_read_from_its_files() {
    let history = with_damaged_manifest();
    let warned = |outcome: Outcome| {
        let outcome = outcome.succeeded();
        for phrase in [&history.manifest(), "damaged", "verify --fix", "newest files"] {
            assert!(outcome.stderr.contains(phrase), "{phrase:?} is not in: {}", outcome.stderr);
        }
        outcome
    };
    let walrust = &history.walrust;
    for (txid, rows) in [("3", 2), ("6", 5)] {
        let output = walrust.file("state.db");
        warned(walrust.restore(NAME, &output, &["--txid", txid, "--force"]));
        let connection = rusqlite::Connection::open(&output).unwrap();
        let found = connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, u32>(0));
        assert_eq!(found.unwrap(), rows);
    }
    let listing = warned(walrust.run(["list", NAME, "--json"])).json();
    assert_eq!((&listing["states"], &listing["lineage"]), (&json!(6), &Value::Null));
    walrust.run(["list"]).succeeded();

    let source = format!("{}/{NAME}", history.storage.url());
    let replica = walrust.file("replica.db");
    let local = replica.display().to_string();
    warned(walrust.ask(["replicate", &source, "--local", &local, "--once"]));
    assert_same_database(&history.source, &replica);

    let target = Storage::directory();
    warned(walrust.run(["export", NAME, "--to", &target.url()]));
    let tree = Walrust::with_access_to(&target);
    let url = target.url();
    let (url, name) = url.rsplit_once('/').expect("a directory");
    let output = tree.file("out.db").display().to_string();
    tree.run(["restore", name, "-b", url, "-o", &output]).succeeded();
    assert_same_database(&history.source, output.as_ref());

    // Whoever changes the history needs to know all of it.
    walrust.run(["compact", NAME, "--force"]).failed(5, &[&history.manifest(), "verify --fix"]);
    walrust.run(["verify", NAME]).reported(2, &["critical"]);
    walrust.run(["verify", NAME, "--fix"]);
    let outcome = walrust.restore(NAME, &walrust.file("out.db"), &[]).succeeded();
    assert_eq!(outcome.stderr, "");
}

#[test]
fn c05_the_checksum_beside_an_object_is_compared() {
    let history = SmallHistory::new();
    for (key, more) in restores(&history) {
        // The object is sound; only what was recorded about it differs.
        let mut metadata = history.metadata(&key).clone();
        let sha256 = metadata.get_mut("sha256").expect("every object has its SHA-256");
        let other = if sha256.starts_with('0') { "1" } else { "0" };
        sha256.replace_range(..1, other);
        history.storage.write(&key, history.bytes(&key), &metadata);
        history.restore_fails(more).failed(5, &[&key, "SHA-256"]);
        history.repair();
    }
}

/// Makes other bytes of those of a file.
type Change = fn(&[u8]) -> Vec<u8>;

/// Replaces each file in turn by what `change` makes of it.
fn change_each_file(changes: &[(&str, Change)]) {
    let mut history = SmallHistory::new();
    history.forget_metadata();
    for (key, more) in restores(&history) {
        for (what, change) in changes {
            history.storage.write(&key, &change(history.bytes(&key)), &Metadata::new());
            assert_found(history.restore_fails(more), &key, &format!("{key} {what}"));
        }
        history.repair();
    }
}

#[test]
fn c14_a_file_that_is_cut_short_is_found() {
    change_each_file(&[
        ("is empty", |_| Vec::new()),
        ("is one byte", |bytes| bytes[..1].to_vec()),
        ("is half a header", |bytes| bytes[..50].to_vec()),
        ("is a header", |bytes| bytes[..100].to_vec()),
        ("is half", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("has no trailer", |bytes| bytes[..bytes.len() - 16].to_vec()),
        ("lacks a byte", |bytes| bytes[..bytes.len() - 1].to_vec()),
    ]);
}

#[test]
fn c13_bytes_behind_the_end_are_found() {
    change_each_file(&[
        ("has a byte more", |bytes| [bytes, b"\0"].concat()),
        ("is there twice", |bytes| bytes.repeat(2)),
    ]);
}

#[test]
fn c05_swapped_files_are_found() {
    let mut history = SmallHistory::new();
    history.forget_metadata();
    let pairs = [((5, 5), (6, 6), &[][..]), ((2, 2), (3, 3), &["--txid", "3"][..])];
    for (one, other, more) in pairs {
        let (one, other) = (history.key(one.0, one.1), history.key(other.0, other.1));
        history.storage.write(&one, history.bytes(&other), &Metadata::new());
        history.storage.write(&other, history.bytes(&one), &Metadata::new());
        assert_found(history.restore_fails(more), &one, "swapped files");
        history.repair();
    }
}

#[test]
fn c05_a_file_of_another_lineage_is_found() {
    let mut history = SmallHistory::new();
    history.forget_metadata();
    // The same TXIDs, page size and schema. The rows are of another length: a checksum that is
    // linear cannot see the same change at the same place of two pages.
    let other = SmallHistory::of("the other", Storage::directory());
    for key in [history.key(5, 5), history.key(6, 6)] {
        history.storage.write(&key, other.bytes(&key), &Metadata::new());
        history.restore_fails(&[]).failed(5, &[&key, "does not continue"]);
        history.repair();
    }
    let snapshot = history.key(1, 4);
    history.storage.write(&snapshot, other.bytes(&snapshot), &Metadata::new());
    // The link to the next file tells, without the manifest.
    history.storage.delete(&history.manifest());
    let next = history.key(5, 5);
    history.restore_fails(&[]).failed(5, &[&next, "does not continue"]);
}

#[test]
fn a_file_that_fits_the_chain_but_is_not_the_one_in_the_manifest_is_found() {
    let mut history = SmallHistory::new();
    history.forget_metadata();
    let key = history.key(5, 5);
    // The same pages under another time: every checksum of the format is right.
    let mut decoder = Decoder::new(history.bytes(&key), Mode::Strict).expect("an LTX file");
    let header =
        Header { timestamp_ms: decoder.header().timestamp_ms + 1, ..decoder.header().clone() };
    let mut page = vec![0; header.page_size.bytes()];
    let mut encoder = Encoder::new(Vec::new(), header).expect("a valid header");
    while let Some(pgno) = decoder.next_page(&mut page).expect("a valid page") {
        encoder.page(pgno, &page).expect("the same page");
    }
    let post_apply = decoder.finish().expect("a valid file").post_apply;
    let (forged, _) = encoder.finish(post_apply).expect("a valid file");
    history.storage.write(&key, &forged, &Metadata::new());
    history.restore_fails(&[]).failed(5, &[&key, "SHA-256"]);
}

#[test]
fn c02_a_file_that_is_missing_in_the_middle_is_found() {
    let history = SmallHistory::new();
    history.storage.delete(&history.key(5, 5));
    assert_found(history.restore_fails(&[]), &history.key(6, 6), "a gap");
    history.repair();

    // Without it another way leads round the gap.
    history.storage.delete(&history.key(3, 3));
    let output = history.walrust.restored(NAME, &[]);
    assert_same_database(&history.source, &output);
    history.restore_fails(&["--txid", "3"]).failed(6, &["0000000000000002", "0000000000000004"]);
}

#[test]
fn c02_a_file_that_is_missing_at_the_end_is_found() {
    let history = SmallHistory::new();
    history.storage.delete(&history.key(6, 6));
    let lost = "0000000000000006-0000000000000006.ltx";
    let outcome = history.restore_fails(&[]);
    outcome.failed(5, &[&history.manifest(), lost, "--txid 0000000000000005"]);
    // What is left can be had by asking for it.
    history.walrust.restored(NAME, &["--txid", "5"]);
}

#[test]
fn a_history_without_any_snapshot_cannot_be_restored() {
    let history = SmallHistory::new();
    history.storage.delete(&history.key(1, 1));
    history.storage.delete(&history.key(1, 4));
    history.restore_fails(&[]).failed(6, &["app", "no snapshot"]);
}

#[test]
fn a_manifest_of_a_newer_program_is_refused_by_every_command() {
    let history = SmallHistory::new();
    let manifest = String::from_utf8(history.bytes(&history.manifest()).to_vec()).unwrap();
    assert!(manifest.contains("\"format\": 1"), "{manifest}");
    let newer = manifest.replace("\"format\": 1", "\"format\": 2");
    history.storage.write(&history.manifest(), newer.as_bytes(), &Metadata::new());
    let phrases = [&history.manifest(), "format 2", "newer walrust"];
    for more in [&[][..], &["--txid", "3"], &["--point-in-time", "1s ago"], &["--plan"]] {
        history.restore_fails(more).failed(1, &phrases);
    }
    let walrust = &history.walrust;
    let replica = walrust.file("replica.db").display().to_string();
    let source = format!("{}/{NAME}", history.storage.url());
    let source_database = history.source.display().to_string();
    let target = Storage::directory();
    for command in [
        &["list"][..],
        &["list", NAME],
        &["list", "--json"],
        &["compact", NAME],
        &["compact", NAME, "--force", "--grace", "0"],
        &["export", NAME, "--to", &format!("{}/db", target.url())],
        &["snapshot", &source_database],
    ] {
        let outcome = walrust.run(command).failed(1, &phrases);
        let says = outcome.stderr.lines().filter(|line| line.starts_with("error: "));
        let says: String = says.collect();
        assert_eq!(says.matches(&history.manifest()).count(), 1, "{command:?}: {}", outcome.stderr);
    }
    let outcome = walrust.ask(["replicate", &source, "--local", &replica, "--once"]);
    outcome.failed(1, &phrases);
    walrust.run(["verify", NAME]).reported(2, &["critical"]);
    // The daemon stores nothing, and says why.
    connect(&history.source, 512).execute_batch("INSERT INTO t (x) VALUES ('more')").unwrap();
    let mut daemon = walrust.watch(&[&history.source]);
    daemon.wait_for_line(&phrases);
    daemon.signal(Signal::SIGTERM);
    assert_ne!(daemon.wait().code, Some(0), "a commit is not in storage");
    assert_eq!(history.storage.keys(""), history.keys());
    assert_eq!(history.storage.read(&history.manifest()), newer.as_bytes());
}

#[test]
fn junk_beside_the_files_does_no_harm() {
    let history = SmallHistory::new();
    for junk in ["notes.txt", "0000000000000007-0000000000000007.ltx.tmp", "7-7.ltx", "old/x.ltx"] {
        history.storage.write(&format!("{NAME}/{junk}"), b"junk", &Metadata::new());
    }
    let output = history.walrust.restored(NAME, &[]);
    assert_same_database(&history.source, &output);
}
