//! What happens to a history while a replica follows it, or while it does not.

use nix::sys::signal::Signal;
use serde_json::Value;
use walrust_ltx::{Decoder, Encoder, Header, MergeOptions, Mode, merge};
use walrust_storage::Metadata;
use walrust_testkit::{SqliteLibrary, assert_same_database, connect};

use super::{Replica, events, replica_at, rows};
use crate::small_history::{HEAD, NAME, SmallHistory};
use crate::storage::Storage;
use crate::walrust::Walrust;

fn applied(txids: &[u64]) -> Vec<(String, u64)> {
    txids.iter().map(|txid| ("applied".to_owned(), *txid)).collect()
}

/// Replaces files of a history by the file that they merge to.
fn merge_files(history: &SmallHistory, files: &[(u64, u64)]) {
    let keys: Vec<String> = files.iter().map(|(min, max)| history.key(*min, *max)).collect();
    let inputs = keys.iter().map(|key| Decoder::new(history.bytes(key), Mode::Strict));
    let inputs = inputs.collect::<Result<Vec<_>, _>>().expect("files of walrust");
    let (merged, header, _) = merge(inputs, Vec::new(), MergeOptions::default())
        .expect("files that continue one another");
    let key = format!("{NAME}/{}", header.file_name());
    history.storage.write(&key, &merged, &Metadata::new());
    let mut manifest: Value =
        serde_json::from_slice(history.bytes(&history.manifest())).expect("a manifest");
    let entries = manifest["files"].as_array_mut().expect("a list of files");
    let merged = |entry: &Value| keys.iter().any(|key| key.ends_with(&name_of(entry)));
    entries.retain(|entry| !merged(entry));
    let manifest = manifest.to_string();
    history.storage.write(&history.manifest(), manifest.as_bytes(), &Metadata::new());
    keys.iter().for_each(|key| history.storage.delete(key));
}

/// The name of the file of an entry.
fn name_of(entry: &Value) -> String {
    let txid = |key: &str| entry[key].as_str().expect("a TXID").to_owned();
    format!("{}-{}.ltx", txid("min"), txid("max"))
}

#[test]
fn every_file_that_continues_is_one_state() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 2);
    assert_eq!(replica.events(), applied(&[3, 4, 5, 6]));
    assert_same_database(&history.source, &replica.path);
}

#[test]
fn c12_a_gap_leaves_the_replica_where_it_is_until_a_snapshot_leads_on() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 2);
    let before = rows(&replica.path);
    history.storage.delete(&history.key(3, 3));
    history.storage.delete(&history.key(1, 4));
    let next = history.key(4, 4);
    let phrases = ["nothing continues TXID 0000000000000002", &next, "stays"];
    for _ in 0..2 {
        replica.catch_up().failed(6, &phrases);
        assert_eq!(rows(&replica.path), before);
    }
    // While it follows it waits, longer from time to time, and says so.
    let mut follower = replica.follow();
    follower.wait_for_line(&["cannot be updated", &next]);
    follower.signal(Signal::SIGTERM);
    assert_eq!(events(&follower.wait().succeeded()), []);
    let key = history.key(1, 4);
    history.storage.write(&key, history.bytes(&key), history.metadata(&key));
    assert_eq!(replica.events(), [("rebuilt".to_owned(), HEAD)]);
    assert_same_database(&history.source, &replica.path);
}

#[test]
fn c12_files_that_were_merged_over_the_state_lead_on() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 4);
    // The middle of the merged file is the state of the replica.
    merge_files(&history, &[(3, 3), (4, 4), (5, 5), (6, 6)]);
    assert_eq!(replica.events(), applied(&[HEAD]));
    assert_same_database(&history.source, &replica.path);
}

#[test]
fn c12_a_file_that_vanishes_while_it_follows_is_gone_around() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 4);
    history.storage.delete(&history.key(6, 6));
    history.storage.delete(&history.manifest());
    let mut follower = replica.follow();
    replica.wait_for_txid(&mut follower, 5);
    history.repair();
    merge_files(&history, &[(5, 5), (6, 6)]);
    replica.wait_for_txid(&mut follower, HEAD);
    follower.signal(Signal::SIGTERM);
    follower.wait().succeeded();
    assert_same_database(&history.source, &replica.path);
}

#[test]
fn c12_a_history_whose_old_files_are_gone_rebuilds_the_replica_under_its_readers() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 2);
    for txid in [2, 3, 4] {
        history.storage.delete(&history.key(txid, txid));
    }
    let mut reader = replica.reader(SqliteLibrary::System);
    reader.run("BEGIN");
    let before = reader.run("SELECT id, x FROM t");
    assert_eq!(replica.events(), [("rebuilt".to_owned(), HEAD)]);
    assert_eq!(reader.run("SELECT id, x FROM t"), before, "the reader keeps its state");
    reader.run("COMMIT");
    assert_eq!(reader.run("SELECT count(*) FROM t"), [[(HEAD - 1).to_string()]]);
    reader.close();
    assert_same_database(&history.source, &replica.path);
}

