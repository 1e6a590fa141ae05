//! `walrust snapshot`, without a daemon, with one, and beside one that cannot be asked.

use std::fs;
use std::path::{Path, PathBuf};

use walrust_testkit::{TestDatabase, assert_same_database};

use crate::storage::Storage;
use crate::walrust::{QUICK, Walrust};

/// A database under a path, which nobody has open.
fn database(path: PathBuf, seed: u64) -> PathBuf {
    let (_directory, source) = TestDatabase::with_history(1024, seed, 10).close();
    fs::create_dir_all(path.parent().expect("it has one")).expect("a new directory");
    fs::copy(source, &path).expect("nobody has it open");
    path
}

/// A configuration with a pattern for a directory, below a prefix.
fn tenants_in(directory: &Path) -> String {
    let pattern = directory.join("*.db").display().to_string();
    format!(
        "[sync]\nwal_sync_interval = \"20ms\"\n\
         [[databases]]\npath = {pattern:?}\nprefix = \"tenants\"\nmax_changes = 1000\n"
    )
}

#[test]
fn a_match_of_a_pattern_is_stored_where_the_daemon_stores_it() {
    let directory = tempfile::tempdir().unwrap();
    let tenant = database(directory.path().join("a.db"), 1);
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    walrust.configure(&tenants_in(directory.path()));
    // Without a daemon, once by a way around.
    let around = directory.path().join("../").join(directory.path().file_name().unwrap());
    for path in [tenant.clone(), around.join("a.db")] {
        let result = walrust.snapshot(&path, &["--json"]).succeeded().json();
        assert_eq!(result["name"], "tenants/a");
    }
    // The name that local state keeps is that of the pattern as well.
    let mut daemon = walrust.watch_with([""; 0]);
    daemon.wait_for_line(&["continues", "tenants/a"]);
    let outcome = walrust.snapshot(&tenant, &["--json"]).succeeded();
    assert_eq!(outcome.json()["name"], "tenants/a");
    let told = walrust.snapshot(&tenant, &[]).succeeded().stdout;
    assert!(told.contains("snapshot of tenants/a at TXID"), "{told}");
    daemon.stop();
    assert!(storage.keys("").iter().all(|key| key.starts_with("tenants/a/")));
    assert_same_database(&tenant, &walrust.restored("tenants/a", &[]));
}

#[test]
fn what_the_daemon_calls_a_database_is_what_the_snapshot_is_called() {
    let directory = tempfile::tempdir().unwrap();
    let source = database(directory.path().join("app.db"), 2);
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    // Only the daemon reads this file.
    let file = walrust.file("daemon.toml");
    let path = source.display().to_string();
    fs::write(&file, format!("[[databases]]\npath = {path:?}\nprefix = \"production\"\n")).unwrap();
    let file = file.display().to_string();
    let mut daemon = walrust.watch_with([&["--config", file.as_str()][..], &QUICK].concat());
    storage.wait_for_txid(&mut daemon, "production", 1);
    let result = walrust.snapshot(&source, &["--json"]).succeeded().json();
    assert_eq!(result["name"], "production");
    daemon.stop();
}
