//! The first 100 bytes of a database file (sqlite.org/fileformat2.html, section 1.3).
//!
//! Invariant: a parsed header belongs to a file that calls itself SQLite and has a page size that
//! SQLite knows. Every other field is passed on as it stands, hostile or not.

use crate::field::be_u32;
use crate::page_size::is_page_size;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What the header of a database file says.
///
/// In WAL mode the database file is older than the database: the newest header may be the one in
/// page 1 of the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatabaseHeader {
    /// Bytes per page: a power of two from 512 to 65536.
    pub page_size: u32,
    /// File format write version: 1 with a rollback journal, 2 with a WAL.
    pub write_version: u8,
    /// File format read version: 1 with a rollback journal, 2 with a WAL.
    pub read_version: u8,
    /// Bytes at the end of each page that SQLite leaves to extensions.
    pub reserved: u8,
    /// Size of the database in pages; SQLite before 3.7.0 does not keep it up to date.
    pub page_count: u32,
}

impl DatabaseHeader {
    /// Bytes in a database header.
    pub const SIZE: usize = 100;

    /// Parses the header at the start of `bytes`; what follows it is ignored.
    ///
    /// # Errors
    /// `bytes` is shorter than a header, does not begin with SQLite's magic string, or states a
    /// page size that does not exist.
    pub fn parse(bytes: &[u8]) -> Result<Self, DatabaseHeaderError> {
        let Some(header) = bytes.first_chunk::<{ Self::SIZE }>() else {
            return Err(match bytes.len() {
                0 => DatabaseHeaderError::Empty,
                length => DatabaseHeaderError::TooShort { length },
            });
        };
        if !header.starts_with(MAGIC) {
            return Err(DatabaseHeaderError::BadMagic);
        }
        // 65536 does not fit the two bytes and is stored as 1.
        let page_size = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65_536,
            stored => u32::from(stored),
        };
        if !is_page_size(page_size) {
            return Err(DatabaseHeaderError::BadPageSize { page_size });
        }
        Ok(Self {
            page_size,
            write_version: header[18],
            read_version: header[19],
            reserved: header[20],
            page_count: be_u32(header, 28),
        })
    }

    /// Whether the database uses a write-ahead log.
    #[must_use]
    pub fn is_wal_mode(&self) -> bool {
        self.write_version == 2 && self.read_version == 2
    }
}

/// Why bytes are not the header of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseHeaderError {
    /// There are no bytes: a new database without a table.
    #[error("the file is empty")]
    Empty,
    /// The file ends inside its header.
    #[error("the file has {length} bytes, fewer than the 100 of a database header")]
    TooShort {
        /// Bytes there are.
        length: usize,
    },
    /// The file does not begin with SQLite's magic string.
    #[error(
        "the file does not begin with \"SQLite format 3\": not a SQLite database, or encrypted"
    )]
    BadMagic,
    /// The page size is not a power of two from 512 to 65536.
    #[error(
        "the database header states a page size of {page_size} bytes, which SQLite does not know"
    )]
    BadPageSize {
        /// Bytes per page according to the header.
        page_size: u32,
    },
}
