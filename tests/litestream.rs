//! What Litestream 0.5 wrote, restored by walrust: trees that are kept as fixtures, and one that
//! the real binary writes while the test runs.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use walrust_storage::Metadata;
use walrust_testkit::{Fixture, TestDatabase, Workload};

use crate::litestream_program::Litestream;
use crate::storage::{Storage, on_both_storages};
use crate::walrust::Walrust;

const FIXTURES: &str = "litestream-replica-";
/// The fixture in the layout that Litestream uses on S3.
const S3_LAYOUT: &str = "litestream-replica-s3-layout";

fn sha256(path: &Path) -> String {
    let bytes = fs::read(path).expect("a restored database");
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn expected(fixture: &Fixture) -> Value {
    serde_json::from_str(&fixture.expected()).expect("JSON")
}

/// Asserts the state at the time of each file that Litestream captured as it is, and just before.
fn assert_times(walrust: &Walrust, name: &str, files: &[(String, i64)]) {
    let state = |time: i64| {
        let time = Timestamp::from_millisecond(time).expect("a time of this century").to_string();
        let plan = ["restore", name, "--plan", "--json", "--point-in-time", &time];
        walrust.run(plan).succeeded().json()["txid"].clone()
    };
    assert!(files.len() >= 5, "{files:?}");
    for pair in files.windows(2) {
        let ((txid, time), (later, later_time)) = (&pair[0], &pair[1]);
        assert_eq!(state(*time), json!(txid), "{name} at {time}");
        assert_eq!(state(later_time - 1), json!(txid), "{name} before {later}");
    }
    let (newest, time) = files.last().expect("there are some");
    assert_eq!(state(time + 1_000), json!(newest), "{name} a second later");
}

/// Restores the newest state and each that the fixture tells of.
fn assert_restores(walrust: &Walrust, name: &str, expected: &Value) -> usize {
    let latest = walrust.restored(name, &[]);
    assert_eq!(sha256(&latest), expected["restored_db_sha256"], "{name} latest");
    let states = expected["per_txid"].as_array().map_or(&[][..], Vec::as_slice);
    for state in states {
        let txid = state["txid"].as_str().expect("text");
        let restored = walrust.restored(name, &["--txid", txid]);
        assert_eq!(sha256(&restored), state["image_sha256"], "{name} at TXID {txid}");
    }
    states.len()
}

#[test]
fn trees_in_a_directory_restore_at_each_txid() {
    let mut states = 0;
    for name in Fixture::names(FIXTURES).iter().filter(|name| *name != S3_LAYOUT) {
        let fixture = Fixture::named(name);
        let copy = tempfile::tempdir().unwrap();
        fixture.copy_to(copy.path());
        let mut walrust = Walrust::alone();
        walrust.set_bucket(&format!("file://{}", copy.path().display()));
        states += assert_restores(&walrust, "replica", &expected(&fixture));
        let files = expected(&fixture)["files"].as_array().unwrap().clone();
        let captured = files.iter().filter(|file| file["level"] == 0).map(|file| {
            (file["max_txid"].as_str().unwrap().to_owned(), file["timestamp_ms"].as_i64().unwrap())
        });
        assert_times(&walrust, "replica", &captured.collect::<Vec<_>>());
        let plan = walrust.run(["restore", "replica", "--plan", "--json"]).succeeded().json();
        assert_eq!(plan["layout"], "litestream (file layout)");
    }
    assert!(states >= 30, "three trees of ten states and more, not {states}");
}

#[test]
fn a_tree_in_the_layout_of_s3_restores_from_a_directory() {
    let fixture = Fixture::named(S3_LAYOUT);
    let expected = expected(&fixture);
    let copy = tempfile::tempdir().unwrap();
    fixture.copy_to(copy.path());
    let mut walrust = Walrust::alone();
    walrust.set_bucket(&format!("file://{}/bucket", copy.path().display()));
    assert_restores(&walrust, expected["replica_path"].as_str().unwrap(), &expected);
    let plan = walrust.run(["restore", "pre/fix/a", "--plan", "--json"]).succeeded().json();
    assert_eq!(plan["layout"], "litestream (S3 layout)");
}

#[test]
fn a_tree_in_the_layout_of_s3_restores_from_s3() {
    let fixture = Fixture::named(S3_LAYOUT);
    let expected = expected(&fixture);
    let storage = Storage::s3();
    for object in expected["objects"].as_array().unwrap() {
        let key = object["key"].as_str().unwrap();
        let bytes = fs::read(fixture.path().join("bucket").join(key)).unwrap();
        let metadata: Metadata = serde_json::from_value(object["user_metadata"].clone()).unwrap();
        storage.write(key, &bytes, &metadata);
    }
    let walrust = Walrust::on(&storage);
    let name = expected["replica_path"].as_str().unwrap();
    assert_restores(&walrust, name, &expected);
    let captured = expected["objects"].as_array().unwrap().iter().filter_map(|object| {
        let file = object["key"].as_str().unwrap().strip_prefix(&format!("{name}/0000/"))?;
        let txid = file.split(['-', '.']).nth(1).unwrap().to_owned();
        Some((txid, object["header_timestamp_ms"].as_i64().unwrap()))
    });
    assert_times(&walrust, name, &captured.collect::<Vec<_>>());
    let listing = walrust.run(["list", "--json"]).succeeded().json();
    assert_eq!(listing["databases"][0]["name"], expected["replica_path"]);
}

#[test]
fn a_damaged_file_of_litestream_is_found() {
    let copy = tempfile::tempdir().unwrap();
    Fixture::named("litestream-replica-upgrade-0515-0517").copy_to(copy.path());
    let mut walrust = Walrust::alone();
    walrust.set_bucket(&format!("file://{}", copy.path().display()));
    let plan = walrust.run(["restore", "replica", "--plan", "--json"]).succeeded().json();
    let output = walrust.file("out.db");
    for file in plan["files"].as_array().unwrap() {
        let key = file["key"].as_str().unwrap();
        let path = copy.path().join(key);
        let original = fs::read(&path).unwrap();
        for offset in (0..original.len()).step_by(original.len() / 10) {
            let mut bytes = original.clone();
            bytes[offset] ^= 0x55;
            fs::write(&path, &bytes).unwrap();
            let outcome = walrust.restore("replica", &output, &[]);
            outcome.failed(5, &[key]);
            assert_eq!(walrust.files(), [""; 0], "byte {offset} of {key}");
        }
        fs::write(&path, &original).unwrap();
    }
}

on_both_storages!(what_the_real_litestream_writes_comes_back);

fn what_the_real_litestream_writes_comes_back(storage: &Storage) {
    let mut database = TestDatabase::with_history(4096, 1, 20);
    let litestream = Litestream::new(database.path(), storage);
    let mut workload = Workload::new(2);
    for round in 0..4 {
        for _ in 0..10 {
            database.step(&mut workload);
        }
        litestream.replicate(if round == 2 { &["-force-snapshot"] } else { &[] });
    }

    let walrust = Walrust::on(storage);
    let theirs = walrust.file("litestream.db");
    litestream.restore(&theirs, &[]);
    assert_eq!(sha256(&walrust.restored("db", &[])), sha256(&theirs), "the newest state");
    let listing = walrust.list("db");
    for txid in ["oldest_txid", "newest_txid"].map(|key| listing[key].as_str().expect("a TXID")) {
        let theirs = walrust.file(&format!("litestream-{txid}.db"));
        litestream.restore(&theirs, &["-txid", txid]);
        assert_eq!(sha256(&walrust.restored("db", &["--txid", txid])), sha256(&theirs), "{txid}");
    }
    assert!(listing["states"].as_u64() >= Some(4), "{listing:#}");
}
