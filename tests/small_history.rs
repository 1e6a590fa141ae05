//! A history of a few small files: a snapshot, incrementals, another snapshot, and the manifest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use walrust_storage::Metadata;
use walrust_testkit::connect;

use crate::storage::Storage;
use crate::walrust::{Outcome, Walrust, names_in};

/// The name of the database.
pub(crate) const NAME: &str = "app";
/// The newest state. The files are the snapshots of TXID 1 and 4, and one file for each TXID
/// behind the first.
pub(crate) const HEAD: u64 = 6;

/// A history in storage.
#[derive(Debug)]
pub(crate) struct SmallHistory {
    pub(crate) storage: Storage,
    pub(crate) walrust: Walrust,
    pub(crate) source: PathBuf,
    _directory: TempDir,
    /// Bytes and metadata of all objects as they were stored.
    objects: BTreeMap<String, (Vec<u8>, Metadata)>,
}

impl SmallHistory {
    pub(crate) fn new() -> Self {
        Self::of("first", Storage::directory())
    }

    /// The history of a database with rows that another history does not have.
    pub(crate) fn of(rows: &str, storage: Storage) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let source = directory.path().join("app.db");
        let application = connect(&source, 512);
        application
            .execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, x); CREATE INDEX i ON t (x);")
            .expect("the schema of a new database");
        let walrust = Walrust::on(&storage);
        let mut daemon = walrust.watch(&[&source]);
        storage.wait_for_txid(&mut daemon, NAME, 1);
        for txid in 2..=HEAD {
            let sql = format!("INSERT INTO t (x) VALUES ('{rows} {txid}')");
            application.execute_batch(&sql).expect("the table is there");
            storage.wait_for_txid(&mut daemon, NAME, txid);
            if txid == 4 {
                walrust.snapshot(&source, &[]).succeeded();
            }
        }
        drop(application);
        daemon.stop();
        let keys = storage.keys("");
        assert_eq!(keys.len(), 8, "7 files and the manifest: {keys:?}");
        let object = |key: &String| (storage.read(key), storage.metadata(key));
        let objects = keys.iter().map(|key| (key.clone(), object(key))).collect();
        Self { storage, walrust, source, _directory: directory, objects }
    }

    /// The keys of all objects, sorted.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.objects.keys().cloned().collect()
    }

    /// The key of a file.
    pub(crate) fn key(&self, min: u64, max: u64) -> String {
        let key = format!("{NAME}/{min:016x}-{max:016x}.ltx");
        assert!(self.objects.contains_key(&key), "{key} is not in {:?}", self.keys());
        key
    }

    /// The key of the manifest.
    pub(crate) fn manifest(&self) -> String {
        format!("{NAME}/manifest.json")
    }

    /// What was stored under a key.
    pub(crate) fn bytes(&self, key: &str) -> &[u8] {
        &self.objects[key].0
    }

    /// The metadata that was stored with it.
    pub(crate) fn metadata(&self, key: &str) -> &Metadata {
        &self.objects[key].1
    }

    /// Puts every object back as it was.
    pub(crate) fn repair(&self) {
        for (key, (bytes, metadata)) in &self.objects {
            self.storage.write(key, bytes, metadata);
        }
    }

    /// Takes from all objects the checksum that storage keeps beside them.
    pub(crate) fn forget_metadata(&mut self) {
        for (_, metadata) in self.objects.values_mut() {
            metadata.clear();
        }
        self.repair();
    }

    /// A restore which must fail and leave nothing behind.
    #[track_caller]
    pub(crate) fn restore_fails(&self, more: &[&str]) -> Outcome {
        let parent = self.walrust.file("outputs");
        std::fs::create_dir_all(&parent).expect("the directory is writable");
        let outcome = self.walrust.restore(NAME, &parent.join("out.db"), more);
        assert_ne!(outcome.code, Some(0), "restored from damaged files: {}", outcome.stdout);
        assert_empty(&parent);
        outcome
    }
}

/// Asserts that nothing is in a directory, also nothing hidden.
#[track_caller]
pub(crate) fn assert_empty(directory: &Path) {
    assert_eq!(names_in(directory), [""; 0], "left behind in {}", directory.display());
}
