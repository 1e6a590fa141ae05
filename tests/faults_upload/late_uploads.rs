//! Uploads of a host that is gone, which come in when another has begun behind the same state.

use walrust_ltx::FileName;
use walrust_testkit::{TestDatabase, assert_same_database};

use super::INSERT;
use super::hosts::replicated;
use crate::daemon::Daemon;
use crate::format::restored;
use crate::storage::Storage;
use crate::walrust::Walrust;

/// What a host had sent when it was lost: one file with five commits behind TXID 5.
struct LateUpload {
    bucket: Storage,
    key: String,
}

impl LateUpload {
    /// Lets another host go on with a copy of a database and of what is stored of it.
    fn of(database: &TestDatabase, storage: &Storage) -> Self {
        let bucket = storage.another();
        for key in storage.keys("") {
            bucket.write(&key, &storage.read(&key), &storage.metadata(&key));
        }
        let copy = database.copied();
        let host = Walrust::on(&bucket);
        let path = copy.path().display().to_string();
        let mut daemon = host.watch_with([&path, "--wal-sync-interval", "1h"]);
        // From then on it sees every commit for itself.
        daemon.wait_until("it has looked at the database", |_| {
            let outcome = host.ask(["status", "--json"]);
            outcome.code == Some(0) && outcome.json()["databases"][0]["up_to_date"] == true
        });
        // The first one that it sees goes at once: it must see all of them together.
        daemon.while_suspended(|| {
            for _ in 0..5 {
                copy.run("INSERT INTO accounts (name, balance) VALUES ('of a lost host', 1)");
            }
        });
        daemon.stop();
        let file = bucket.ltx_files("app").into_iter().max_by_key(|file| file.max);
        let file = file.expect("there are files");
        assert_eq!((file.min.get(), file.max.get()), (6, 10), "one file has all five");
        Self { bucket, key: format!("app/{file}") }
    }

    fn arrives(&self, storage: &Storage) {
        storage.write(&self.key, &self.bucket.read(&self.key), &self.bucket.metadata(&self.key));
    }
}

/// Commits, and waits until storage has the transaction in a file of its own.
fn commit(database: &TestDatabase, storage: &Storage, daemon: &mut Daemon, txid: u64) {
    database.run(INSERT);
    let is_stored = |file: &FileName| (file.min.get(), file.max.get()) == (txid, txid);
    daemon.wait_until("the commit is stored", |_| storage.ltx_files("app").iter().any(is_stored));
}

/// Asserts that everybody restores the newest state.
fn assert_newest(database: &TestDatabase, storage: &Storage, walrust: &Walrust) {
    assert_same_database(database.path(), &walrust.restored("app", &[]));
    let directory = tempfile::tempdir().expect("a temporary directory");
    assert_same_database(database.path(), &restored(storage, directory.path(), None));
    // The listing of all databases says the same as that of the one.
    let (all, one) = (walrust.run(["list", "--json"]).succeeded().json(), walrust.list("app"));
    let [listed] = all["databases"].as_array().expect("a list").as_slice() else {
        panic!("one database: {all:#}");
    };
    for (key, value) in listed.as_object().expect("keys and values") {
        assert_eq!(*value, one[key], "{key} of {all:#}");
    }
}

#[test]
fn a_late_upload_hides_no_commit_and_is_told() {
    let storage = Storage::directory();
    let database = replicated(&storage, 310);
    let late = LateUpload::of(&database, &storage);
    let walrust = Walrust::on(&storage);
    let mut daemon = walrust.watch(&[database.path()]);
    daemon.wait_for_line(&["continues"]);
    commit(&database, &storage, &mut daemon, 6);
    late.arrives(&storage);
    assert_newest(&database, &storage, &walrust);
    // Beyond its TXIDs, with a file that begins where it ends.
    for txid in 7..=12 {
        commit(&database, &storage, &mut daemon, txid);
        assert_newest(&database, &storage, &walrust);
    }
    daemon.stop();
    assert_newest(&database, &storage, &walrust);
    let list = walrust.list("app");
    let abandoned = |file: &&serde_json::Value| file["abandoned"] == true;
    let files = list["files"].as_array().expect("files");
    let abandoned: Vec<_> = files.iter().filter(abandoned).map(|file| &file["key"]).collect();
    assert_eq!(abandoned, [&late.key]);
    let text = walrust.run(["list", "app"]).succeeded().stdout;
    assert!(text.contains("1 files are of a branch"), "{text}");
    let text = walrust.run(["verify", "app"]).reported(1, &["1 warning"]).stdout;
    assert!(text.contains(&format!("WARNING {}: it is of a branch", late.key)), "{text}");
}

#[test]
fn a_daemon_that_finds_a_late_upload_ahead_of_its_files_goes_on_behind_it() {
    let storage = Storage::directory();
    let database = replicated(&storage, 311);
    let late = LateUpload::of(&database, &storage);
    let walrust = Walrust::on(&storage);
    let mut daemon = walrust.watch(&[database.path()]);
    daemon.wait_for_line(&["continues"]);
    commit(&database, &storage, &mut daemon, 6);
    late.arrives(&storage);
    // It writes its manifest when it stops, and has no time to go on.
    daemon.terminate().failed(1, &["app: ", &late.key, "arrived late"]);
    assert_newest(&database, &storage, &walrust);
    let mut daemon = walrust.watch(&[database.path()]);
    storage.wait_for_txid(&mut daemon, "app", 11);
    daemon.stop();
    assert_newest(&database, &storage, &walrust);
    // Who knows nothing of branches finds the newest state as well: it has the highest TXID.
    let head = storage.head("app").to_string();
    assert_same_database(database.path(), &walrust.restored("app", &["--txid", &head]));
}
