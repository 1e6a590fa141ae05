//! The header of the wal-index, the `-shm` file (sqlite.org/walformat.html, section 2).
//!
//! Invariant: a parsed header is one that SQLite would trust: initialised, both copies equal, of
//! the known version, with a valid checksum of its own. Writers update it without a lock for
//! readers, so copies that differ are normal and mean: read again. The fields after the copies
//! (backfill and read marks) are protected by no checksum; each of them changes on its own, and a
//! value read without the matching lock may be old at once.
//!
//! The wal-index is in the byte order of the machine. It never leaves the machine.

use crate::field::{be_u32, native_u32};
use crate::page_size::is_page_size;
use crate::wal_header::VERSION;
use crate::{ByteOrder, Salts, WalChecksum};

/// The value of a read mark that no reader uses.
pub const READ_MARK_UNUSED: u32 = 0xffff_ffff;

/// Bytes in one copy of the header.
const COPY: usize = 48;
/// Bytes at its start that its checksum covers.
const CHECKSUMMED: usize = 40;

/// What the header of a wal-index says about the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalIndexHeader {
    /// Version of the format, 3007000.
    pub version: u32,
    /// Counts transactions, wrapping.
    pub change: u32,
    /// Whether the wal-index is initialised; always true once parsed.
    pub is_init: bool,
    /// Whether the checksums of the WAL take big-endian words.
    pub big_endian_checksum: bool,
    /// Bytes per page, or 0 as long as the WAL has no valid header.
    pub page_size: u32,
    /// Committed frames in the WAL: the 1-based number of the last commit frame, or 0.
    pub mx_frame: u32,
    /// Size of the database in pages after the last commit; 0 if the WAL has no frames since the
    /// wal-index was built.
    pub page_count: u32,
    /// Running checksum after the last committed frame.
    pub frame_checksum: WalChecksum,
    /// Salts of the generation, as the numbers in the header of the WAL.
    pub salts: Salts,
    /// Checksum of the header.
    pub checksum: WalChecksum,
}

/// The start of a wal-index: its header and the state of checkpoints and readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalIndex {
    /// The header.
    pub header: WalIndexHeader,
    /// Frames from the start of the WAL that are in the database file already.
    pub backfilled: u32,
    /// For each read lock the number of frames its readers see, or [`READ_MARK_UNUSED`]. Mark 0
    /// is always 0: its readers ignore the WAL.
    pub read_marks: [u32; 5],
    /// Frames that a checkpoint has begun to copy; more than `backfilled` if it did not finish.
    pub backfill_attempted: u32,
}

impl WalIndex {
    /// Bytes that [`parse`](Self::parse) takes from the start of the `-shm` file.
    pub const SIZE: usize = 136;

    /// Parses the start of a `-shm` file; what follows the first [`SIZE`](Self::SIZE) bytes is
    /// ignored.
    ///
    /// # Errors
    /// The header is not one that SQLite would trust. While a writer is at work
    /// [`CopiesDiffer`](WalIndexError::CopiesDiffer) is normal; read again.
    pub fn parse(bytes: &[u8]) -> Result<Self, WalIndexError> {
        let Some(index) = bytes.first_chunk::<{ Self::SIZE }>() else {
            return Err(WalIndexError::TooShort { length: bytes.len() });
        };
        if index[..COPY] != index[COPY..2 * COPY] {
            return Err(WalIndexError::CopiesDiffer);
        }
        let header = WalIndexHeader::parse(index)?;
        Ok(Self {
            header,
            backfilled: native_u32(index, 96),
            read_marks: std::array::from_fn(|mark| native_u32(index, 100 + 4 * mark)),
            backfill_attempted: native_u32(index, 128),
        })
    }
}

impl WalIndexHeader {
    /// Bytes in one copy of the header; the `-shm` file begins with two of them.
    pub const SIZE: usize = COPY;

