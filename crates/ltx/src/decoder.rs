//! Reads an LTX file as a stream and verifies everything about it.
//!
//! Invariant: after a successful [`Decoder::finish`] every byte of the input was checked, by the
//! file checksum or by a rule of the format. Pages handed out before that are not proven yet: a
//! caller must not publish anything made from them earlier. One freedom remains, which no reader
//! can take away: the file checksum covers decompressed pages, so a change of compressed bytes
//! that decompress to the same page is no change.
//!
//! Memory against hostile input: one compressed page, and a few hundred bytes. Sizes are checked before
//! anything is allocated or read for them.

use std::io::BufRead;

use crate::checksum::Crc;
use crate::encoder::{BLOCK, END_OF_PAGES};
use crate::index_digest::{INDEX_END, IndexDigest};
use crate::input::Input;
use crate::page_order::PageOrder;
use crate::payload::{FRAME_MAGIC, Payload};
use crate::trailer::{check_post_apply, post_apply_field};
use crate::{Checksum, Error, Header, IndexEntry, Pgno, Trailer, varint};

/// How much is forgiven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every rule of the format holds.
    Strict,
    /// Files in a tree of Litestream, as `litestream restore` reads them. Two rules are off:
    ///
    /// * the page index is a sequence of entries and an end mark that the file checksum covers,
    ///   but neither its entries nor its length field are compared with the frames, so an empty
    ///   one passes;
    /// * the post-apply checksum of a file without tracking may be anything; it is ignored and
    ///   reported as none.
    ///
    /// Everything else is checked as in [`Mode::Strict`], even where Litestream is more lenient:
    /// the order of pages, their number, and their length after decompression.
    Lenient,
}

/// What stands where version 3 has the page flags when page 1 is stored raw, as version 1 does:
/// the first letters of "SQLite format 3".
const START_OF_DATABASE: [u8; 2] = *b"SQ";

/// Reads one file, page by page.
///
/// ```
/// use walrust_ltx::{Checksum, Decoder, Encoder, Header, Mode, PageSize, Txid};
///
/// # fn main() -> Result<(), walrust_ltx::Error> {
/// let header = Header::new(PageSize::try_from(512)?, 1, Txid::FIRST, Txid::FIRST);
/// let mut encoder = Encoder::new(Vec::new(), header)?;
/// encoder.page(1, &[7; 512])?;
/// let (file, summary) = encoder.finish(None)?;
///
/// let mut decoder = Decoder::new(file.as_slice(), Mode::Strict)?;
/// let mut page = [0; 512];
/// while let Some(pgno) = decoder.next_page(&mut page)? {
///     assert_eq!((pgno, page), (1, [7; 512]));
/// }
/// assert_eq!(decoder.finish()?, summary.trailer);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Decoder<R> {
    input: Input<R>,
    mode: Mode,
    header: Header,
    crc: Crc,
    order: PageOrder,
    /// Rolling checksum of a snapshot's pages.
    rolling: Checksum,
    /// The index that the frames read so far call for.
    index: IndexDigest,
    payload: Payload,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    InPages,
    AfterPages,
    Failed,
}

