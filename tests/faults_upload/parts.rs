//! Files that are too large for one request (B13).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use walrust_testkit::TestDatabase;

use super::behind;
use crate::fault_proxy::{Exchange, Fault, FaultProxy};
use crate::storage::Storage;

const MIB: u64 = 1024 * 1024;

/// A database that does not get smaller when it is compressed.
fn large_database(mib: u64) -> (TempDir, PathBuf) {
    let database = TestDatabase::new(4096);
    database.run(&format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {mib})
         INSERT INTO documents (body) SELECT randomblob({MIB}) FROM n"
    ));
    database.close()
}

/// The number of a part, if a request uploads one.
fn part(exchange: &Exchange) -> Option<u32> {
    exchange.uploads()?;
    exchange.target.split_once("partNumber=")?.1.split('&').next()?.parse().ok()
}

/// The uploads in parts, and how many requests have ended each.
fn ends(proxy: &FaultProxy) -> BTreeMap<String, usize> {
    let mut uploads = BTreeMap::new();
    for exchange in proxy.exchanges() {
        let Some((_, id)) = exchange.target.split_once("uploadId=") else { continue };
        let id = id.split('&').next().unwrap_or_default().to_owned();
        let ended = matches!(exchange.method.as_str(), "POST" | "DELETE")
            && matches!(exchange.status, Some(200 | 204));
        *uploads.entry(id).or_default() += usize::from(ended);
    }
    uploads
}

#[test]
fn b13_a_large_snapshot_goes_in_parts() {
    let (_directory, source) = large_database(110);
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    let mut daemon = walrust.watch(&[&source]);
    storage.wait_for_manifest(&mut daemon, "app");
    daemon.stop();
    let parts: Vec<_> = proxy.uploads("app").into_iter().filter(|it| part(it).is_some()).collect();
    assert!(parts.len() >= 7, "parts of 16 MiB: {}", parts.len());
    assert!(parts.iter().all(|part| (1..=16 * MIB).contains(&part.length)));
    assert_eq!(ends(&proxy).into_values().collect::<Vec<_>>(), [1]);
    walrust.restored("app", &[]);
}

#[test]
fn b13_parts_of_an_upload_that_failed_are_not_left_behind() {
    let (_directory, source) = large_database(40);
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    let failures = AtomicUsize::new(0);
    proxy.set(move |exchange| match part(exchange) {
        Some(2) if failures.fetch_add(1, Ordering::Relaxed) < 2 => {
            Fault::Answer(500, "InternalError")
        }
        _ => Fault::Pass,
    });
    let mut daemon = walrust.watch(&[&source]);
    storage.wait_for_manifest(&mut daemon, "app");
    daemon.stop();
    assert_eq!(ends(&proxy).into_values().collect::<Vec<_>>(), [1, 1, 1], "all have an end");
    walrust.restored("app", &[]);
}

#[test]
fn b13_a_clean_stop_leaves_no_parts_behind() {
    let (_directory, source) = large_database(40);
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    // The next snapshot is beside the history, and nobody waits for it at the end.
    walrust.configure("[sync]\nmax_changes = 1\n");
    let mut daemon = walrust.watch(&[&source]);
    storage.wait_for_manifest(&mut daemon, "app");
    let earlier = ends(&proxy).len();
    proxy.set(|exchange| match part(exchange) {
        Some(2) => Fault::Silence,
        _ => Fault::Pass,
    });
    rusqlite::Connection::open(&source).unwrap().execute("CREATE TABLE extra (x)", []).unwrap();
    storage.wait_for_txid(&mut daemon, "app", 2);
    daemon.wait_until("a part hangs", |_| {
        proxy.exchanges().iter().any(|it| part(it) == Some(2) && it.status.is_none())
    });
    let log = daemon.terminate().stderr;
    assert!(ends(&proxy).len() > earlier, "another upload in parts had begun");
    assert!(ends(&proxy).values().all(|ends| *ends == 1), "not all have an end:\n{log}");
}
