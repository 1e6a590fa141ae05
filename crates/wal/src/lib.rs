//! SQLite's on-disk formats, as far as replication reads them, and replicas write them: the database
//! header, the write-ahead log (WAL) and the wal-index.
//!
//! Everything here is a function of bytes: no file is opened, no clock read, no random number
//! drawn. The formats are those of <https://sqlite.org/fileformat2.html> and
//! <https://sqlite.org/walformat.html>.
//!
//! Invariant: what this crate calls committed is what SQLite's own recovery would call committed.
//! A frame counts only if its salts are those of the WAL header and its checksum continues the
//! chain that begins there, and only up to the last frame that ends a transaction. Hostile bytes
//! yield an error or an earlier end, never a panic and never an allocation larger than the input.

#![forbid(unsafe_code)]

mod database_header;
mod field;
mod frame_header;
mod frame_reader;
mod frame_writer;
mod lock_bytes;
mod page_size;
mod salts;
mod wal_checksum;
mod wal_header;
mod wal_index;
mod wal_index_block;
mod wal_scan;

pub use database_header::{DatabaseHeader, DatabaseHeaderError};
pub use frame_header::{FrameHeader, frame_offset, frame_size};
pub use frame_reader::{FrameEnd, FrameReader};
pub use frame_writer::FrameWriter;
pub use lock_bytes::{DATABASE_SHARED_BYTE, SHM_DMS, SHM_WRITE, shm_read_lock};
pub use salts::Salts;
pub use wal_checksum::{ByteOrder, WalChecksum};
pub use wal_header::{WalHeader, WalHeaderError};
pub use wal_index::{READ_MARK_UNUSED, WalIndex, WalIndexError, WalIndexHeader};
pub use wal_index_block::WalIndexBlock;
pub use wal_scan::{Committed, WalScan};