impl<R: BufRead> Decoder<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// If reading fails, or the header is not that of a valid file.
    pub fn new(input: R, mode: Mode) -> Result<Self, Error> {
        let mut input = Input::new(input);
        let bytes = input.array("the header")?;
        let header = Header::from_bytes(&bytes)?;
        let mut crc = Crc::new();
        crc.update(&bytes);
        Ok(Self {
            input,
            mode,
            crc,
            order: PageOrder::new(&header),
            rolling: Checksum::EMPTY,
            index: IndexDigest::new(),
            payload: Payload::new(header.page_size),
            progress: Progress::InPages,
            header,
        })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads the next page into `page`, which has the page size; `None` after the last.
    ///
    /// After an error the contents of `page` are undefined, and the decoder gives nothing more.
    ///
    /// # Errors
    /// If reading fails, the file breaks a rule, `page` has another length, or there was an error
    /// before.
    pub fn next_page(&mut self, page: &mut [u8]) -> Result<Option<Pgno>, Error> {
        let expected = self.header.page_size.bytes();
        if page.len() != expected {
            return Err(Error::WrongPageLength { found: page.len(), expected });
        }
        match self.progress {
            Progress::InPages => {}
            Progress::AfterPages => return Ok(None),
            Progress::Failed => return Err(Error::Unfinished),
        }
        self.progress = Progress::Failed;
        let pgno = self.read_frame(page)?;
        self.progress = if pgno.is_some() { Progress::InPages } else { Progress::AfterPages };
        Ok(pgno)
    }

    /// Reads what follows the pages and verifies the file.
    ///
    /// # Errors
    /// If reading fails, the index or a checksum is wrong, something follows the trailer, or
    /// [`next_page`](Self::next_page) has not returned `None` yet.
    pub fn finish(mut self) -> Result<Trailer, Error> {
        if self.progress != Progress::AfterPages {
            return Err(Error::Unfinished);
        }
        let stored_index = self.read_index()?;
        let length: [u8; 8] = self.input.array("the length of the page index")?;
        let post_apply: [u8; 8] = self.input.array("the trailer")?;
        let file_checksum: [u8; 8] = self.input.array("the trailer")?;
        if !self.input.is_at_end()? {
            return Err(Error::TrailingBytes);
        }
        self.crc.update(&length);
        self.crc.update(&post_apply);
        let (stored, computed) = (u64::from_be_bytes(file_checksum), self.crc.checksum());
        if stored != computed.raw() {
            return Err(Error::FileChecksum { stored, computed });
        }
        if self.mode == Mode::Strict {
            self.check_index(&stored_index, u64::from_be_bytes(length))?;
        }
        let post_apply = self.check_post_apply(u64::from_be_bytes(post_apply))?;
        Ok(Trailer { post_apply, file_checksum: computed })
    }

    fn read_frame(&mut self, page: &mut [u8]) -> Result<Option<Pgno>, Error> {
        let offset = self.input.offset();
        let head: [u8; 6] = self.input.array("a page header")?;
        self.crc.update(&head);
        if head == END_OF_PAGES {
            self.order.end()?;
            self.index.push_bytes(&[INDEX_END]);
            return Ok(None);
        }
        let [p0, p1, p2, p3, f0, f1] = head;
        let (pgno, flags) = (u32::from_be_bytes([p0, p1, p2, p3]), u16::from_be_bytes([f0, f1]));
        self.check_flags(pgno, flags, offset)?;
        self.order.next(pgno)?;
        let payload = if flags == BLOCK {
            let size: [u8; 4] = self.input.array("a page header")?;
            self.crc.update(&size);
            self.payload.read_block(pgno, u32::from_be_bytes(size), &mut self.input, page)
        } else {
            self.payload.read_frame(pgno, &mut self.input, page)
        };
        payload.map_err(|error| match error {
            Error::Io(error) => self.input.explain(error, "a compressed page"),
            error => error,
        })?;
        self.crc.update(page);
        self.index.push(IndexEntry { pgno, offset, size: self.input.offset() - offset });
        if self.header.tracking && self.header.is_snapshot() {
            self.rolling = self.rolling.toggle(Checksum::of_page(pgno, page));
        }
        Ok(Some(pgno))
    }

    fn check_flags(&self, pgno: Pgno, flags: u16, offset: u64) -> Result<(), Error> {
        let is_first = offset == Header::SIZE as u64;
        match flags.to_be_bytes() {
            _ if pgno != 0 && flags & !BLOCK == 0 => Ok(()),
            start if is_first && FRAME_MAGIC.starts_with(&start) => {
                let writers = "a test release of Litestream 0.5";
                Err(Error::OldVersion { version: 2, writers })
            }
            START_OF_DATABASE if is_first && pgno == 1 => {
                Err(Error::OldVersion { version: 1, writers: "LiteFS" })
            }
            _ => Err(Error::BadPageHeader { pgno, flags, offset }),
        }
    }

    /// Reads the entries of the index and its end mark, whatever they say.
    fn read_index(&mut self) -> Result<IndexDigest, Error> {
        let mut digest = IndexDigest::new();
        let mut entry = Vec::new();
        loop {
            entry.clear();
            let is_end = self.read_number(&mut entry)? == 0;
            if !is_end {
                self.read_number(&mut entry)?;
                self.read_number(&mut entry)?;
            }
            self.crc.update(&entry);
            digest.push_bytes(&entry);
            if is_end {
                return Ok(digest);
            }
        }
    }

    /// Reads a number of the index and appends its bytes to `entry`.
    fn read_number(&mut self, entry: &mut Vec<u8>) -> Result<u64, Error> {
        let start = entry.len();
        loop {
            let [byte] = self.input.array("the page index")?;
            entry.push(byte);
            if byte < 0x80 || entry.len() - start == varint::LONGEST {
                let number = varint::read(&mut &entry[start..]);
                return number.ok_or(Error::BadIndex { what: "a number has more than 64 bits" });
            }
        }
    }

    fn check_index(&self, stored: &IndexDigest, length: u64) -> Result<(), Error> {
        let what = if !stored.matches(&self.index) {
            "it does not tell where the pages are"
        } else if length != stored.length() {
            "its length field does not tell its length"
        } else {
            return Ok(());
        };
        Err(Error::BadIndex { what })
    }

    fn check_post_apply(&self, raw: u64) -> Result<Option<Checksum>, Error> {
        if self.mode == Mode::Lenient && !self.header.tracking {
            return Ok(None);
        }
        let post_apply = post_apply_field(raw)?;
        check_post_apply(&self.header, post_apply)?;
        match post_apply {
            Some(stored) if self.header.is_snapshot() && stored != self.rolling => {
                Err(Error::PostApply { stored, computed: self.rolling })
            }
            _ => Ok(post_apply),
        }
    }
}
