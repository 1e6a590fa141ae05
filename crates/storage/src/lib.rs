//! Object stores: S3, a directory and memory behind one trait.
//!
//! [`ObjectStore`] is the contract, kept by one suite of tests that runs against all three.
//! [`StorageError`] says what failed and, as a class, what to do about it. Nothing here retries,
//! plans or knows what an LTX file is.

#![forbid(unsafe_code)]

mod directory;
mod error;
mod key;
mod memory;
mod metadata;
mod object;
mod object_store;
mod s3;
mod storage_url;

use std::sync::Arc;

pub use directory::DirectoryStore;
pub use error::StorageError;
pub use memory::MemoryStore;
pub use metadata::Metadata;
pub use object::Object;
pub use object_store::{Condition, DeleteFailure, ListEntry, ObjectMeta, ObjectStore, PutReceipt};
pub use s3::{
    BundleError, ENDPOINT_VARIABLES, REGION_VARIABLES, S3Credentials, S3Options, S3Store,
    check_endpoint, trusted_certificates,
};
pub use storage_url::{StorageUrl, StorageUrlError};

/// Opens the store that a URL names. Open one per process and share it: each has its own
/// connections and its own cache of credentials.
///
/// Nothing is sent to the store; a wrong bucket shows with the first request.
///
/// # Errors
/// Class `Permanent` if the options or the environment are wrong, for example an endpoint without
/// a scheme or a bundle of certificates that cannot be read.
pub async fn open(
    url: &StorageUrl,
    options: &S3Options,
) -> Result<Arc<dyn ObjectStore>, StorageError> {
    match url {
        StorageUrl::S3 { bucket, prefix } => {
            Ok(Arc::new(S3Store::open(bucket, prefix, options).await?))
        }
        StorageUrl::File { directory } => Ok(Arc::new(DirectoryStore::new(directory))),
    }
}
