//! LTX files as Litestream 0.5 wants them: without rolling checksums.
//!
//! Litestream refuses a tree whose last file has them. In return everything is verified that a file of
//! ours says of itself: every byte, its TXIDs, its rules.

use std::fs::File;
use std::io::{BufReader, BufWriter};

use walrust_engine::StoredFile;
use walrust_ltx::{Checksum, Decoder, Encoder, Error, FileName, Header, Mode, Pgno};
use walrust_sqlite::RestoreError;

use crate::HistoryError;
use crate::scratch::{HashingWriter, ScratchFile, blocking, scratch_error};

/// Size of a WAL header. A file that says it begins there, with salts that no WAL has, has Litestream
/// take the state of the database anew after it; at 0 it would replicate nothing, without an end.
const WAL_START: i64 = 32;

/// A file for Litestream, on the local disk.
#[derive(Debug)]
pub(crate) struct LitestreamFile {
    pub(crate) file: ScratchFile,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// SHA-256 of its bytes, hex.
    pub(crate) sha256: String,
    /// When its state was committed, milliseconds since the Unix epoch.
    pub(crate) timestamp_ms: i64,
}

/// A file of ours, verified and written again.
#[derive(Debug)]
pub(crate) struct Converted {
    pub(crate) file: LitestreamFile,
    /// The header that it had.
    pub(crate) header: Header,
    /// The rolling checksum that its trailer had.
    pub(crate) post_apply: Option<Checksum>,
}

impl Converted {
    /// Verifies a file of ours, and writes it again.
    ///
    /// # Errors
    /// If the file is damaged or has other TXIDs than its name, or the local disk fails.
    pub(crate) async fn from(file: &StoredFile, input: File) -> Result<Self, HistoryError> {
        let work = move || {
            let mut decoder = Decoder::new(BufReader::new(input), Mode::Strict)?;
            let header = decoder.header().clone();
            let file = encode(&header, header.file_name(), |page| decoder.next_page(page))?;
            let post_apply = decoder.finish()?.post_apply;
            Ok(Self { file, header, post_apply })
        };
        let (key, name) = (&file.key, file.name);
        let converted = blocking(work).await.map_err(|error| match error {
            Error::Io(source) => scratch_error(&format!("convert {key}"), source),
            source => RestoreError::Damaged { file: key.clone(), source }.into(),
        })?;
        let Header { min_txid: min, max_txid: max, .. } = converted.header;
        if (min, max) != (name.min, name.max) {
            return Err(RestoreError::WrongRange { file: key.clone(), name, min, max }.into());
        }
        Ok(converted)
    }
}

impl LitestreamFile {
    /// A file that changes nothing in the state that `header` tells of.
    ///
    /// # Errors
    /// If the local disk fails.
    pub(crate) fn without_pages(name: FileName, header: &Header) -> Result<Self, HistoryError> {
        let failed = |error| scratch_error(&format!("write {name}"), std::io::Error::other(error));
        encode(header, name, |_| Ok(None)).map_err(failed)
    }
}

fn encode(
    header: &Header,
    name: FileName,
    mut next_page: impl FnMut(&mut [u8]) -> Result<Option<Pgno>, Error>,
) -> Result<LitestreamFile, Error> {
    let Header { page_size, commit, timestamp_ms, .. } = *header;
    let header = Header {
        timestamp_ms,
        wal_offset: WAL_START,
        ..Header::new(page_size, commit, name.min, name.max)
    };
    let file = ScratchFile::create()?;
    let writer = HashingWriter::new(BufWriter::new(file.file().try_clone()?));
    let mut encoder = Encoder::new(writer, header)?;
    let mut page = vec![0; page_size.bytes()];
    while let Some(pgno) = next_page(&mut page)? {
        encoder.page(pgno, &page)?;
    }
    let (writer, summary) = encoder.finish(None)?;
    Ok(LitestreamFile { file, size: summary.size, sha256: writer.finish()?, timestamp_ms })
}
