//! How to reach an S3-compatible store: what the caller says, what the environment says, and the
//! defaults, in this order.

use std::fmt;


/// AWS refuses parts below 5 MiB, except the last one.
const SMALLEST_PART: u64 = 5 * MIB;
const MIB: u64 = 1024 * 1024;

/// How to reach an S3-compatible store.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// URL of the server, with scheme. Default: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, the
    /// profile, else AWS.
    pub endpoint: Option<String>,
    /// Region. Default: `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile, else `us-east-1`.
    pub region: Option<String>,
    /// Whether the bucket stands in the path of requests instead of the host name. Default: if
    /// there is an endpoint.
    pub path_style: Option<bool>,
    /// Credentials. Default: the usual chain of AWS SDKs (environment, profile, web identity,
    /// container, instance).
    pub credentials: Option<S3Credentials>,
    /// Files of at least this many bytes are uploaded in parts. Default: 32 MiB.
    pub multipart_threshold: u64,
    /// Bytes of one part, at least 5 MiB; more if a file would need over 10,000 parts. Default:
    /// 16 MiB.
    pub part_size: u64,
    /// Parts of one file that are uploaded at the same time; each takes 64 KiB of memory and a
    /// connection. Default: 4.
    pub part_concurrency: usize,
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            path_style: None,
            credentials: None,
            multipart_threshold: 32 * MIB,
            part_size: 16 * MIB,
            part_concurrency: 4,
        }
    }
}

/// An access key and its secret.
#[derive(Clone)]
pub struct S3Credentials {
    /// Identifies the key; not a secret.
    pub access_key: String,
    /// Signs requests; never sent, never shown.
    pub secret_key: String,
    /// Belongs to temporary keys.
    pub session_token: Option<String>,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials")
            .field("access_key", &self.access_key)
            .finish_non_exhaustive()
    }
}
