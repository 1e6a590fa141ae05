//! The 24 bytes before each page of a WAL, and where frames lie in the file
//! (sqlite.org/fileformat2.html, section 4.1).
//!
//! A frame header alone proves nothing: [`FrameReader`](crate::FrameReader) decides whether the
//! frame belongs to the generation.

use crate::field::be_u32;
use crate::{Salts, WalChecksum, WalHeader};

/// What the header of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Number of the page in the frame; the first page of a database is 1.
    pub pgno: u32,
    /// Size of the database in pages after the transaction if this frame commits it, otherwise 0.
    pub commit: u32,
    /// Salts of the generation in which the frame was written.
    pub salts: Salts,
    /// Running checksum up to and including this frame.
    pub checksum: WalChecksum,
}

impl FrameHeader {
    /// Bytes in a frame header.
    pub const SIZE: usize = 24;
    /// Bytes at its start that the running checksum covers; the page follows them.
    pub(crate) const CHECKSUMMED: usize = 8;

    /// Reads the fields; any 24 bytes will do.
    #[must_use]
    pub fn parse(header: &[u8; Self::SIZE]) -> Self {
        Self {
            pgno: be_u32(header, 0),
            commit: be_u32(header, 4),
            salts: Salts(be_u32(header, 8), be_u32(header, 12)),
            checksum: WalChecksum { s1: be_u32(header, 16), s2: be_u32(header, 20) },
        }
    }

    /// Whether the frame is the last of a transaction.
    #[must_use]
    pub fn is_commit(&self) -> bool {
        self.commit != 0
    }
}

/// Bytes of a frame: its header and a page of `page_size` bytes.
#[must_use]
pub const fn frame_size(page_size: u32) -> u64 {
    FrameHeader::SIZE as u64 + page_size as u64
}

/// Where the frame with the 0-based index `frame_index` begins in the file, in bytes; for a count
/// of frames, where the last of them ends.
///
/// The WAL-index and `PRAGMA wal_checkpoint` count frames from 1 instead.
#[must_use]
pub const fn frame_offset(page_size: u32, frame_index: u32) -> u64 {
    WalHeader::SIZE as u64 + frame_index as u64 * frame_size(page_size)
}
