//! What the manifest says of an LTX file, from a header, or from a stored file's first and last bytes.

use walrust_engine::StoredFile;
use walrust_engine::manifest::{FileEntry, FileKind};
use walrust_ltx::{Checksum, FileName, Header};
use walrust_storage::{ObjectStore, StorageError};

use crate::{MERGED_SINCE, SHA256, patiently};

/// Headers that are read at once.
pub(crate) const HEADERS: usize = 16;

/// Header and post-apply checksum of a stored file.
#[derive(Clone, Debug)]
pub struct FileEnds {
    /// The header.
    pub header: Header,
    /// Rolling checksum after the file; `None` if the file does not track checksums.
    pub post_apply: Option<Checksum>,
}

/// Reads the first and the last bytes of a stored file; `None` if they are not those of an LTX
/// file with the TXIDs of its name.
///
/// # Errors
/// If storage fails.
pub async fn read_ends(
    store: &dyn ObjectStore,
    file: &StoredFile,
) -> Result<Option<FileEnds>, StorageError> {
    const TRAILER: u64 = 16;
    let header_size = Header::SIZE as u64;
    if file.size < header_size + TRAILER {
        return Ok(None);
    }
    let Some(header) = read_header(store, file).await? else { return Ok(None) };
    let tail = store.get_range(&file.key, file.size - TRAILER..file.size).await?;
    let post_apply =
        tail.first_chunk::<8>().and_then(|bytes| Checksum::from_raw(u64::from_be_bytes(*bytes)));
    Ok(Some(FileEnds { header, post_apply }))
}

/// Reads the header of a stored file; `None` if it is not that of an LTX file with the TXIDs of
/// its name.
pub(crate) async fn read_header(
    store: &dyn ObjectStore,
    file: &StoredFile,
) -> Result<Option<Header>, StorageError> {
    let size = Header::SIZE as u64;
    if file.size < size {
        return Ok(None);
    }
    let head = patiently(|| store.get_range(&file.key, 0..size)).await?;
    let header = head.first_chunk().and_then(|bytes| Header::from_bytes(bytes).ok());
    Ok(header.filter(|header| (header.min_txid, header.max_txid) == (file.name.min, file.name.max)))
}

/// The manifest's entry of a file.
#[must_use]
pub fn describe_file(
    name: FileName,
    header: &Header,
    post_apply: Checksum,
    size: u64,
    sha256: String,
) -> FileEntry {
    FileEntry {
        min: name.min.to_string(),
        max: name.max.to_string(),
        kind: if name.is_snapshot() { FileKind::Snapshot } else { FileKind::Incremental },
        size,
        sha256,
        created: rfc3339(header.timestamp_ms),
        merged_since: None,
        pre: header.pre_apply.map(|checksum| checksum.to_string()),
        post: post_apply.to_string(),
        commit: header.commit,
    }
}

/// Reads the manifest's entry of a stored file from its metadata, header and trailer; `None` if
/// they do not parse.
///
/// # Errors
/// If storage fails.
pub async fn describe(
    store: &dyn ObjectStore,
    file: &StoredFile,
) -> Result<Option<FileEntry>, StorageError> {
    let meta = store.head(&file.key).await?;
    let Some(ends) = read_ends(store, file).await? else { return Ok(None) };
    let Some(post_apply) = ends.post_apply else { return Ok(None) };
    let sha256 = meta.metadata.get(SHA256).cloned().unwrap_or_default();
    let merged_since = meta.metadata.get(MERGED_SINCE).cloned();
    let entry = describe_file(file.name, &ends.header, post_apply, file.size, sha256);
    Ok(Some(FileEntry { merged_since, ..entry }))
}

/// A time of an LTX header, RFC 3339 with milliseconds.
#[must_use]
pub fn rfc3339(timestamp_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(timestamp_ms) {
        Ok(time) => format!("{time:.3}"),
        // No calendar shows it; readers that cannot parse it ask the header.
        Err(_) => timestamp_ms.to_string(),
    }
}
