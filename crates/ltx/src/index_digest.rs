//! Length and checksum of an encoded page index.
//!
//! A decoder follows two indexes at once, the one that the frames call for and the one that is
//! stored, and compares them at the end. Keeping digests instead of entries, it needs the same few
//! bytes for a file of one page and of a billion, whatever a hostile file claims.

use crate::IndexEntry;
use crate::checksum::Crc;

/// What stands after the last entry: page number 0.
pub(crate) const INDEX_END: u8 = 0;

/// Digest of the bytes of an index.
#[derive(Debug)]
pub(crate) struct IndexDigest {
    crc: Crc,
    length: u64,
    entry: Vec<u8>,
}

impl IndexDigest {
    pub(crate) fn new() -> Self {
        Self { crc: Crc::new(), length: 0, entry: Vec::new() }
    }

    /// The entry of the next frame.
    pub(crate) fn push(&mut self, entry: IndexEntry) {
        self.entry.clear();
        entry.write(&mut self.entry);
        self.crc.update(&self.entry);
        self.length += self.entry.len() as u64;
    }

    /// Bytes of an index as stored.
    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// Length of the index so far in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Whether both are digests of the same bytes.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.length == other.length && self.crc.checksum() == other.crc.checksum()
    }
}
