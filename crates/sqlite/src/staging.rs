//! Writes one LTX file into the staging directory.
//!
//! Invariant: a file has its final name only when it is complete; what a crash leaves behind under
//! another name the next start clears. Staged files are not synced here: until storage has confirmed
//! them the pin keeps the frames they were made of. Before a checkpoint gives those up it syncs them.
//!
//! Beside each file lies a note of what the file itself does not tell, first of all where in the WAL it
//! ends. Without it, or if it is torn, the file is good all the same, and the pages are compared once
//! instead of continuing in the WAL.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use walrust_engine::WalPosition;
use walrust_ltx::{Checksum, Decoder, Encoder, FileName, Header, MergeOptions, Mode, Pgno, merge};

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
    /// If it was merged from several files: the timestamp of the first of them, milliseconds since the
    /// Unix epoch. From then on until its own timestamp it hides states.
    pub merged_since_ms: Option<i64>,
}

/// What is noted beside a staged file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Where in the WAL it ends.
    #[serde(flatten)]
    pub(crate) wal: WalPosition,
    /// As in [`StagedFile`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) merged_since_ms: Option<i64>,
}

impl StagedFile {
    /// Whether the file is there, and as long as it was staged.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| found.len() == self.size)
    }

    /// Removes the file after its upload.
    ///
    /// # Errors
    /// If the file exists and cannot be removed.
    pub fn remove(&self) -> Result<(), DatabaseError> {
        for path in [note_path(&self.path), self.path.clone()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(DatabaseError::io("remove a staged file", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes where in the WAL the file ends, and since when it hides states.
    pub(crate) fn note(&self, wal: &WalPosition) -> Result<(), DatabaseError> {
        let path = note_path(&self.path);
        let note = Note { wal: *wal, merged_since_ms: self.merged_since_ms };
        let note = serde_json::to_vec(&note).expect("numbers always have a JSON form");
        fs::write(&path, note).map_err(DatabaseError::io("write a note", &path))
    }
}

/// What is noted beside a staged file, if that is whole.
pub(crate) fn read_note(path: &Path) -> Option<Note> {
    serde_json::from_slice(&fs::read(note_path(path)).ok()?).ok()
}

fn note_path(path: &Path) -> PathBuf {
    path.with_extension("wal.json")
}

/// SHA-256 of a file, hex.
pub(crate) fn sha256_of(path: &Path) -> Result<String, DatabaseError> {
    let hash = || {
        let mut hasher = Sha256::new();
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hex(&hasher.finalize())),
                length => hasher.update(&buffer[..length]),
            }
        }
    };
    hash().map_err(DatabaseError::io("read a staged file", path))
}

/// The names of the complete files in a staging directory; none if there is no such directory.
pub(crate) fn staged_names(staging: &Path) -> Result<Vec<FileName>, DatabaseError> {
    let list = || {
        let mut names = Vec::new();
        for entry in fs::read_dir(staging)? {
            let name = entry?.file_name();
            names.extend(name.to_str().and_then(|name| name.parse::<FileName>().ok()));
        }
        Ok::<_, io::Error>(names)
    };
    match list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.map_err(DatabaseError::io("read the staging directory", staging)),
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
            merged_since_ms: None,
        })
    }

    /// Gives the file up.
    pub(crate) fn discard(self) -> Result<(), DatabaseError> {
        fs::remove_file(&self.temporary)
            .map_err(DatabaseError::io("remove a staged file", &self.temporary))
    }
}

/// Merges files that continue one another, oldest first, into one that is complete and survives a
/// loss of power. The last of them ends at `wal`.
pub(crate) fn merge_staged(
    staging: &Path,
    sources: &[&StagedFile],
    wal: &WalPosition,
) -> Result<StagedFile, DatabaseError> {
    let (Some(first), Some(last)) = (sources.first(), sources.last()) else {
        unreachable!("only files that are there are merged");
    };
    let name = FileName { min: first.name.min, max: last.name.max };
    let path = staging.join(name.to_string());
    let temporary = staging.join(format!("{name}.tmp"));
    let mut inputs = Vec::with_capacity(sources.len());
    for source in sources {
        let file = File::open(&source.path)
            .map_err(DatabaseError::io("open a staged file", &source.path))?;
        let input = Decoder::new(BufReader::new(file), Mode::Strict);
        inputs.push(input.map_err(DatabaseError::encode(&source.path))?);
    }
    let file = File::create(&temporary).map_err(DatabaseError::io("create a file", &temporary))?;
    let out = HashingWriter { file: BufWriter::new(file), hasher: Sha256::new() };
    let (mut out, header, summary) =
        merge(inputs, out, MergeOptions::default()).map_err(DatabaseError::encode(&temporary))?;
    let merged = StagedFile {
        name,
        header,
        post_apply: last.post_apply,
        size: summary.size,
        sha256: String::new(),
        pages: summary.pages,
        merged_since_ms: Some(first.merged_since_ms.unwrap_or(first.header.timestamp_ms)),
        path,
    };
    // Before the file has its name: what takes it up after a crash is to know what it hides.
    merged.note(wal)?;
    let mut finish = || {
        out.flush()?;
        out.file.get_ref().sync_all()?;
        fs::rename(&temporary, &merged.path)?;
        File::open(staging)?.sync_all()
    };
    finish().map_err(DatabaseError::io("complete a merged file", &merged.path))?;
    Ok(StagedFile { sha256: hex(&out.hasher.finalize()), ..merged })
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
