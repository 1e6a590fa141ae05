//! A file that is an object.
//!
//! Its `ETag` is made of inode, time of modification and size. The store sets that time from the
//! clock of the system, whose nanoseconds differ for every put; the time that the kernel would set
//! stands still for milliseconds, long enough for an inode to be used again.
//!
//! User metadata is kept in one extended attribute, as `name=value` lines. File systems without
//! extended attributes keep none; then objects have empty metadata.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;

use crate::{ListEntry, Metadata, ObjectMeta};

/// Extended attribute with the user metadata.
const ATTRIBUTE: &str = "user.walrust.metadata";

/// More than all metadata that [`crate::metadata::check`] accepts.
const MAX_ATTRIBUTE_BYTES: usize = 8192;

/// An open object.
pub(super) struct StoredFile {
    pub(super) file: File,
    pub(super) meta: ObjectMeta,
}

impl StoredFile {
    /// Opens the object under `key` at `path`; what it tells is of the file that it opened, even
    /// if another one takes its place.
    pub(super) fn open(path: &Path, key: &str) -> io::Result<Self> {
        let file = File::open(path)?;
        let status = file.metadata()?;
        if !status.is_file() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let ListEntry { key, size, etag, modified } = list_entry(key.to_owned(), &status);
        let metadata = read_metadata(&file)?;
        Ok(Self { file, meta: ObjectMeta { key, size, etag, metadata, modified } })
    }
}

/// What a listing says about the file.
pub(super) fn list_entry(key: String, status: &fs::Metadata) -> ListEntry {
    ListEntry { key, size: status.len(), etag: etag(status), modified: status.modified().ok() }
}

/// The `ETag` of the file.
pub(super) fn etag(status: &fs::Metadata) -> String {
    let (inode, size) = (status.ino(), status.size());
    format!("{inode:x}-{:x}.{:09}-{size:x}", status.mtime(), status.mtime_nsec())
}

/// Attaches metadata to a file that is not an object yet.
pub(super) fn write_metadata(file: &File, metadata: &Metadata) -> io::Result<()> {
    if metadata.is_empty() {
        return Ok(());
    }
    let text: String = metadata.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    match rustix::fs::fsetxattr(file, ATTRIBUTE, text.as_bytes(), rustix::fs::XattrFlags::empty()) {
        Err(Errno::NOTSUP) => Ok(()),
        answer => Ok(answer?),
    }
}

fn read_metadata(file: &File) -> io::Result<Metadata> {
    let mut buffer = vec![0; MAX_ATTRIBUTE_BYTES];
    let length = match rustix::fs::fgetxattr(file, ATTRIBUTE, &mut buffer) {
        Err(Errno::NOTSUP | Errno::NODATA) => return Ok(Metadata::new()),
        answer => answer?,
    };
    let text = String::from_utf8_lossy(&buffer[..length]);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}
