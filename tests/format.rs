//! `docs/format.md` says all that a restorer needs: one that was written from it alone, in Python,
//! restores what the daemon stores, and refuses what was damaged.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use walrust_testkit::{Step, TestDatabase, Workload, assert_same_database, image};

use crate::small_history::{HEAD, NAME, SmallHistory};
use crate::storage::Storage;
use crate::walrust::Walrust;

/// Restores with the restorer of the documentation.
fn restore(storage: &Storage, name: &str, output: &Path, txid: Option<u64>) -> Output {
    let restorer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/restorer.py");
    let url = storage.url();
    let directory = url.strip_prefix("file://").expect("a directory");
    Command::new("python3")
        .arg(restorer)
        .args([directory, name])
        .arg(output)
        .args(txid.map(|txid| txid.to_string()))
        .output()
        .expect("python3 is there, as for the servers of the tests")
}

#[track_caller]
pub(crate) fn restored(storage: &Storage, directory: &Path, txid: Option<u64>) -> PathBuf {
    let output = directory.join(format!("{}.db", txid.unwrap_or_default()));
    let result = restore(storage, "app", &output, txid);
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    output
}

#[test]
fn a_restorer_that_was_written_from_the_documentation_restores_every_state() {
    let mut database = TestDatabase::with_history(1024, 7, 12);
    let mut workload = Workload::new(8);
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let mut daemon = walrust.watch(&[database.path()]);
    storage.wait_for_txid(&mut daemon, "app", 1);
    let mut states = vec![database.image()];
    for round in 2..=7 {
        // One commit each: the database grows, and becomes smaller again.
        match round {
            4 => database.run(
                "BEGIN; CREATE TABLE ballast (x);
                 INSERT INTO ballast VALUES (randomblob(60000)); COMMIT",
            ),
            5 => database.run("DROP TABLE ballast"),
            6 => database.run("VACUUM"),
            _ => while workload.step(database.connection()).expect("valid") == Step::Unchanged {},
        }
        daemon.wait_until("the state is stored", |_| storage.head("app") > states.len() as u64);
        states.push(database.image());
        if round == 3 {
            walrust.snapshot(database.path(), &[]).succeeded();
        }
    }
    daemon.stop();
    let outputs = tempfile::tempdir().expect("a temporary directory");
    for (txid, state) in (1..).zip(&states) {
        let output = restored(&storage, outputs.path(), Some(txid));
        assert!(image(&output) == *state, "TXID {txid} is another state");
        let ours = walrust.restored("app", &["--txid", &txid.to_string()]);
        let bytes = [&output, &ours].map(|path| std::fs::read(path).expect("a database"));
        assert!(bytes[0] == bytes[1], "TXID {txid} has other bytes than walrust restores");
    }
    let newest = restored(&storage, outputs.path(), None);
    assert!(states.last().is_some_and(|state| image(&newest) == *state));
}

#[test]
fn it_refuses_every_flipped_bit_and_leaves_nothing_behind() {
    let history = SmallHistory::new();
    // Without the manifest's SHA-256 the checksums inside the files decide.
    history.storage.delete(&history.manifest());
    let key = history.key(HEAD, HEAD);
    let whole = history.bytes(&key).to_vec();
    let outputs = tempfile::tempdir().expect("a temporary directory");
    let output = outputs.path().join("restored.db");
    let bits = (0..whole.len() * 8).step_by(whole.len() * 8 / 60 + 1);
    for bit in bits.chain([whole.len() * 8 - 1]) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        history.storage.write(&key, &bytes, history.metadata(&key));
        let result = restore(&history.storage, NAME, &output, None);
        let error = String::from_utf8_lossy(&result.stderr);
        assert!(!result.status.success() && error.contains("error: "), "bit {bit}: {error}");
        assert_eq!(std::fs::read_dir(outputs.path()).unwrap().count(), 0, "bit {bit}");
    }
    history.storage.write(&key, &whole, history.metadata(&key));
    assert!(restore(&history.storage, NAME, &output, None).status.success());
}

#[test]
fn it_goes_on_without_a_manifest_that_is_damaged_or_missing() {
    let history = SmallHistory::new();
    let outputs = tempfile::tempdir().expect("a temporary directory");
    let cut = &history.bytes(&history.manifest())[..100];
    history.storage.write(&history.manifest(), cut, history.metadata(&history.manifest()));
    for name in ["damaged.db", "missing.db"] {
        let output = outputs.path().join(name);
        let result = restore(&history.storage, NAME, &output, None);
        assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
        assert_same_database(&history.source, &output);
        history.storage.delete(&history.manifest());
    }
}