    /// One copy of the header as it is stored, with its checksum, whatever that field says.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let mut put = |offset: usize, value: &[u8]| {
            bytes[offset..offset + value.len()].copy_from_slice(value);
        };
        // 65536 does not fit the two bytes and is stored as 1.
        let page_size = u16::try_from(self.page_size).unwrap_or(1);
        put(0, &self.version.to_ne_bytes());
        put(8, &self.change.to_ne_bytes());
        put(12, &[u8::from(self.is_init), u8::from(self.big_endian_checksum)]);
        put(14, &page_size.to_ne_bytes());
        put(16, &self.mx_frame.to_ne_bytes());
        put(20, &self.page_count.to_ne_bytes());
        put(24, &self.frame_checksum.s1.to_ne_bytes());
        put(28, &self.frame_checksum.s2.to_ne_bytes());
        put(32, &self.salts.0.to_be_bytes());
        put(36, &self.salts.1.to_be_bytes());
        let checksum = WalChecksum::default().update(ByteOrder::NATIVE, &bytes[..CHECKSUMMED]);
        bytes[CHECKSUMMED..44].copy_from_slice(&checksum.s1.to_ne_bytes());
        bytes[44..].copy_from_slice(&checksum.s2.to_ne_bytes());
        bytes
    }

    fn parse(index: &[u8; WalIndex::SIZE]) -> Result<Self, WalIndexError> {
        if index[12] == 0 {
            return Err(WalIndexError::NotInitialised);
        }
        let version = native_u32(index, 0);
        if version != VERSION {
            return Err(WalIndexError::Version { version });
        }
        let checksum = WalChecksum { s1: native_u32(index, 40), s2: native_u32(index, 44) };
        let computed = WalChecksum::default().update(ByteOrder::NATIVE, &index[..CHECKSUMMED]);
        if checksum != computed {
            return Err(WalIndexError::Checksum { stored: checksum, computed });
        }
        // 65536 does not fit the two bytes and is stored as 1.
        let page_size = match u16::from_ne_bytes([index[14], index[15]]) {
            1 => 65_536,
            stored => u32::from(stored),
        };
        if page_size != 0 && !is_page_size(page_size) {
            return Err(WalIndexError::PageSize { page_size });
        }
        Ok(Self {
            version,
            change: native_u32(index, 8),
            is_init: true,
            big_endian_checksum: index[13] != 0,
            page_size,
            mx_frame: native_u32(index, 16),
            page_count: native_u32(index, 20),
            frame_checksum: WalChecksum { s1: native_u32(index, 24), s2: native_u32(index, 28) },
            // The only field that is not native: SQLite copies the bytes of the WAL header.
            salts: Salts(be_u32(index, 32), be_u32(index, 36)),
            checksum,
        })
    }
}

/// Why bytes are not a wal-index that can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalIndexError {
    /// The file ends inside the header: nobody has built the wal-index yet.
    #[error("the wal-index has {length} bytes, fewer than the 136 of its header")]
    TooShort {
        /// Bytes there are.
        length: usize,
    },
    /// The header is there, but nobody has built the wal-index yet.
    #[error("the wal-index is not initialised")]
    NotInitialised,
    /// A writer is changing the header, or died while it did.
    #[error("the two copies of the wal-index header differ")]
    CopiesDiffer,
    /// The format version is unknown.
    #[error("the wal-index has format version {version}, only 3007000 is known")]
    Version {
        /// Version according to the header.
        version: u32,
    },
    /// The header is damaged.
    #[error(
        "the wal-index header has checksum {:08x}-{:08x}, its bytes add up to {:08x}-{:08x}",
        .stored.s1, .stored.s2, .computed.s1, .computed.s2
    )]
    Checksum {
        /// Checksum in the header.
        stored: WalChecksum,
        /// Checksum of the header's bytes.
        computed: WalChecksum,
    },
    /// The page size is neither 0 nor a power of two from 512 to 65536.
    #[error("the wal-index states a page size of {page_size} bytes, which SQLite does not know")]
    PageSize {
        /// Bytes per page according to the header.
        page_size: u32,
    },
}
