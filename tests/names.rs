//! The name under which a database is stored.

use std::fs;
use std::path::{Path, PathBuf};

use walrust_testkit::{TestDatabase, assert_same_database};

use crate::small_history::{NAME, SmallHistory};
use crate::storage::Storage;
use crate::walrust::Walrust;

/// A database below a directory of its own, which nobody has open.
fn database(parent: &Path, folder: &str, seed: u64) -> PathBuf {
    let (_directory, source) = TestDatabase::with_history(1024, seed, 10).close();
    let path = parent.join(folder).join("app.db");
    fs::create_dir_all(path.parent().expect("it has one")).expect("a new directory");
    fs::copy(source, &path).expect("nobody has it open");
    path
}

#[test]
fn equal_stems_get_names_that_tell_them_apart() {
    let parent = tempfile::tempdir().unwrap();
    let smiths = database(parent.path(), "smiths", 1);
    let romneys = database(parent.path(), "romneys", 2);
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let mut daemon = walrust.watch(&[&smiths, &romneys]);
    storage.wait_for_txid(&mut daemon, "smiths/app", 1);
    storage.wait_for_txid(&mut daemon, "romneys/app", 1);
    daemon.stop();
    let listing = walrust.run(["list", "--json"]).succeeded().json();
    let databases = listing["databases"].as_array().unwrap();
    let names: Vec<_> = databases.iter().map(|database| &database["name"]).collect();
    assert_eq!(names, ["romneys/app", "smiths/app"]);
    assert_same_database(&smiths, &walrust.restored("smiths/app", &[]));
    assert_same_database(&romneys, &walrust.restored("romneys/app", &[]));
}

#[test]
fn a_configured_prefix_is_the_name_for_every_command() {
    let parent = tempfile::tempdir().unwrap();
    let source = database(parent.path(), "data", 3);
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    walrust.configure(&format!(
        "[[databases]]\npath = {:?}\nprefix = \"production/main\"\n",
        source.display().to_string()
    ));
    let mut daemon = walrust.watch(&[]);
    storage.wait_for_txid(&mut daemon, "production/main", 1);
    daemon.stop();
    walrust.snapshot(&source, &[]).succeeded();
    assert!(storage.keys("").iter().all(|key| key.starts_with("production/main/")));
    assert_same_database(&source, &walrust.restored("production/main", &[]));
}

#[test]
fn two_databases_never_share_a_name() {
    let parent = tempfile::tempdir().unwrap();
    let one = database(parent.path(), "one", 4);
    let two = database(parent.path(), "two", 5);
    let walrust = Walrust::on(&Storage::directory());
    let sections = [&one, &two].map(|path| {
        format!("[[databases]]\npath = {:?}\nprefix = \"same\"\n", path.display().to_string())
    });
    walrust.configure(&sections.concat());
    let (one, two) = (one.display().to_string(), two.display().to_string());
    walrust.run(["watch"]).failed(2, &["\"same\"", &one, &two, "prefix"]);
}

#[test]
fn d06_a_snapshot_keeps_the_name_for_the_daemon_that_comes_later() {
    let parent = tempfile::tempdir().unwrap();
    let smiths = database(parent.path(), "smiths", 6);
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    walrust.snapshot(&smiths, &[]).succeeded();
    let romneys = database(parent.path(), "romneys", 7);
    let mut daemon = walrust.watch(&[&smiths, &romneys]);
    storage.wait_for_txid(&mut daemon, "romneys/app", 1);
    storage.wait_for_txid(&mut daemon, "app", 1);
    daemon.stop();
    assert!(!storage.keys("").iter().any(|key| key.starts_with("smiths/")));
}

#[test]
fn tenants_that_are_named_like_levels_of_litestream_are_databases_of_their_own() {
    let history = SmallHistory::new();
    let storage = Storage::directory();
    let tenants = ["0000", "0001", "0009"].map(|tenant| format!("tenants/{tenant}"));
    for name in &tenants {
        for key in history.keys() {
            let key_there = key.replace(&format!("{NAME}/"), &format!("{name}/"));
            storage.write(&key_there, history.bytes(&key), history.metadata(&key));
        }
    }
    let walrust = Walrust::on(&storage);
    for lost in [false, true] {
        if lost {
            storage.delete("tenants/0001/manifest.json");
        }
        let listing = walrust.run(["list", "--json"]).succeeded().json();
        let databases = listing["databases"].as_array().expect("a list").iter();
        let names: Vec<_> = databases.map(|it| it["name"].as_str().expect("a name")).collect();
        assert_eq!(names, tenants);
        let code = if lost { 1 } else { 0 };
        let outcome = walrust.run(["verify", "--all", "--deep", "--json"]).reported(code, &[]);
        let verified = outcome.json()["databases"].as_array().expect("a list").len();
        assert_eq!(verified, tenants.len());
        let output = walrust.file("out.db");
        walrust
            .restore("tenants", &output, &["--force"])
            .failed(6, &["no backup named \"tenants\""]);
        for name in &tenants {
            walrust.restore(name, &output, &["--force"]).succeeded();
            assert_same_database(&history.source, &output);
        }
    }
}
