//! CRC-64/GO-ISO checksums of pages, databases and files.
//!
//! A page checksum is the CRC of the page number (big-endian) and the page. The rolling checksum
//! of a database is the XOR of those of all its pages but the lock page, so it follows every
//! change of a page without reading the rest. Bit 63 is always set, which tells a checksum from
//! none.

use std::fmt;
use std::str::FromStr;

use crc_fast::{CrcAlgorithm, Digest};

use crate::error::parse_hex16;
use crate::{Error, Pgno};

const FLAG: u64 = 1 << 63;

/// A page checksum, a rolling database checksum, or a file checksum.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum(u64);

impl Checksum {
    /// The rolling checksum of a database without pages.
    pub const EMPTY: Self = Self(FLAG);

    /// The checksum of one page.
    #[must_use]
    pub fn of_page(pgno: Pgno, page: &[u8]) -> Self {
        let mut crc = Crc::new();
        crc.update(&pgno.to_be_bytes());
        crc.update(page);
        crc.checksum()
    }

    /// The rolling checksum with a page put in, or taken out again.
    #[must_use]
    pub fn toggle(self, page: Self) -> Self {
        Self((self.0 ^ page.0) | FLAG)
    }

    /// A checksum as it is stored; `None` without bit 63.
    #[must_use]
    pub fn from_raw(raw: u64) -> Option<Self> {
        (raw & FLAG != 0).then_some(Self(raw))
    }

    /// The checksum as it is stored.
    #[must_use]
    pub fn raw(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checksum({self})")
    }
}

impl FromStr for Checksum {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        const WHAT: &str = "a checksum of 16 hex digits with the first bit set";
        Self::from_raw(parse_hex16(text, WHAT)?)
            .ok_or_else(|| Error::Parse { text: text.to_owned(), what: WHAT })
    }
}

/// A running CRC-64/GO-ISO.
#[derive(Clone, Debug)]
pub(crate) struct Crc(Digest);

impl Crc {
    pub(crate) fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64GoIso))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The CRC with bit 63 set.
    pub(crate) fn checksum(&self) -> Checksum {
        Checksum(self.0.finalize() | FLAG)
    }
}
