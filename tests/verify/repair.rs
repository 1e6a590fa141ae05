//! `verify --fix`: the manifest is brought in order, and nothing else is touched.

use walrust_storage::Metadata;
use walrust_testkit::connect;

use super::{assert_critical, assert_warned, verify};
use crate::small_history::{NAME, SmallHistory};
use crate::storage::Storage;
use crate::walrust::Outcome;

/// Repairs, and asserts that everything is in order afterwards.
#[track_caller]
fn fixed(history: &SmallHistory, phrases: &[&str]) -> Outcome {
    let files = |history: &SmallHistory| -> Vec<(String, Vec<u8>)> {
        let keys = history.storage.keys("").into_iter().filter(|key| key.ends_with(".ltx"));
        keys.map(|key| (key.clone(), history.storage.read(&key))).collect()
    };
    let before = files(history);
    let outcome = verify(history, &["--fix"]);
    assert_eq!(outcome.code, Some(1), "{}{}", outcome.stdout, outcome.stderr);
    for phrase in phrases {
        assert!(outcome.stdout.contains(phrase), "{phrase:?} is not in:\n{}", outcome.stdout);
    }
    assert!(outcome.stdout.contains("All findings were repaired"), "{}", outcome.stdout);
    verify(history, &[]).succeeded();
    assert_eq!(files(history), before, "files are never changed");
    outcome
}

#[test]
fn a_file_that_is_gone_is_forgotten() {
    let history = SmallHistory::new();
    let key = history.key(6, 6);
    history.storage.delete(&key);
    history.restore_fails(&[]);
    let outcome = verify(&history, &["--fix"]).reported(1, &["1 warning"]);
    let fixed = format!("FIXED {key}: it is in the manifest");
    assert!(outcome.stdout.contains(&fixed), "{}", outcome.stdout);
    verify(&history, &[]).succeeded();
    // The newest state of which there are files.
    history.walrust.restored(NAME, &[]);
}

#[test]
fn files_that_the_manifest_does_not_know_are_entered() {
    let mut history = SmallHistory::new();
    let manifest = history.manifest();
    // The snapshot of TXID 4 is not the newest entry.
    let mut json: serde_json::Value =
        serde_json::from_slice(history.bytes(&manifest)).expect("a manifest");
    let files = json["files"].as_array_mut().expect("a list");
    files.retain(|file| !(file["min"] == "0000000000000001" && file["max"] == "0000000000000004"));
    history.storage.write(&manifest, json.to_string().as_bytes(), &Metadata::new());
    let key = history.key(1, 4);
    assert_warned(verify(&history, &[]), &["1-0000000000000004.ltx: it is not in the manifest"]);
    fixed(&history, &[&format!("FIXED {key}: it is not in the manifest")]);
    let repaired: serde_json::Value =
        serde_json::from_slice(&history.storage.read(&manifest)).expect("a manifest");
    let original: serde_json::Value =
        serde_json::from_slice(history.bytes(&manifest)).expect("a manifest");
    assert_eq!(repaired, original);
    // Without hashes beside the files as well.
    history.forget_metadata();
    history.storage.write(&manifest, json.to_string().as_bytes(), &Metadata::new());
    fixed(&history, &[]);
}

#[test]
fn an_entry_that_is_wrong_is_corrected() {
    let history = SmallHistory::new();
    let manifest = String::from_utf8(history.bytes(&history.manifest()).to_vec()).expect("JSON");
    let wrong = manifest.replacen("\"commit\": 3", "\"commit\": 4", 1);
    history.storage.write(&history.manifest(), wrong.as_bytes(), &Metadata::new());
    fixed(&history, &["its number of pages is 3, the manifest says 4"]);
    assert_eq!(history.storage.read(&history.manifest()), manifest.as_bytes());
}

#[test]
fn a_hash_in_the_manifest_is_believed_more_than_a_file_without_one() {
    let mut history = SmallHistory::new();
    let manifest = String::from_utf8(history.bytes(&history.manifest()).to_vec()).expect("JSON");
    let at = manifest.rfind("\"sha256\": \"").expect("an entry") + 11;
    let mut wrong = manifest.clone();
    wrong.replace_range(at..at + 8, "01234567");
    // The hash beside the file says that the manifest is wrong.
    history.storage.write(&history.manifest(), wrong.as_bytes(), &Metadata::new());
    fixed(&history, &["its SHA-256 is"]);
    // Without it nothing does.
    history.forget_metadata();
    history.storage.write(&history.manifest(), wrong.as_bytes(), &Metadata::new());
    assert_critical(verify(&history, &["--fix"]), &["its SHA-256 is"]);
    assert_eq!(history.storage.read(&history.manifest()), wrong.as_bytes());
}

#[test]
fn a_manifest_that_is_missing_or_damaged_is_made_anew_and_its_daemon_goes_on() {
    for damage in [None, Some(&b"{}"[..]), Some(b"\xff")] {
        let history = SmallHistory::of("first", Storage::s3());
        let manifest = history.manifest();
        match damage {
            None => history.storage.delete(&manifest),
            Some(bytes) => history.storage.write(&manifest, bytes, &Metadata::new()),
        }
        fixed(&history, &["FIXED app/manifest.json: "]);
        // Its owner replicates on, and retention works again.
        let mut daemon = history.walrust.watch(&[&history.source]);
        let sql = "INSERT INTO t (x) VALUES ('one more')";
        connect(&history.source, 512).execute_batch(sql).expect("a table");
        history.storage.wait_for_txid(&mut daemon, NAME, 7);
        daemon.stop();
        verify(&history, &["--deep"]).succeeded();
        history.walrust.run(["compact", NAME, "--force"]).succeeded();
        let text = String::from_utf8(history.storage.read(&manifest)).expect("JSON");
        assert!(text.contains("\"epoch\": 0") && !text.contains("unknown"), "{text}");
    }
}

#[test]
fn a_manifest_with_a_hash_that_is_not_its_own_is_made_anew() {
    let history = SmallHistory::new();
    let manifest = history.manifest();
    let mut bytes = history.bytes(&manifest).to_vec();
    let at = bytes.len() / 2;
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    history.storage.write(&manifest, &bytes, history.metadata(&manifest));
    fixed(&history, &["FIXED app/manifest.json: "]);
}

#[test]
fn damaged_files_are_left_alone() {
    let history = SmallHistory::new();
    let key = history.key(3, 3);
    let mut bytes = history.bytes(&key).to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    history.storage.write(&key, &bytes, history.metadata(&key));
    let before = history.storage.read(&history.manifest());
    let outcome = verify(&history, &["--fix"]);
    assert!(!outcome.stdout.contains("FIXED"), "{}", outcome.stdout);
    assert_critical(outcome, &["CRITICAL 0000000000000003-0000000000000003.ltx"]);
    assert_eq!(history.storage.read(&key), bytes);
    assert_eq!(history.storage.read(&history.manifest()), before);
}
