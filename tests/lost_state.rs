//! Storage loses the newest state of a database that nothing happens to.

use std::ffi::OsString;

use tempfile::TempDir;
use walrust_testkit::{TestDatabase, assert_same_database};

use crate::daemon::Daemon;
use crate::small_history::SmallHistory;
use crate::storage::{Storage, on_both_storages};
use crate::walrust::Walrust;

/// A daemon whose database is in storage and rests.
struct Resting {
    _directory: TempDir,
    source: std::path::PathBuf,
    walrust: Walrust,
    daemon: Daemon,
}

/// The key of its only file.
const SNAPSHOT: &str = "app/0000000000000001-0000000000000001.ltx";

impl Resting {
    fn new(storage: &Storage, more: &[&str]) -> Self {
        let (directory, source) = TestDatabase::with_history(1024, 9, 10).close();
        let walrust = Walrust::on(storage);
        let arguments = [source.clone().into_os_string()];
        let more = more.iter().map(OsString::from);
        let mut daemon = walrust.watch_with(arguments.into_iter().chain(more));
        storage.wait_for_manifest(&mut daemon, "app");
        assert_eq!(storage.txids("app"), [1]);
        Self { _directory: directory, source, walrust, daemon }
    }

    /// Stops the daemon, and sees that the newest state is there.
    fn end(self) {
        self.daemon.stop();
        assert_same_database(&self.source, &self.walrust.restored("app", &[]));
    }
}

fn a_damaged_snapshot_is_made_up_for_by_the_validation(storage: &Storage) {
    let storage = storage.another();
    let mut resting = Resting::new(&storage, &["--validation-interval", "1"]);
    let (mut bytes, metadata) = (storage.read(SNAPSHOT), storage.metadata(SNAPSHOT));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    storage.write(SNAPSHOT, &bytes, &metadata);
    storage.wait_for_txid(&mut resting.daemon, "app", 2);
    assert_eq!(storage.read(SNAPSHOT), bytes, "what is stored is never replaced");
    // The state before is still lost.
    let verified = resting.walrust.run(["verify", "app"]).reported(2, &["critical"]);
    let found = SNAPSHOT.replace("app/", "CRITICAL ");
    assert!(verified.stdout.contains(&found), "{}", verified.stdout);
    resting.end();
}

fn a_snapshot_that_was_deleted_is_stored_again_when_one_is_asked_for(storage: &Storage) {
    let storage = storage.another();
    let resting = Resting::new(&storage, &[]);
    let snapshot = || {
        let result = resting.walrust.snapshot(&resting.source, &["--json"]).succeeded().json();
        result["txid"].as_str().expect("a TXID").to_owned()
    };
    assert_eq!(snapshot(), "0000000000000001");
    assert_eq!(storage.txids("app"), [1], "there is one already");
    storage.delete(SNAPSHOT);
    assert_eq!(snapshot(), "0000000000000002");
    let verified = resting.walrust.run(["verify", "app"]).reported(2, &["1 critical"]);
    assert!(verified.stdout.contains("is not there"), "{}", verified.stdout);
    resting.walrust.run(["verify", "app", "--fix"]).reported(1, &["every state can be restored"]);
    resting.walrust.run(["verify", "app"]).succeeded();
    resting.end();
}

fn what_verify_advises_stores_a_damaged_state_anew(storage: &Storage) {
    let storage = storage.another();
    let (_directory, source) = TestDatabase::with_history(1024, 9, 10).close();
    let walrust = Walrust::on(&storage);
    walrust.snapshot(&source, &[]).succeeded();
    let (mut bytes, metadata) = (storage.read(SNAPSHOT), storage.metadata(SNAPSHOT));
    bytes[200] ^= 1;
    storage.write(SNAPSHOT, &bytes, &metadata);
    walrust.run(["verify", "app"]).reported(2, &["`walrust snapshot` stores it anew"]);
    // A daemon that cannot be asked is the only one who could.
    let (mut daemon, other) = (walrust.watch(&[&source]), Walrust::on(&storage));
    daemon.wait_for_line(&["continues"]);
    other.snapshot(&source, &[]).failed(5, &[SNAPSHOT, "stop it and run `walrust snapshot` again"]);
    daemon.stop();
    walrust.snapshot(&source, &[]).succeeded();
    assert_eq!(storage.txids("app"), [1, 2]);
    assert_same_database(&source, &walrust.restored("app", &[]));
}

fn a_manifest_without_any_file_tells_that_all_is_lost(storage: &Storage) {
    let history = SmallHistory::of("first", storage.another());
    let (walrust, storage) = (&history.walrust, &history.storage);
    let source = format!("{}/app", storage.url());
    let replicate = |name: &str| {
        let local = walrust.file(name).display().to_string();
        walrust.ask(["replicate", &source, "--local", &local, "--once"])
    };
    replicate("follows.db").succeeded();
    for file in storage.ltx_files("app") {
        storage.delete(&format!("app/{file}"));
    }
    let manifest = history.manifest();
    let phrases = [manifest.as_str(), "lists 7 files, none is there: all states are lost"];
    for more in [&[][..], &["--txid", "3"], &["--point-in-time", "1s ago"], &["--plan"]] {
        history.restore_fails(more).failed(5, &phrases);
    }
    walrust.run(["list", "app"]).failed(5, &phrases);
    walrust.run(["list", "app", "--json"]).failed(5, &phrases);
    let target = Storage::directory();
    walrust.run(["export", "app", "--to", &format!("{}/db", target.url())]).failed(5, &phrases);
    replicate("new.db").failed(5, &phrases);
    replicate("follows.db").failed(5, &phrases);
    let all = walrust.run(["list"]).succeeded();
    assert!(all.stdout.contains("none"), "{}", all.stdout);
    // As it advises.
    walrust.snapshot(&history.source, &[]).succeeded();
    assert_same_database(&history.source, &walrust.restored("app", &[]));
    // Without a manifest nobody knows that there was anything.
    for key in storage.keys("") {
        storage.delete(&key);
    }
    history.restore_fails(&[]).failed(6, &["no backup named \"app\""]);
    walrust.run(["list", "app"]).failed(6, &["no backup named \"app\""]);
}

on_both_storages!(
    a_manifest_without_any_file_tells_that_all_is_lost,
    a_damaged_snapshot_is_made_up_for_by_the_validation,
    a_snapshot_that_was_deleted_is_stored_again_when_one_is_asked_for,
    what_verify_advises_stores_a_damaged_state_anew,
);
