//! Writes one LTX file into the staging directory.
//!
//! Invariant: a file has its final name only when it is complete; what a crash leaves behind is a
//! `.tmp` file that the next start clears. Staged files are not fsynced: a position is saved only
//! after storage has confirmed the bytes, and until then the pin keeps the frames they were made of.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use walrust_ltx::{Checksum, Encoder, FileName, Header, Pgno};

use crate::DatabaseError;

/// A complete LTX file that waits for its upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its name in the bucket.
    pub name: FileName,
    /// Its header.
    pub header: Header,
    /// Rolling checksum of the database after it.
    pub post_apply: Checksum,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// Pages in it.
    pub pages: u32,
}

impl StagedFile {
    /// Removes the file after its upload.
    ///
    /// # Errors
    /// If the file exists and cannot be removed.
    pub fn remove(&self) -> Result<(), DatabaseError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DatabaseError::io("remove a staged file", &self.path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// An LTX file that is being written.
#[derive(Debug)]
pub(crate) struct StagedWriter {
    encoder: Encoder<HashingWriter>,
    header: Header,
    name: FileName,
    temporary: PathBuf,
    path: PathBuf,
}

impl StagedWriter {
    pub(crate) fn create(staging: &Path, header: Header) -> Result<Self, DatabaseError> {
        let name = FileName { min: header.min_txid, max: header.max_txid };
        let path = staging.join(name.to_string());
        let temporary = staging.join(format!("{name}.tmp"));
        let file =
            File::create(&temporary).map_err(DatabaseError::io("create a file", &temporary))?;
        let out = HashingWriter { file: BufWriter::new(file), hasher: Sha256::new() };
        let encoder =
            Encoder::new(out, header.clone()).map_err(DatabaseError::encode(&temporary))?;
        Ok(Self { encoder, header, name, temporary, path })
    }

    /// Adds a page and returns its checksum; pages are added in ascending order.
    pub(crate) fn page(&mut self, pgno: Pgno, page: &[u8]) -> Result<Checksum, DatabaseError> {
        self.encoder.page(pgno, page).map_err(DatabaseError::encode(&self.temporary))
    }

    /// Completes the file and gives it its name.
    pub(crate) fn finish(self, post_apply: Checksum) -> Result<StagedFile, DatabaseError> {
        let (out, summary) = self
            .encoder
            .finish(Some(post_apply))
            .map_err(DatabaseError::encode(&self.temporary))?;
        let digest = out.finish().map_err(DatabaseError::io("write a file", &self.temporary))?;
        fs::rename(&self.temporary, &self.path)
            .map_err(DatabaseError::io("rename a staged file", &self.path))?;
        Ok(StagedFile {
            path: self.path,
            name: self.name,
            header: self.header,
            post_apply,
            size: summary.size,
            sha256: digest,
            pages: summary.pages,
        })
    }

    /// Gives the file up.
    pub(crate) fn discard(self) -> Result<(), DatabaseError> {
        fs::remove_file(&self.temporary)
            .map_err(DatabaseError::io("remove a staged file", &self.temporary))
    }
}

/// Hashes what it writes.
#[derive(Debug)]
struct HashingWriter {
    file: BufWriter<File>,
    hasher: Sha256,
}

impl HashingWriter {
    fn finish(mut self) -> io::Result<String> {
        self.file.flush()?;
        Ok(hex(&self.hasher.finalize()))
    }
}

impl Write for HashingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Lower-case hex digits of some bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
