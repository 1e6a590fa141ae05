//! What the benchmarks of the daemon share.
//!
//! Invariant: a daemon does not outlive its value.

use std::process::{Child, Command, Stdio};

use walrust_storage::{S3Credentials, S3Options, S3Store};
use walrust_testkit::S3Server;

/// How to reach a server, or the defaults where there is none.
pub(crate) fn options(server: Option<&S3Server>) -> S3Options {
    let Some(server) = server else { return S3Options::default() };
    S3Options {
        endpoint: Some(server.endpoint().to_owned()),
        credentials: Some(S3Credentials {
            access_key: server.access_key().to_owned(),
            secret_key: server.secret_key().to_owned(),
            session_token: None,
        }),
        ..S3Options::default()
    }
}

/// Creates a bucket.
pub(crate) async fn create_bucket(server: &S3Server, bucket: &str) {
    let store = S3Store::open(bucket, "", &options(Some(server))).await.expect("the store opens");
    store.create_bucket().await.expect("the bucket is created");
}

/// A running `walrust watch`.
#[derive(Debug)]
pub(crate) struct Daemon(Child);

impl Daemon {
    /// Starts it with these arguments and the credentials of a server.
    pub(crate) fn start(arguments: &[&str], server: Option<&S3Server>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walrust"));
        command.arg("watch").args(arguments).args(["--log-level", "warn"]).stdout(Stdio::null());
        if let Some(server) = server {
            command.env("AWS_ACCESS_KEY_ID", server.access_key());
            command.env("AWS_SECRET_ACCESS_KEY", server.secret_key());
        }
        Self(command.spawn().expect("the daemon starts"))
    }

    /// Its process ID.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("the daemon runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("the kernel tells the resident memory")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A measurement that failed must not leave a daemon behind.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
