//! Page sizes and the lock page.

use crate::{Error, Pgno};

/// A page size of SQLite: a power of two from 512 to 65536 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageSize(u32);

impl PageSize {
    /// All page sizes, ascending.
    pub const ALL: [Self; 8] = [
        Self(512),
        Self(1024),
        Self(2048),
        Self(4096),
        Self(8192),
        Self(16384),
        Self(32768),
        Self(65536),
    ];

    /// The size in bytes.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// The size in bytes, for slices.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.0 as usize
    }

    /// The page that holds byte 2^30, where SQLite keeps its locks: never written, never stored.
    #[must_use]
    pub fn lock_page(self) -> Pgno {
        0x4000_0000 / self.0 + 1
    }

    /// The most bytes that a compressor makes of one page (the bound of LZ4 blocks).
    pub(crate) fn largest_payload(self) -> u32 {
        self.0 + self.0 / 255 + 16
    }
}

impl TryFrom<u32> for PageSize {
    type Error = Error;

    fn try_from(size: u32) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|known| known.0 == size).ok_or(Error::BadPageSize { size })
    }
}
