//! The bucket of a run.
//!
//! Invariant: it is reached without the proxy, so what is seen here is what storage holds.

use std::fs;
use std::path::Path;

use tokio::runtime::{self, Runtime};
use walrust_storage::{ObjectStore, S3Credentials, S3Options, S3Store};
use walrust_testkit::S3Server;

/// A bucket on the S3 server of the run.
#[derive(Debug)]
pub(crate) struct Bucket {
    server: S3Server,
    name: String,
    runtime: Runtime,
}

impl Bucket {
    /// Makes a new one.
    pub(crate) fn create() -> Self {
        let server = S3Server::from_env();
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let name = server.unique_bucket("chaos");
        let bucket =
            Self { server, name, runtime: runtime.expect("a runtime needs no more than memory") };
        let store = bucket.store("");
        bucket.runtime.block_on(store.create_bucket()).expect("a new bucket");
        bucket
    }

    /// The server that has it.
    pub(crate) fn server(&self) -> &S3Server {
        &self.server
    }

    /// What `-b` takes.
    pub(crate) fn url(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}", self.name)
    }

    /// Deletes everything under a prefix.
    pub(crate) fn clear(&self, prefix: &str) {
        let store = self.store(prefix);
        let deletion = async {
            let keys: Vec<_> =
                store.list("", None).await?.into_iter().map(|entry| entry.key).collect();
            for batch in keys.chunks(500) {
                store.delete(batch).await?;
            }
            Ok::<_, walrust_storage::StorageError>(())
        };
        self.runtime.block_on(deletion).expect("the bucket can be cleared");
    }

    /// Copies everything under a prefix to a directory, from which `file://` restores.
    pub(crate) fn download(&self, prefix: &str, directory: &Path) {
        let store = self.store(prefix);
        let download = async {
            for entry in store.list("", None).await? {
                let file = directory.join(&entry.key);
                fs::create_dir_all(file.parent().expect("it is in the directory"))
                    .and_then(|()| fs::write(&file, []))
                    .expect("the directory is writable");
                let bytes = store.get(&entry.key).await?.bytes().await?;
                fs::write(&file, bytes).expect("the directory is writable");
            }
            Ok::<_, walrust_storage::StorageError>(())
        };
        self.runtime.block_on(download).expect("the bucket can be read");
    }

    fn store(&self, prefix: &str) -> S3Store {
        let options = S3Options {
            endpoint: Some(self.server.endpoint().to_owned()),
            region: Some("us-east-1".to_owned()),
            credentials: Some(S3Credentials {
                access_key: self.server.access_key().to_owned(),
                secret_key: self.server.secret_key().to_owned(),
                session_token: None,
            }),
            ..S3Options::default()
        };
        self.runtime.block_on(S3Store::open(&self.name, prefix, &options)).expect("valid options")
    }
}
