//! The LTX version 3 file format: files that hold the pages changed by a range of transactions.
//!
//! [`Encoder`] and [`Decoder`] write and read files as streams, [`PageIndex`] finds single pages
//! through the end of a file, [`merge`] makes one file of many. Everything is a function of bytes:
//! no file is opened, no clock read, no random number drawn.
//!
//! The format is that of <https://github.com/superfly/ltx>. Files of Litestream 0.5 are read, of
//! both kinds of page compression; files of versions 1 and 2 are recognised and refused.

#![forbid(unsafe_code)]

mod checksum;
mod decoder;
mod encoder;
mod error;
mod file_name;
mod header;
mod index_digest;
mod index_entry;
mod input;
mod merge;
mod page_index;
mod page_order;
mod page_size;
mod payload;
mod trailer;
mod txid;
mod varint;

pub use checksum::Checksum;
pub use decoder::{Decoder, Mode};
pub use encoder::{Encoder, Summary};
pub use error::Error;
pub use file_name::FileName;
pub use header::Header;
pub use index_entry::IndexEntry;
pub use merge::{MergeOptions, merge};
pub use page_index::{IndexTail, PageIndex, decode_page_frame};
pub use page_size::PageSize;
pub use trailer::Trailer;
pub use txid::Txid;

/// The number of a page in a database, from 1 on.
pub type Pgno = u32;
