//! Bodies that are streamed from a file, with a signature over their content.
//!
//! The SDK signs what is in memory and sends streams as `UNSIGNED-PAYLOAD`, which some stores
//! refuse and which protects nothing. So the SHA-256 of the piece is computed first and signed; a
//! store that receives other bytes, from a damaged link or a file that changed, refuses them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{ByteStream, Length};
use sha2::{Digest, Sha256};
use walrust_engine::ErrorClass;

use super::classify::About;
use crate::StorageError;

/// Bytes that are read at a time.
const STEP: usize = 64 * 1024;

/// A piece of a file.
pub(super) struct Payload {
    pub(super) body: ByteStream,
    pub(super) signed: SignedPayload,
}

impl Payload {
    /// Prepares `length` bytes from `offset` on; reads them once for the signature.
    pub(super) async fn of(path: &Path, offset: u64, length: u64) -> io::Result<Self> {
        let owned = path.to_owned();
        let sha256 = tokio::task::spawn_blocking(move || sha256_of(&owned, offset, length))
            .await
            .map_err(io::Error::other)??;
        let body = ByteStream::read_from()
            .path(path)
            .buffer_size(STEP)
            .offset(offset)
            .length(Length::Exact(length))
            .build()
            .await
            .map_err(io::Error::other)?;
        Ok(Self { body, signed: SignedPayload(sha256) })
    }
}

fn sha256_of(path: &Path, offset: u64, length: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; STEP];
    let mut missing = length;
    while missing > 0 {
        let step = usize::try_from(missing).unwrap_or(STEP).min(STEP);
        let read = file.read(&mut buffer[..step])?;
        if read == 0 {
            let text = format!("it is {missing} bytes shorter than a moment ago");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        hasher.update(&buffer[..read]);
        missing -= read as u64;
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes the signature cover a body by its SHA-256.
#[derive(Debug)]
pub(super) struct SignedPayload(String);

impl Intercept for SignedPayload {
    fn name(&self) -> &'static str {
        "SignedPayload"
    }

    fn modify_before_signing(
        &self,
        _context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let signed = PayloadSigningOverride::Precomputed(self.0.clone());
        config.interceptor_state().store_put(signed);
        Ok(())
    }
}

/// Bytes of a file.
pub(super) async fn size_of(path: &Path) -> io::Result<u64> {
    let found = tokio::fs::metadata(path).await?;
    if found.is_file() { Ok(found.len()) } else { Err(io::Error::other("it is not a file")) }
}

/// The error of an upload whose file cannot be read.
pub(super) fn unreadable(about: &About, path: &Path, error: &dyn fmt::Display) -> StorageError {
    about.error(ErrorClass::Permanent, format!("cannot read {}: {error}", path.display()))
}
