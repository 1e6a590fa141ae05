//! A host with a directory for databases, and what its daemon says of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use walrust_testkit::assert_same_database;

use crate::daemon::Daemon;
use crate::storage::Storage;
use crate::walrust::Walrust;

/// A host with a directory for databases.
#[derive(Debug)]
pub(crate) struct Host {
    directory: tempfile::TempDir,
    pub(crate) storage: Storage,
    pub(crate) walrust: Walrust,
}

impl Host {
    /// One with an empty directory, and a bucket.
    pub(crate) fn new() -> Self {
        let storage = Storage::directory();
        let walrust = Walrust::on(&storage);
        Self { directory: tempfile::tempdir().expect("a temporary directory"), storage, walrust }
    }

    /// A path in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Creates a database under a name.
    pub(crate) fn create(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let parent = path.parent().expect("it lies in the directory");
        fs::create_dir_all(parent).expect("a new directory");
        let connection = rusqlite::Connection::open(&path).expect("a new database");
        let sql = "PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)";
        connection.execute_batch(sql).expect("valid statements");
        path
    }

    /// What the daemon says of itself.
    pub(crate) fn status(&self) -> Value {
        self.walrust.ask(["status", "--json"]).succeeded().json()
    }

    /// What the status says of each database, by name.
    pub(crate) fn databases(&self) -> BTreeMap<String, Value> {
        let report = self.status();
        let databases = report["databases"].as_array().expect("a list").iter();
        databases.map(|it| (it["name"].as_str().expect("a name").to_owned(), it.clone())).collect()
    }

    /// Waits until the databases are as wanted.
    #[track_caller]
    pub(crate) fn wait_until(
        &self,
        daemon: &mut Daemon,
        description: &str,
        wanted: impl Fn(&BTreeMap<String, Value>) -> bool,
    ) {
        daemon.wait_until(description, |_| {
            let outcome = self.walrust.ask(["status", "--json"]);
            outcome.code == Some(0) && wanted(&self.databases())
        });
    }

    /// Asserts that a database in storage is what lies at a path.
    #[track_caller]
    pub(crate) fn assert_restorable(&self, name: &str, path: &Path) {
        assert_same_database(path, &self.walrust.restored(name, &[]));
    }
}

/// Whether everything that was committed is in storage.
pub(crate) fn all_stored(databases: &BTreeMap<String, Value>) -> bool {
    databases.values().all(|it| it["up_to_date"] == true)
}
