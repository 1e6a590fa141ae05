//! The first 32 bytes of a WAL (sqlite.org/fileformat2.html, section 4.1).
//!
//! Invariant: a parsed header carries its own valid checksum. SQLite ignores a WAL whose header
//! does not, and so must a reader: the frames after it are not part of the database.

use crate::field::be_u32;
use crate::page_size::is_page_size;
use crate::{ByteOrder, Salts, WalChecksum};

/// Both magic numbers but for the lowest bit, which tells the byte order of the checksums.
const MAGIC: u32 = 0x377f_0682;
/// The only version there is; SQLite 3.7.0 introduced it.
pub(crate) const VERSION: u32 = 3_007_000;

/// What the header of a WAL says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalHeader {
    /// Byte order of the words that the checksums of this WAL add up.
    pub byte_order: ByteOrder,
    /// Bytes per page: a power of two from 512 to 65536.
    pub page_size: u32,
    /// Counts the checkpoints that led to a restart of the WAL.
    pub checkpoint_sequence: u32,
    /// Salts of the generation, repeated in each of its frames.
    pub salts: Salts,
    /// Checksum of the header, with which that of the first frame goes on.
    pub checksum: WalChecksum,
}

impl WalHeader {
    /// Bytes in a WAL header.
    pub const SIZE: usize = 32;

    /// The header of a new generation, with checksums in the byte order of this machine.
    ///
    /// # Panics
    /// If SQLite does not know the page size.
    #[must_use]
    pub fn new(page_size: u32, checkpoint_sequence: u32, salts: Salts) -> Self {
        assert!(is_page_size(page_size), "no database has pages of {page_size} bytes");
        let byte_order = ByteOrder::NATIVE;
        let checksum = WalChecksum::default();
        let mut header = Self { byte_order, page_size, checkpoint_sequence, salts, checksum };
        header.checksum = checksum.update(byte_order, &header.to_bytes()[..24]);
        header
    }

    /// The header as it is stored.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let magic = MAGIC | u32::from(self.byte_order == ByteOrder::Big);
        let Salts(salt1, salt2) = self.salts;
        let WalChecksum { s1, s2 } = self.checksum;
        let fields =
            [magic, VERSION, self.page_size, self.checkpoint_sequence, salt1, salt2, s1, s2];
        let mut bytes = [0; Self::SIZE];
        for (bytes, field) in bytes.chunks_exact_mut(4).zip(fields) {
            bytes.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    /// Parses the header at the start of `bytes`; what follows it is ignored.
    ///
    /// # Errors
    /// `bytes` is shorter than a header, or a field does not hold what SQLite would accept. A WAL
    /// that was just created or truncated may have no header yet, and a header read while it is
    /// written may fail its checksum.
    pub fn parse(bytes: &[u8]) -> Result<Self, WalHeaderError> {
        let Some(header) = bytes.first_chunk::<{ Self::SIZE }>() else {
            return Err(WalHeaderError::TooShort { length: bytes.len() });
        };
        let magic = be_u32(header, 0);
        if magic & !1 != MAGIC {
            return Err(WalHeaderError::BadMagic { magic });
        }
        let byte_order = if magic & 1 == 0 { ByteOrder::Little } else { ByteOrder::Big };
        let version = be_u32(header, 4);
        if version != VERSION {
            return Err(WalHeaderError::BadVersion { version });
        }
        let page_size = be_u32(header, 8);
        if !is_page_size(page_size) {
            return Err(WalHeaderError::BadPageSize { page_size });
        }
        let stored = WalChecksum { s1: be_u32(header, 24), s2: be_u32(header, 28) };
        // No value of the stored checksum is exempt: a zeroed one is as wrong as any other.
        let computed = WalChecksum::default().update(byte_order, &header[..24]);
        if stored != computed {
            return Err(WalHeaderError::BadChecksum { stored, computed });
        }
        Ok(Self {
            byte_order,
            page_size,
            checkpoint_sequence: be_u32(header, 12),
            salts: Salts(be_u32(header, 16), be_u32(header, 20)),
            checksum: stored,
        })
    }
}

/// Why bytes are not the header of a WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalHeaderError {
    /// The WAL ends before or inside its header.
    #[error("the WAL has {length} bytes, fewer than the 32 of its header")]
    TooShort {
        /// Bytes there are.
        length: usize,
    },
    /// The magic number is that of no WAL.
    #[error("the WAL begins with {magic:#010x}, not with a magic number of a WAL")]
    BadMagic {
        /// First four bytes of the WAL.
        magic: u32,
    },
    /// The format version is unknown.
    #[error("the WAL has format version {version}, only 3007000 is known")]
    BadVersion {
        /// Version according to the header.
        version: u32,
    },
    /// The page size is not a power of two from 512 to 65536.
    #[error("the WAL header states a page size of {page_size} bytes, which SQLite does not know")]
    BadPageSize {
        /// Bytes per page according to the header.
        page_size: u32,
    },
    /// The header is torn or damaged.
    #[error(
        "the WAL header has checksum {:08x}-{:08x}, its bytes add up to {:08x}-{:08x}",
        .stored.s1, .stored.s2, .computed.s1, .computed.s2
    )]
    BadChecksum {
        /// Checksum in the header.
        stored: WalChecksum,
        /// Checksum of the header's bytes.
        computed: WalChecksum,
    },
}