#[test]
fn c12_a_history_that_was_taken_back_does_not_take_the_replica_back() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, HEAD);
    let before = rows(&replica.path);
    for key in [history.key(5, 5), history.key(6, 6)] {
        history.storage.delete(&key);
    }
    replica.catch_up().failed(6, &["TXID 0000000000000004", "does not go back"]);
    history.keys().iter().for_each(|key| history.storage.delete(key));
    replica.catch_up().failed(6, &["nothing to restore"]);
    assert_eq!(rows(&replica.path), before);
}

#[test]
fn c12_another_history_under_the_name_is_followed_from_its_snapshot() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, HEAD);
    // The same TXIDs and page size, other rows.
    let other = SmallHistory::of("the other", Storage::directory());
    history.keys().iter().for_each(|key| history.storage.delete(key));
    for key in other.keys() {
        history.storage.write(&key, other.bytes(&key), other.metadata(&key));
    }
    assert_eq!(replica.events(), [("rebuilt".to_owned(), HEAD)]);
    assert_same_database(&other.source, &replica.path);
    assert_eq!(replica.events(), [("current".to_owned(), HEAD)], "once");
}

#[test]
fn c12_a_new_chain_in_the_same_history_rebuilds_the_replica() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 4);
    // A replaced database: the next file belongs to its snapshot, not to the state of the replica.
    let other = SmallHistory::of("the other", Storage::directory());
    for key in [history.key(1, 4), history.key(5, 5), history.key(6, 6)] {
        history.storage.write(&key, other.bytes(&key), other.metadata(&key));
    }
    history.storage.delete(&history.manifest());
    assert_eq!(replica.events(), [("rebuilt".to_owned(), HEAD)]);
    assert_same_database(&other.source, &replica.path);
}

#[test]
fn c12_a_damaged_file_is_not_applied() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 4);
    let key = history.key(5, 5);
    let mut bytes = history.bytes(&key).to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let before = rows(&replica.path);
    for metadata in [history.metadata(&key).clone(), Metadata::new()] {
        history.storage.write(&key, &bytes, &metadata);
        replica.catch_up().failed(5, &[&key]);
        assert_eq!(rows(&replica.path), before);
    }
    history.repair();
    assert_eq!(replica.events(), applied(&[5, 6]));
}

#[test]
fn c12_a_file_with_wrong_pages_is_not_applied_though_its_links_are_right() {
    let history = SmallHistory::new();
    let replica = replica_at(&history, 4);
    let key = history.key(5, 5);
    let mut decoder = Decoder::new(history.bytes(&key), Mode::Strict).unwrap();
    let header: Header = decoder.header().clone();
    let mut encoder = Encoder::new(Vec::new(), header.clone()).unwrap();
    let mut page = vec![0; header.page_size.bytes()];
    while let Some(pgno) = decoder.next_page(&mut page).unwrap() {
        // The same change of two pages would cancel itself out of a checksum that is linear.
        page[usize::try_from(pgno).unwrap()] ^= 1;
        encoder.page(pgno, &page).unwrap();
    }
    let (forged, _) = encoder.finish(decoder.finish().unwrap().post_apply).unwrap();
    let before = rows(&replica.path);
    history.storage.write(&key, &forged, &Metadata::new());
    replica.catch_up().failed(5, &[&key, "checksum"]);
    assert_eq!(rows(&replica.path), before);
}

#[test]
fn a_database_with_another_page_size_takes_the_place_when_no_reader_has_it_open() {
    let history = SmallHistory::new();
    let replica = Replica::of(&history.storage, NAME);
    replica.catch_up().succeeded();
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("app.db");
    connect(&source, 8192)
        .execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, x); INSERT INTO t (x) VALUES ('a');",
        )
        .unwrap();
    let other = Storage::directory();
    Walrust::on(&other).snapshot(&source, &[]).succeeded();
    history.keys().iter().for_each(|key| history.storage.delete(key));
    for key in other.keys("") {
        history.storage.write(&key, &other.read(&key), &other.metadata(&key));
    }
    let mut reader = replica.reader(SqliteLibrary::System);
    let before = reader.run("SELECT id, x FROM t");
    replica.catch_up().failed(3, &["8192 bytes", "readers"]);
    assert_eq!(reader.run("SELECT id, x FROM t"), before);
    reader.close();
    assert_eq!(replica.events(), [("rebuilt".to_owned(), 1)]);
    assert_same_database(&source, &replica.path);
}

#[test]
fn a_history_of_litestream_is_refused() {
    let history = SmallHistory::new();
    let other = Storage::directory();
    let key = history.key(1, 1);
    let file = key.rsplit('/').next().unwrap();
    other.write(&format!("db/ltx/0/{file}"), history.bytes(&key), &Metadata::new());
    let replica = Replica::of(&other, "db");
    replica.catch_up().failed(6, &["litestream", "only histories of walrust"]);
    assert_eq!(replica.walrust.files(), [""; 0]);
}
