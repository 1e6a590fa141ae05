//! What a replica asks of storage, and what it does when storage does not answer.

use nix::sys::signal::Signal;
use walrust_testkit::{SqliteLibrary, assert_same_database, connect};

use super::{Replica, replica_at};
use crate::fault_proxy::{Exchange, FaultProxy};
use crate::small_history::{NAME, SmallHistory};
use crate::storage::Storage;
use crate::walrust::Walrust;

/// A replica whose requests go through a proxy.
fn behind(proxy: &FaultProxy, storage: &Storage) -> Replica {
    let mut replica = Replica::of(storage, NAME);
    replica.walrust.set("AWS_ENDPOINT_URL_S3", &proxy.url());
    replica
}

/// The LTX files that were fetched, by their names.
fn fetched(exchanges: &[Exchange]) -> Vec<String> {
    let gets = exchanges.iter().filter(|exchange| exchange.method == "GET");
    gets.filter_map(|exchange| exchange.file().map(|file| file.to_string())).collect()
}

#[test]
fn c12_a_look_is_one_listing_and_a_file_is_fetched_once() {
    let history = SmallHistory::of("first", Storage::s3());
    let proxy = FaultProxy::start();
    let replica = behind(&proxy, &history.storage);
    let mut follower = replica.follow();
    replica.wait_for_txid(&mut follower, 6);
    // After the first look that finds nothing.
    let mut begun = 0;
    follower.wait_until("a settled replica", |_| {
        let exchanges = proxy.exchanges();
        begun = exchanges.len();
        exchanges.iter().rev().take_while(|exchange| exchange.lists()).count() >= 3
    });
    follower.wait_until("ten looks", |_| proxy.exchanges().len() >= begun + 10);
    let exchanges = proxy.exchanges();
    let looks = &exchanges[begun..begun + 10];
    assert!(looks.iter().all(Exchange::lists), "{looks:?}");

    // One more file: it is fetched, and nothing else.
    let walrust = Walrust::on(&history.storage);
    let mut daemon = walrust.watch(&[&history.source]);
    connect(&history.source, 512).execute_batch("INSERT INTO t (x) VALUES ('one more')").unwrap();
    history.storage.wait_for_txid(&mut daemon, NAME, 7);
    replica.wait_for_txid(&mut follower, 7);
    let files = fetched(&proxy.exchanges()[begun..]);
    assert_eq!(files, ["0000000000000007-0000000000000007.ltx"]);
    daemon.stop();
    follower.signal(Signal::SIGTERM);
    follower.wait().succeeded();
    assert_same_database(&history.source, &replica.path);
}

#[test]
fn c12_a_snapshot_that_cannot_be_restored_is_not_fetched_at_each_look() {
    let history = SmallHistory::of("first", Storage::s3());
    let proxy = FaultProxy::start();
    let mut replica = replica_at(&history, 2);
    replica.walrust.set("AWS_ENDPOINT_URL_S3", &proxy.url());
    // Nothing but a damaged snapshot leads on.
    for txid in [2, 3, 4] {
        history.storage.delete(&history.key(txid, txid));
    }
    let snapshot = history.key(1, 4);
    let mut bytes = history.bytes(&snapshot).to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    history.storage.write(&snapshot, &bytes, history.metadata(&snapshot));
    let mut follower = replica.follow();
    follower.wait_for_line(&["cannot be updated", &snapshot]);
    follower.wait_until("it is refused again and again", |log| {
        log.matches("no file has changed since").count() >= 3
    });
    let files = fetched(&proxy.exchanges());
    let fetches = files.iter().filter(|file| snapshot.ends_with(file.as_str())).count();
    assert_eq!(fetches, 1, "{files:?}");
    history.repair();
    replica.wait_for_txid(&mut follower, 6);
    follower.signal(Signal::SIGTERM);
    follower.wait().succeeded();
    assert_same_database(&history.source, &replica.path);
}

#[test]
fn c17_an_outage_is_waited_for_and_readers_go_on() {
    let history = SmallHistory::of("first", Storage::s3());
    let proxy = FaultProxy::start();
    let replica = behind(&proxy, &history.storage);
    let mut follower = replica.follow();
    replica.wait_for_txid(&mut follower, 6);
    proxy.go_down();
    let mut reader = replica.reader(SqliteLibrary::System);
    follower.wait_for_line(&["cannot be updated"]);
    assert_eq!(reader.run("SELECT count(*) FROM t"), [["5"]]);

    let walrust = Walrust::on(&history.storage);
    let mut daemon = walrust.watch(&[&history.source]);
    connect(&history.source, 512).execute_batch("INSERT INTO t (x) VALUES ('one more')").unwrap();
    history.storage.wait_for_txid(&mut daemon, NAME, 7);
    daemon.stop();
    assert_eq!(reader.run("SELECT count(*) FROM t"), [["5"]]);
    follower.assert_running();
    proxy.pass();
    replica.wait_for_txid(&mut follower, 7);
    assert_eq!(reader.run("SELECT count(*) FROM t"), [["6"]]);
    reader.close();
    follower.signal(Signal::SIGTERM);
    follower.wait().succeeded();
}

#[test]
fn storage_that_is_down_at_the_first_run_is_an_error_and_later_is_not() {
    let history = SmallHistory::of("first", Storage::s3());
    let proxy = FaultProxy::start();
    let replica = behind(&proxy, &history.storage);
    proxy.set(|_| crate::fault_proxy::Fault::Answer(403, "AccessDenied"));
    replica.follow().wait().failed(4, &["AccessDenied"]);
    assert_eq!(replica.walrust.files(), [""; 0]);
    proxy.pass();
    replica.catch_up().succeeded();
    proxy.set(|_| crate::fault_proxy::Fault::Answer(403, "AccessDenied"));
    let mut follower = replica.follow();
    follower.wait_for_line(&["cannot be updated", "AccessDenied"]);
    follower.signal(Signal::SIGTERM);
    follower.wait().succeeded();
}
