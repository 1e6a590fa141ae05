//! Reads a stored file once, for everything that it says of itself.
//!
//! Invariant: what is reported of a file was read from one object, whole; pages are not kept, only
//! their checksums.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use walrust_engine::manifest::FileEntry;
use walrust_engine::{ErrorClass, FileChanges, StoredFile};
use walrust_ltx::{Checksum, Decoder, Header, Mode, Pgno};
use walrust_sqlite::hex;
use walrust_storage::{ObjectMeta, ObjectStore};

use crate::Problem;
use crate::fetch::fetch;
use crate::piece_reader::PieceReader;
use crate::scratch::scratch_error;
use crate::{HistoryError, MERGED_SINCE, SHA256, describe_file};

/// Pieces of one file that are fetched at once.
const AHEAD: NonZeroUsize = NonZeroUsize::new(2).expect("2 is not zero");

/// How files are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) mode: Mode,
    /// Bytes of a second; `None`: as many as there are.
    pub(crate) bytes_per_second: Option<u64>,
}

/// A file that obeys every rule of its own.
#[derive(Debug)]
pub(crate) struct Inspected {
    pub(crate) header: Header,
    pub(crate) post_apply: Option<Checksum>,
    /// SHA-256 of its bytes, hex.
    pub(crate) sha256: String,
    pub(crate) meta: Arc<ObjectMeta>,
    /// Its pages with their checksums.
    pub(crate) pages: Vec<(Pgno, Checksum)>,
    /// The bytes of the file, if they were to be kept.
    pub(crate) copy: Option<File>,
}

impl Inspected {
    /// The SHA-256 that storage keeps beside the file, hex.
    pub(crate) fn recorded_sha256(&self) -> Option<&str> {
        self.meta.metadata.get(SHA256).map(String::as_str)
    }

    /// What the manifest should say of the file; `None` if it has no rolling checksums.
    pub(crate) fn entry(&self, file: &StoredFile) -> Option<FileEntry> {
        let (size, sha256) = (self.meta.size, self.sha256.clone());
        let merged_since = self.meta.metadata.get(MERGED_SINCE).cloned();
        let entry = describe_file(file.name, &self.header, self.post_apply?, size, sha256);
        Some(FileEntry { merged_since, ..entry })
    }

    /// What the file does to a database; `None` if it has no rolling checksums. The checksums of the
    /// pages go along.
    pub(crate) fn take_changes(&mut self, file: &StoredFile) -> Option<FileChanges> {
        Some(FileChanges {
            name: file.name,
            page_size: self.header.page_size,
            commit: self.header.commit,
            pre_apply: self.header.pre_apply,
            post_apply: self.post_apply?,
            pages: std::mem::take(&mut self.pages),
        })
    }
}

/// Reads a file. With `copy` its bytes are kept on the local disk. `progress` is told the bytes of
/// each piece.
///
/// # Errors
/// If storage or the local disk fails. A file with a problem is no error.
pub(crate) async fn inspect(
    store: Arc<dyn ObjectStore>,
    file: &StoredFile,
    reading: Reading,
    copy: bool,
    progress: impl Fn(u64) + Send + 'static,
) -> Result<Result<Inspected, Problem>, HistoryError> {
    let fetching = fetch(store, vec![file.clone()], AHEAD);
    let (handle, file) = (Handle::current(), file.clone());
    let failed = |source| scratch_error("keep a file for a moment", source);
    let mut copy = copy.then(tempfile::tempfile).transpose().map_err(failed)?;
    // Goes with whoever waits for the result.
    let awaited = Arc::new(());
    let is_awaited = Arc::downgrade(&awaited);
    let work = move || {
        let mut hasher = Sha256::new();
        let mut broken_disk = None;
        let observe = |bytes: &Bytes| {
            if is_awaited.strong_count() == 0 {
                return Err(io::Error::other("nobody waits for it any more"));
            }
            hasher.update(bytes);
            progress(bytes.len() as u64);
            if let Some(rate) = reading.bytes_per_second.filter(|rate| *rate > 0) {
                #[allow(clippy::cast_precision_loss, reason = "a pause need not be exact")]
                std::thread::sleep(Duration::from_secs_f64(bytes.len() as f64 / rate as f64));
            }
            let written = copy.as_mut().map_or(Ok(()), |copy| copy.write_all(bytes));
            written.map_err(|error| {
                broken_disk = Some(error);
                io::Error::other("the local disk failed")
            })
        };
        let mut pieces = PieceReader::new(handle, fetching, observe);
        let decoded = decode(&mut pieces, &file, reading.mode);
        let (failure, meta) = (pieces.take_failure(), pieces.end_file());
        drop(pieces);
        if let Some(error) = broken_disk {
            return Err(failed(error));
        }
        match failure {
            Some(error) if error.class() == ErrorClass::NotFound && !error.is_missing_bucket() => {
                return Ok(Err(Problem::Missing));
            }
            Some(error) => return Err(error.into()),
            None => {}
        }
        let (header, post_apply, pages) = match decoded {
            Ok(decoded) => decoded,
            Err(Problem::Damaged(walrust_ltx::Error::Io(error))) => {
                return Err(scratch_error(&format!("read {}", file.key), error));
            }
            Err(problem) => return Ok(Err(problem)),
        };
        if let Some(copy) = &mut copy {
            copy.rewind().map_err(failed)?;
        }
        let sha256 = hex(&hasher.finalize());
        let meta = meta.expect("what was decoded to its end was read");
        Ok(Ok(Inspected { header, post_apply, sha256, meta, pages, copy }))
    };
    let result = on_thread(work).await;
    drop(awaited);
    result
}

/// Runs work that waits for storage on a thread of its own: the runtime has few threads that may wait,
/// and storage itself needs them.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HistoryError> + Send + 'static,
) -> Result<T, HistoryError> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().spawn(move || {
        // Nobody may wait for it any more.
        let _ = sender.send(work());
    });
    let thread = thread.map_err(HistoryError::NoThread)?;
    match receiver.await {
        Ok(result) => result,
        Err(_) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("a thread that ends without a panic has sent its result"),
        },
    }
}

type Decoded = (Header, Option<Checksum>, Vec<(Pgno, Checksum)>);

fn decode(input: impl io::BufRead, file: &StoredFile, mode: Mode) -> Result<Decoded, Problem> {
    let mut decoder = Decoder::new(input, mode)?;
    let header = decoder.header().clone();
    let (min, max) = (header.min_txid, header.max_txid);
    if (min, max) != (file.name.min, file.name.max) {
        return Err(Problem::WrongRange { min, max });
    }
    let (mut page, mut pages) = (vec![0; header.page_size.bytes()], Vec::new());
    while let Some(pgno) = decoder.next_page(&mut page)? {
        pages.push((pgno, Checksum::of_page(pgno, &page)));
    }
    let post_apply = decoder.finish()?.post_apply;
    Ok((header, post_apply, pages))
}
