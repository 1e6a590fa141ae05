//! Metadata and identity of an object in a directory.
//!
//! Invariant: two uploads never have the same ETag. Inode, size and time of modification are not
//! enough for that: an inode may be used again within one tick of the clock. So the extended
//! attribute also carries a random number; it is set before the file gets its name.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;

use crate::Metadata;

const NAME: &str = "user.walrust.metadata";
/// The key under which the random number stands; no metadata of S3 can be named so.
const UPLOAD: &str = "#upload";

/// Bytes that are enough for what walrust itself attaches to objects.
const USUAL: usize = 512;
/// Linux takes no more bytes in one attribute.
const MOST: usize = 64 * 1024;

/// What the extended attribute of a file says.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    /// User metadata.
    pub(super) metadata: Metadata,
    /// Random number of the upload; empty if the file system keeps no attributes.
    upload: String,
}

impl Attributes {
    /// Attributes of a new object.
    pub(super) fn new(metadata: Metadata) -> Self {
        Self { metadata, upload: format!("{:016x}", fastrand::u64(..)) }
    }

    /// Attributes of a file; empty for files that walrust did not write.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let mut buffer = [0; USUAL];
        let json = match fgetxattr(file, NAME, &mut buffer) {
            Ok(length) => buffer[..length].to_vec(),
            Err(Errno::RANGE) => read_large(file)?,
            Err(Errno::NODATA | Errno::NOTSUP | Errno::NOSYS) => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        // An attribute that somebody else has changed describes nothing.
        let parsed = serde_json::from_slice::<HashMap<String, String>>(&json);
        let mut entries = parsed.unwrap_or_default();
        let upload = entries.remove(UPLOAD).unwrap_or_default();
        Ok(Self { metadata: entries.into_iter().collect(), upload })
    }

    /// Attaches the attributes to a file, if its file system keeps any.
    pub(super) fn set(&mut self, file: &File) -> io::Result<()> {
        let mut entries: HashMap<&str, &str> =
            self.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        entries.insert(UPLOAD, &self.upload);
        let json = serde_json::to_vec(&entries)?;
        match fsetxattr(file, NAME, &json, XattrFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::NOTSUP | Errno::NOSYS) => {
                self.upload.clear();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// ETag of the file that has these attributes.
    pub(super) fn etag(&self, file: &fs::Metadata) -> String {
        let (inode, size) = (file.ino(), file.len());
        let modified = i128::from(file.mtime()) * 1_000_000_000 + i128::from(file.mtime_nsec());
        format!("\"{inode:x}-{size:x}-{modified:x}-{}\"", self.upload)
    }
}

fn read_large(file: &File) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; MOST];
    let length = fgetxattr(file, NAME, &mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}
