//! The stores that the conformance suite runs on, each of them empty.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use walrust_storage::{
    DirectoryStore, MemoryStore, ObjectStore, S3Credentials, S3Options, S3Store,
};

/// One for all tests: each test has a prefix of its own, and buckets are slow to make.
const BUCKET: &str = "walrust-storage-tests";

/// Files above this size are uploaded in parts here.
pub(crate) const MULTIPART_THRESHOLD: u64 = 6 * 1024 * 1024;

/// A store with nothing in it, and a directory for files to be stored.
pub(crate) struct TestStore {
    store: Arc<dyn ObjectStore>,
    scratch: TempDir,
}

impl TestStore {
    fn new(make: impl FnOnce(&Path) -> Arc<dyn ObjectStore>) -> Self {
        let scratch = TempDir::new().unwrap();
        Self { store: make(scratch.path()), scratch }
    }

    pub(crate) fn share(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }
}

impl Deref for TestStore {
    type Target = dyn ObjectStore;

    fn deref(&self) -> &Self::Target {
        self.store.as_ref()
    }
}

pub(crate) async fn memory() -> TestStore {
    TestStore::new(|_| Arc::new(MemoryStore::new()))
}

pub(crate) async fn directory() -> TestStore {
    TestStore::new(|scratch| Arc::new(DirectoryStore::new(scratch.join("not/there/yet"))))
}

pub(crate) async fn s3() -> TestStore {
    let prefix = format!("tests/{:016x}", fastrand::u64(..));
    let store = S3Store::open(BUCKET, &prefix, &s3_options()).await.unwrap();
    store.create_bucket().await.unwrap();
    TestStore::new(|_| Arc::new(store))
}

/// How to reach the server that `make test` has started.
pub(crate) fn s3_options() -> S3Options {
    S3Options {
        endpoint: Some(variable("WALRUST_TEST_S3_ENDPOINT")),
        credentials: Some(S3Credentials {
            access_key: variable("WALRUST_TEST_S3_ACCESS_KEY"),
            secret_key: variable("WALRUST_TEST_S3_SECRET_KEY"),
            session_token: None,
        }),
        multipart_threshold: MULTIPART_THRESHOLD,
        part_size: 5 * 1024 * 1024,
        ..S3Options::default()
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name}: run the tests through `make test`"))
}
