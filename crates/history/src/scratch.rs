//! Files of histories on the local disk, for as long as they are worked on.
//!
//! Invariant: they have no name, so that nothing stays behind, even of a process that is killed. Where a
//! file without a name could not be opened a second time it has one that goes with it.

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use futures_util::TryFutureExt;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::io::AsyncReadExt;
use walrust_sqlite::hex;
use walrust_storage::{ObjectStore, StorageError};

use crate::{HistoryError, SHA256, patiently};

/// A file that can be opened by its path as long as this value lives.
#[derive(Debug)]
pub(crate) enum ScratchFile {
    Unnamed(File),
    Named(NamedTempFile),
}

impl ScratchFile {
    /// Creates an empty file.
    pub(crate) fn create() -> io::Result<Self> {
        let file = tempfile::tempfile()?;
        let open = file.metadata()?;
        // The system may not show what a process has open.
        match fs::metadata(path_of_descriptor(&file)) {
            Ok(seen) if (seen.dev(), seen.ino()) == (open.dev(), open.ino()) => {
                Ok(Self::Unnamed(file))
            }
            _ => NamedTempFile::new().map(Self::Named),
        }
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        match self {
            Self::Unnamed(file) => file,
            Self::Named(file) => file.as_file(),
        }
    }

    /// Where this process, and no other, can open it.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Unnamed(file) => path_of_descriptor(file),
            Self::Named(file) => file.path().to_owned(),
        }
    }

    /// The file without its name.
    pub(crate) fn into_file(self) -> File {
        match self {
            Self::Unnamed(file) => file,
            Self::Named(file) => file.into_file(),
        }
    }
}

fn path_of_descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// An object that was fetched into a file without a name.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// The file, at its beginning.
    pub(crate) file: File,
    /// SHA-256 of its bytes, hex.
    pub(crate) sha256: String,
    /// What storage says that it should be, if it does.
    pub(crate) expected: Option<String>,
    /// The object's ETag.
    pub(crate) etag: String,
}

/// Fetches an object to the local disk.
///
/// # Errors
/// If storage fails, or the local disk does.
pub(crate) async fn fetch(store: &dyn ObjectStore, key: &str) -> Result<Fetched, HistoryError> {
    let fetched = patiently(|| fetch_once(store, key)).await?;
    fetched.map_err(|source| scratch_error(&format!("keep {key} for a moment"), source))
}

/// The outer error is one of storage, which another attempt may mend.
async fn fetch_once(
    store: &dyn ObjectStore,
    key: &str,
) -> Result<io::Result<Fetched>, StorageError> {
    let mut object = store.get(key).await?;
    let mut file = match tempfile::tempfile() {
        Ok(file) => file,
        Err(error) => return Ok(Err(error)),
    };
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        let read = object.body.read(&mut buffer);
        let length = read.map_err(|error| broken_body(store, key, error)).await?;
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
        if let Err(error) = file.write_all(&buffer[..length]) {
            return Ok(Err(error));
        }
    }
    let expected = object.meta.metadata.get(SHA256).cloned();
    let etag = object.meta.etag;
    let rewound = file.rewind();
    Ok(rewound.map(|()| Fetched { file, sha256: hex(&hasher.finalize()), expected, etag }))
}

fn broken_body(store: &dyn ObjectStore, key: &str, error: io::Error) -> StorageError {
    error.downcast().unwrap_or_else(|error| StorageError::permanent("get", store.url(), key, error))
}

/// The local disk failed.
pub(crate) fn scratch_error(what: &str, source: io::Error) -> HistoryError {
    HistoryError::Scratch { what: what.to_owned(), source }
}

/// Works on files of the local disk, beside the asynchronous part.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Hashes what is written through it.
#[derive(Debug)]
pub(crate) struct HashingWriter<W> {
    pub(crate) out: W,
    hasher: Sha256,
}

impl<W: Write> HashingWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, hasher: Sha256::new() }
    }

    /// SHA-256 of everything, hex.
    pub(crate) fn finish(mut self) -> io::Result<String> {
        self.out.flush()?;
        Ok(hex(&self.hasher.finalize()))
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.out.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
