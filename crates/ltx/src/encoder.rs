//! Writes an LTX file as a stream.
//!
//! Invariant: what [`Encoder::finish`] returns is a file that a strict [`Decoder`](crate::Decoder)
//! accepts; any page or checksum that would make it otherwise is refused. A file without `finish`
//! has no trailer and is accepted by nobody.

use std::fmt;
use std::io::Write;

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use crate::checksum::Crc;
use crate::index_digest::INDEX_END;
use crate::page_order::PageOrder;
use crate::trailer::check_post_apply;
use crate::{Checksum, Error, Header, IndexEntry, Pgno, Trailer};

/// What stands after the last frame: a page header without page.
pub(crate) const END_OF_PAGES: [u8; 6] = [0; 6];
/// Bytes of a page header with its size field.
pub(crate) const PAGE_HEADER: usize = 10;
/// Page flag: a size field follows, and the payload is one LZ4 block.
pub(crate) const BLOCK: u16 = 1;

/// Writes one file, page by page.
///
/// Memory: two pages, the compressor's table, and about ten bytes per page for the index.
pub struct Encoder<W> {
    out: W,
    header: Header,
    crc: Crc,
    order: PageOrder,
    /// Rolling checksum of the pages so far, which is that of the database if it is a snapshot.
    rolling: Checksum,
    offset: u64,
    index: Vec<u8>,
    frame: Vec<u8>,
    table: CompressTable,
    pages: u32,
    /// A frame was begun and not written to its end.
    is_torn: bool,
}

impl<W> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Encoder");
        debug.field("header", &self.header).field("pages", &self.pages).finish_non_exhaustive()
    }
}

/// A finished file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its trailer.
    pub trailer: Trailer,
    /// Its size in bytes.
    pub size: u64,
    /// Pages in it.
    pub pages: u32,
}

impl<W: Write> Encoder<W> {
    /// Begins a file and writes its header.
    ///
    /// # Errors
    /// If the header breaks a rule of the format, or writing fails.
    pub fn new(mut out: W, header: Header) -> Result<Self, Error> {
        header.validate()?;
        let bytes = header.to_bytes();
        out.write_all(&bytes)?;
        let mut crc = Crc::new();
        crc.update(&bytes);
        let largest = get_maximum_output_size(header.page_size.bytes());
        Ok(Self {
            out,
            order: PageOrder::new(&header),
            rolling: Checksum::EMPTY,
            header,
            crc,
            offset: Header::SIZE as u64,
            index: Vec::new(),
            frame: vec![0; PAGE_HEADER + largest],
            table: CompressTable::default(),
            pages: 0,
            is_torn: false,
        })
    }

    /// Adds a page and returns its checksum. Pages come in ascending order.
    ///
    /// A page that is refused leaves the file as it was. After writing has failed the file cannot
    /// be continued: how much of the frame got out is not known.
    ///
    /// # Errors
    /// If the page is out of place or has the wrong length, or writing fails or has failed.
    pub fn page(&mut self, pgno: Pgno, page: &[u8]) -> Result<Checksum, Error> {
        let expected = self.header.page_size.bytes();
        if page.len() != expected {
            return Err(Error::WrongPageLength { found: page.len(), expected });
        }
        if self.is_torn {
            return Err(Error::Unfinished);
        }
        self.order.next(pgno)?;
        self.is_torn = true;
        let (head, payload) = self.frame.split_at_mut(PAGE_HEADER);
        let length = compress_into_with_table(page, payload, &mut self.table)
            .map_err(|error| Error::BadPayload { pgno, why: error.to_string() })?;
        let size = u32::try_from(length).expect("a compressed page is hardly larger than 64 KiB");
        head[..4].copy_from_slice(&pgno.to_be_bytes());
        head[4..6].copy_from_slice(&BLOCK.to_be_bytes());
        head[6..].copy_from_slice(&size.to_be_bytes());
        self.crc.update(head);
        self.crc.update(page);
        let frame = &self.frame[..PAGE_HEADER + length];
        self.out.write_all(frame)?;
        let size = frame.len() as u64;
        IndexEntry { pgno, offset: self.offset, size }.write(&mut self.index);
        self.offset += size;
        self.pages += 1;
        self.is_torn = false;
        let checksum = Checksum::of_page(pgno, page);
        self.rolling = self.rolling.toggle(checksum);
        Ok(checksum)
    }

    /// Ends the file with its index and trailer, and returns the writer, which is not flushed.
    ///
    /// `post_apply` is the rolling checksum of the database after the file; none without tracking.
    ///
    /// # Errors
    /// If pages of a snapshot are missing, the checksum is missing, out of place, or not that of
    /// a snapshot's pages, or writing fails.
    pub fn finish(mut self, post_apply: Option<Checksum>) -> Result<(W, Summary), Error> {
        if self.is_torn {
            return Err(Error::Unfinished);
        }
        self.order.end()?;
        check_post_apply(&self.header, post_apply)?;
        if let Some(stored) = post_apply
            && self.header.is_snapshot()
            && stored != self.rolling
        {
            return Err(Error::PostApply { stored, computed: self.rolling });
        }
        self.index.push(INDEX_END);
        let mut tail = END_OF_PAGES.to_vec();
        tail.extend_from_slice(&self.index);
        tail.extend_from_slice(&(self.index.len() as u64).to_be_bytes());
        tail.extend_from_slice(&post_apply.map_or(0, Checksum::raw).to_be_bytes());
        self.crc.update(&tail);
        let file_checksum = self.crc.checksum();
        tail.extend_from_slice(&file_checksum.raw().to_be_bytes());
        self.out.write_all(&tail)?;
        let summary = Summary {
            trailer: Trailer { post_apply, file_checksum },
            size: self.offset + tail.len() as u64,
            pages: self.pages,
        };
        Ok((self.out, summary))
    }
}
