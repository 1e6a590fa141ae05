//! A bucket of one test's own, and what is in it.
//!
//! The objects are reached through `walrust-storage`, whose own tests prove what it says.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};
use walrust_ltx::{Decoder, FileName, Header, Mode};
use walrust_storage::{
    Condition, DirectoryStore, Metadata, ObjectStore, S3Credentials, S3Options, S3Store,
};
use walrust_testkit::S3Server;

use crate::daemon::Daemon;

/// Runs each scenario in a directory and on the S3 server.
macro_rules! on_both_storages {
    ($($scenario:ident),* $(,)?) => {
        mod in_a_directory {
            $(#[test] fn $scenario() { super::$scenario(&$crate::storage::Storage::directory()); })*
        }
        mod on_s3 {
            $(#[test] fn $scenario() { super::$scenario(&$crate::storage::Storage::s3()); })*
        }
    };
}
pub(crate) use on_both_storages;

/// A bucket of one test's own.
#[derive(Debug)]
pub(crate) struct Storage {
    url: String,
    variables: Vec<(&'static str, String)>,
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
    /// Goes with its content; on S3 the whole server goes at the end of the test run.
    _directory: Option<TempDir>,
}

impl Storage {
    /// A directory that does not exist yet.
    pub(crate) fn directory() -> Self {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let directory = parent.path().join("bucket");
        Self {
            url: format!("file://{}", directory.display()),
            variables: Vec::new(),
            store: Arc::new(DirectoryStore::new(directory)),
            runtime: runtime(),
            _directory: Some(parent),
        }
    }

    /// A prefix in a new bucket on the S3 server of the test run.
    pub(crate) fn s3() -> Self {
        let server = S3Server::from_env();
        let bucket = server.unique_bucket("integration");
        let runtime = runtime();
        let options = S3Options {
            endpoint: Some(server.endpoint().to_owned()),
            region: Some("us-east-1".to_owned()),
            credentials: Some(S3Credentials {
                access_key: server.access_key().to_owned(),
                secret_key: server.secret_key().to_owned(),
                session_token: None,
            }),
            ..S3Options::default()
        };
        let store = runtime.block_on(async {
            let store = S3Store::open(&bucket, "some/prefix", &options).await?;
            store.create_bucket().await.map(|()| store)
        });
        Self {
            url: format!("s3://{bucket}/some/prefix"),
            variables: vec![
                ("AWS_ENDPOINT_URL_S3", server.endpoint().to_owned()),
                ("AWS_ACCESS_KEY_ID", server.access_key().to_owned()),
                ("AWS_SECRET_ACCESS_KEY", server.secret_key().to_owned()),
                ("AWS_REGION", "us-east-1".to_owned()),
            ],
            store: Arc::new(store.expect("a bucket on the S3 server of the test run")),
            runtime,
            _directory: None,
        }
    }

    /// An empty place of the same kind.
    pub(crate) fn another(&self) -> Self {
        if self.url.starts_with("file://") { Self::directory() } else { Self::s3() }
    }

    /// What `-b` takes.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// What the environment must hold.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        self.variables.clone()
    }

    /// All keys that begin with `prefix`, sorted.
    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let entries = self.runtime.block_on(self.store.list(prefix, None));
        entries.expect("the bucket can be listed").into_iter().map(|entry| entry.key).collect()
    }

    /// The names of the LTX files of a database, sorted.
    pub(crate) fn ltx_files(&self, name: &str) -> Vec<FileName> {
        let keys = self.keys(&format!("{name}/"));
        keys.iter().filter_map(|key| key.rsplit('/').next()?.parse().ok()).collect()
    }

    /// The files of a database with changed pages only.
    pub(crate) fn incrementals(&self, name: &str) -> Vec<FileName> {
        self.ltx_files(name).into_iter().filter(|file| !file.is_snapshot()).collect()
    }

    /// The TXIDs at which files end, sorted, each once.
    pub(crate) fn txids(&self, name: &str) -> Vec<u64> {
        let txids: BTreeSet<u64> = self.ltx_files(name).iter().map(|file| file.max.get()).collect();
        txids.into_iter().collect()
    }

    /// The last TXID in storage; 0 without any.
    pub(crate) fn head(&self, name: &str) -> u64 {
        self.txids(name).last().copied().unwrap_or(0)
    }

    /// Waits until a daemon has brought a TXID to storage.
    #[track_caller]
    pub(crate) fn wait_for_txid(&self, daemon: &mut Daemon, name: &str, txid: u64) {
        daemon.wait_until(&format!("TXID {txid} of {name}"), |_| self.head(name) >= txid);
    }

    /// Waits until the first snapshot is not only in storage, but the daemon knows that too.
    #[track_caller]
    pub(crate) fn wait_for_manifest(&self, daemon: &mut Daemon, name: &str) {
        let manifest = format!("{name}/manifest.json");
        daemon.wait_until(&manifest, |_| self.keys(&manifest).len() == 1);
    }

    /// The bytes of an object.
    pub(crate) fn read(&self, key: &str) -> Vec<u8> {
        let read = async { self.store.get(key).await?.bytes().await };
        self.runtime.block_on(read).expect("the object is there").to_vec()
    }

    /// The header of an LTX file.
    pub(crate) fn header(&self, name: &str, file: FileName) -> Header {
        let bytes = self.read(&format!("{name}/{file}"));
        let decoder = Decoder::new(bytes.as_slice(), Mode::Strict).expect("a file of walrust");
        decoder.header().clone()
    }

    /// The user metadata of an object.
    pub(crate) fn metadata(&self, key: &str) -> Metadata {
        self.runtime.block_on(self.store.head(key)).expect("the object is there").metadata
    }

    /// Stores an object, also over another.
    pub(crate) fn write(&self, key: &str, bytes: &[u8], metadata: &Metadata) {
        let body = Bytes::copy_from_slice(bytes);
        let put = self.store.put(key, body, metadata, &Condition::None);
        self.runtime.block_on(put).expect("the object can be stored");
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, key: &str) {
        let failures = self.runtime.block_on(self.store.delete(&[key.to_owned()]));
        assert!(failures.expect("the object can be deleted").is_empty(), "{key}");
    }
}

fn runtime() -> Runtime {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs no more than a file descriptor")
}
