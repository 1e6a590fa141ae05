//! What `verify` advises against what it found helps.

use walrust_storage::Metadata;

use super::verify;
use crate::small_history::{NAME, SmallHistory};
use crate::storage::Storage;
use crate::walrust::{Outcome, Walrust};

const SNAPSHOT: &str = "`walrust snapshot` stores it anew";
const DELETION: &str = "Delete the CRITICAL objects and run `walrust verify --fix`";
const FORGETTING: &str = "`walrust verify --fix` takes the missing files out of the manifest";
const REPAIR: &str = "`walrust verify --fix` repairs the manifest";
const NEWER: &str = "use a newer walrust";
const NO_BACKUP: &str = "there is no backup named \"nobody\"";
const NO_PLACE: &str = "is this the right bucket and prefix?";

/// Asserts that an advice is given, and no other one.
#[track_caller]
fn assert_advised(outcome: Outcome, code: i32, advice: &str) -> Outcome {
    let outcome = outcome.reported(code, &[advice]);
    for other in [SNAPSHOT, DELETION, FORGETTING, REPAIR, NEWER, NO_BACKUP, NO_PLACE] {
        let is_given = outcome.stderr.contains(other);
        assert!(!is_given || other == advice, "{other:?} is in: {}", outcome.stderr);
    }
    outcome
}

fn damage(history: &SmallHistory, key: &str) {
    let mut bytes = history.bytes(key).to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    history.storage.write(key, &bytes, history.metadata(key));
}

/// The names of the files that are called critical.
fn critical(outcome: &Outcome) -> Vec<String> {
    let lines = outcome.stdout.lines().filter_map(|line| line.trim().strip_prefix("CRITICAL "));
    let names = lines.filter_map(|line| Some(line.split_once(": ")?.0.to_owned()));
    names.map(|name| name.trim_start_matches("app/").to_owned()).collect()
}

#[test]
fn older_objects_that_are_of_no_use_are_named_in_one_run_and_deleted() {
    let history = SmallHistory::new();
    for (lost, behind) in [((1, 1), 2..=4), ((2, 2), 3..=4), ((3, 3), 4..=4)] {
        damage(&history, &history.key(lost.0, lost.1));
        let outcome = assert_advised(verify(&history, &[]), 2, DELETION);
        let behind = behind.map(|txid| (txid, txid));
        let named: Vec<String> = std::iter::once(lost)
            .chain(behind)
            .map(|(min, max)| history.key(min, max).replace("app/", ""))
            .collect();
        assert_eq!(critical(&outcome), named);
        for name in named {
            history.storage.delete(&format!("{NAME}/{name}"));
        }
        verify(&history, &["--fix"]).reported(1, &["every state can be restored"]);
        verify(&history, &["--deep"]).succeeded();
        history.repair();
    }
}

#[test]
fn a_snapshot_is_advised_if_the_newest_state_is_lost() {
    let history = SmallHistory::new();
    for (min, max) in [(1, 4), (5, 5), (6, 6)] {
        let key = history.key(min, max);
        damage(&history, &key);
        assert_advised(verify(&history, &[]), 2, SNAPSHOT);
        history.storage.delete(&key);
        if (min, max) != (1, 4) {
            assert_advised(verify(&history, &[]), 2, SNAPSHOT);
        } else {
            // Other files lead there.
            assert_advised(verify(&history, &[]), 2, FORGETTING);
        }
        history.repair();
    }
}

#[test]
fn files_behind_one_that_is_gone_are_named_in_one_run() {
    let history = SmallHistory::new();
    history.storage.delete(&history.key(2, 2));
    let outcome = assert_advised(verify(&history, &[]), 2, DELETION);
    let names = [(3, 3), (4, 4), (2, 2)];
    let names = names.map(|(min, max)| history.key(min, max).replace("app/", ""));
    assert_eq!(critical(&outcome), names);
    history.storage.delete(&history.key(3, 3));
    history.storage.delete(&history.key(4, 4));
    assert_advised(verify(&history, &[]), 2, FORGETTING);
    verify(&history, &["--fix"]).reported(1, &["every state can be restored"]);
    verify(&history, &[]).succeeded();
}

#[test]
fn a_repair_is_advised_if_only_the_manifest_is_wrong() {
    let history = SmallHistory::new();
    let manifest = history.manifest();
    let text = String::from_utf8(history.bytes(&manifest).to_vec()).expect("JSON");
    let at = text.rfind("\"commit\": ").expect("an entry") + 10;
    let mut wrong = text.clone();
    wrong.insert(at, '7');
    for (bytes, code) in [(Some(wrong), 2), (Some("{}".to_owned()), 2), (None, 1)] {
        match bytes {
            Some(bytes) => history.storage.write(&manifest, bytes.as_bytes(), &Metadata::new()),
            None => history.storage.delete(&manifest),
        }
        assert_advised(verify(&history, &[]), code, REPAIR);
        assert!(!verify(&history, &["--fix"]).stderr.contains("--fix"), "it is done");
        verify(&history, &[]).succeeded();
        history.repair();
    }
    let newer = text.replace("\"format\": 1", "\"format\": 2");
    history.storage.write(&manifest, newer.as_bytes(), &Metadata::new());
    assert_advised(verify(&history, &[]), 2, NEWER);
}

#[test]
fn where_nothing_is_nothing_can_be_stored_anew() {
    let storage = Storage::directory();
    storage.write("notes.txt", b"no database", &Metadata::new());
    let walrust = Walrust::on(&storage);
    assert_advised(walrust.run(["verify", "nobody"]), 2, NO_BACKUP);
    assert_advised(walrust.run(["verify", "--all"]), 2, NO_PLACE);
}

#[test]
fn a_repair_that_forgets_the_newest_states_says_so() {
    let history = SmallHistory::new();
    let lose = || {
        for (min, max) in [(5, 5), (6, 6)] {
            history.storage.delete(&history.key(min, max));
        }
    };
    lose();
    let outcome = assert_advised(verify(&history, &["--fix"]), 1, SNAPSHOT);
    assert!(!outcome.stderr.contains("every state"), "{}", outcome.stderr);
    let end = "LOST - the newest states, up to TXID 0000000000000006 (6), are gone from storage; the \
               newest state that can be restored is TXID 0000000000000004 (4)\n";
    assert!(outcome.stdout.ends_with(end), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains("integrity verified"), "{}", outcome.stdout);
    history.repair();
    lose();
    let result = verify(&history, &["--fix", "--json"]).reported(1, &[SNAPSHOT]).json();
    assert_eq!(
        (&result["result"], &result["newest_txid"], &result["lost_txid"]),
        (&"warnings".into(), &"0000000000000004".into(), &"0000000000000006".into())
    );
    let result = verify(&history, &["--json"]).succeeded().json();
    assert!(result["lost_txid"].is_null(), "{result:#}");
}
