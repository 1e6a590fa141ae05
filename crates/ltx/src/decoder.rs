//! Reads an LTX file as a stream and verifies everything about it.
//!
//! Invariant: after a successful [`Decoder::finish`] every byte of the input was checked, by the
//! file checksum or by a rule of the format. Pages handed out before that are not proven yet: a
//! caller must not publish anything made from them earlier.
//!
//! Memory against hostile input: a read buffer of 64 KiB, one compressed page, for files of old
//! Litestream versions one LZ4 frame decoder with blocks of 64 KiB, and a few dozen bytes. Sizes
//! are checked before anything is allocated or read for them.

use std::io::Read;

use crate::checksum::Crc;
use crate::encoder::{BLOCK, write_index_entry};
use crate::input::Input;
use crate::page_order::PageOrder;
use crate::payload::{decompress_block, decompress_frame};
use crate::trailer::{check_post_apply, post_apply_field};
use crate::{Checksum, Error, Header, Pgno, Trailer};

/// How much is forgiven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every rule of the format holds.
    Strict,
    /// As `litestream restore` reads: the page index is covered by the file checksum but not
    /// compared with the pages, and a file without tracking may carry a post-apply checksum,
    /// which is ignored.
    Lenient,
}

/// Flags that version 2 files show where version 3 has page flags: the start of an LZ4 frame.
const VERSION_2: u16 = 0x0422;
/// Likewise for version 1, whose pages are raw: page 1 begins with "SQLite".
const VERSION_1: u16 = 0x5351;

/// Reads one file, page by page.
#[derive(Debug)]
pub struct Decoder<R> {
    input: Input<R>,
    mode: Mode,
    header: Header,
    crc: Crc,
    order: PageOrder,
    /// Rolling checksum of a snapshot's pages.
    rolling: Checksum,
    index: ExpectedIndex,
    payload: Vec<u8>,
    ended: bool,
}

/// What the page index must be, without keeping it: its length and its checksum.
#[derive(Debug)]
struct ExpectedIndex {
    crc: Crc,
    length: u64,
    entry: Vec<u8>,
}

impl<R: Read> Decoder<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// If reading fails, or the header is not that of a valid file.
    pub fn new(input: R, mode: Mode) -> Result<Self, Error> {
        let mut input = Input::new(input);
        let mut bytes = [0; Header::SIZE];
        input.fill(&mut bytes, "the header")?;
        let header = Header::from_bytes(&bytes)?;
        let mut crc = Crc::new();
        crc.update(&bytes);
        Ok(Self {
            input,
            mode,
            crc,
            order: PageOrder::new(&header),
            rolling: Checksum::EMPTY,
            index: ExpectedIndex { crc: Crc::new(), length: 0, entry: Vec::new() },
            payload: Vec::new(),
            ended: false,
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
    /// # Errors
    /// If reading fails, or the file breaks a rule.
    ///
    /// # Panics
    /// If `page` does not have the page size.
    pub fn next_page(&mut self, page: &mut [u8]) -> Result<Option<Pgno>, Error> {
        assert_eq!(page.len(), self.header.page_size.bytes(), "the buffer must hold one page");
        if self.ended {
            return Ok(None);
        }
        let offset = self.input.offset();
        let mut head = [0; 6];
        self.input.fill(&mut head, "a page header")?;
        let [p0, p1, p2, p3, f0, f1] = head;
        let (pgno, flags) = (u32::from_be_bytes([p0, p1, p2, p3]), u16::from_be_bytes([f0, f1]));
        self.crc.update(&head);
        if head == [0; 6] {
            self.order.end()?;
            self.index.end();
            self.ended = true;
            return Ok(None);
        }
        self.check_flags(pgno, flags, offset)?;
        self.order.next(pgno)?;
        if flags == BLOCK {
            self.read_block(pgno, page)?;
        } else {
            decompress_frame(pgno, &mut self.input, page).map_err(|error| match error {
                Error::Io(error) => self.input.explain(error, "a compressed page"),
                error => error,
            })?;
        }
        self.crc.update(page);
        self.index.push(pgno, offset, self.input.offset() - offset);
        if self.header.tracking && self.header.is_snapshot() {
            self.rolling = self.rolling.toggle(Checksum::of_page(pgno, page));
        }
        Ok(Some(pgno))
    }

    /// Reads what follows the pages and verifies the file.
    ///
    /// # Errors
    /// If reading fails, the index or a checksum is wrong, or something follows the trailer.
    ///
    /// # Panics
    /// If [`next_page`](Self::next_page) has not returned `None` yet.
    pub fn finish(mut self) -> Result<Trailer, Error> {
        assert!(self.ended, "all pages are read before the end of the file");
        let (found, tail) = self.read_tail()?;
        let [length, post_apply, stored] = tail;
        let computed = self.crc.checksum();
        if stored != computed.raw() {
            return Err(Error::FileChecksum { stored, computed });
        }
        if self.mode == Mode::Strict {
            self.index.compare(&found, length)?;
        }
        let post_apply = match self.mode {
            Mode::Lenient if !self.header.tracking => None,
            _ => post_apply_field(post_apply)?,
        };
        if self.mode == Mode::Strict || self.header.tracking {
            check_post_apply(&self.header, post_apply)?;
        }
        match post_apply {
            Some(stored) if self.header.is_snapshot() && stored != self.rolling => {
                Err(Error::PostApply { stored, computed: self.rolling })
            }
            _ => Ok(Trailer { post_apply, file_checksum: computed }),
        }
    }

    fn check_flags(&self, pgno: Pgno, flags: u16, offset: u64) -> Result<(), Error> {
        let first = offset == Header::SIZE as u64;
        match flags {
            0 | BLOCK if pgno != 0 => Ok(()),
            VERSION_2 if first => {
                let writers = "a test release of Litestream 0.5";
                Err(Error::OldVersion { version: 2, writers })
            }
            VERSION_1 if first && pgno == 1 => {
                Err(Error::OldVersion { version: 1, writers: "LiteFS" })
            }
            _ => Err(Error::BadPageHeader { pgno, flags, offset }),
        }
    }

    fn read_block(&mut self, pgno: Pgno, page: &mut [u8]) -> Result<(), Error> {
        let mut field = [0; 4];
        self.input.fill(&mut field, "a page header")?;
        let size = u32::from_be_bytes(field);
        if size > self.header.page_size.largest_payload() {
            return Err(Error::PayloadTooLarge { pgno, size });
        }
        self.crc.update(&field);
        self.payload.resize(size as usize, 0);
        self.input.fill(&mut self.payload, "a compressed page")?;
        decompress_block(pgno, &self.payload, page)
    }

    /// Reads the index, whose length is only known at its end, and the three numbers behind it:
    /// the last 24 bytes are held back while the rest goes by.
    fn read_tail(&mut self) -> Result<(ExpectedIndex, [u64; 3]), Error> {
        const HELD: usize = 24;
        // No index of these pages is longer: three numbers of at most ten bytes each, and the end.
        let longest = u64::from(self.index.pages_bound()) * 30 + 1;
        let mut found = ExpectedIndex { crc: Crc::new(), length: 0, entry: Vec::new() };
        let mut buffer = [0; 4096];
        let mut held = 0;
        loop {
            let length = match self.input.read(&mut buffer[held..]) {
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.input.explain(error, "the page index")),
            };
            if length == 0 {
                break;
            }
            held += length;
            if held > HELD {
                let gone = held - HELD;
                found.take(&buffer[..gone]);
                self.crc.update(&buffer[..gone]);
                buffer.copy_within(gone..held, 0);
                held = HELD;
            }
            if found.length > longest {
                return Err(Error::TrailingBytes);
            }
        }
        let part = if held < 16 { "the trailer" } else { "the page index" };
        let truncated = Error::Truncated { offset: self.input.offset(), part };
        let Some(tail) = buffer[..held].first_chunk::<HELD>() else { return Err(truncated) };
        self.crc.update(&tail[..16]);
        let numbers = [0, 8, 16].map(|at| {
            let bytes = tail[at..].first_chunk().expect("three numbers of eight bytes");
            u64::from_be_bytes(*bytes)
        });
        Ok((found, numbers))
    }
}

impl ExpectedIndex {
    fn push(&mut self, pgno: Pgno, offset: u64, size: u64) {
        self.entry.clear();
        write_index_entry(pgno, offset, size, &mut self.entry);
        self.crc.update(&self.entry);
        self.length += self.entry.len() as u64;
    }

    fn end(&mut self) {
        self.take(&[0]);
    }

    fn take(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// At least as many as there are pages: an entry has three bytes or more.
    fn pages_bound(&self) -> u32 {
        u32::try_from(self.length / 3).unwrap_or(u32::MAX)
    }

    fn compare(&self, found: &Self, length_field: u64) -> Result<(), Error> {
        let what = if found.length != self.length {
            "it does not have the length that the pages need"
        } else if length_field != self.length {
            "its length field does not tell its length"
        } else if found.crc.checksum() != self.crc.checksum() {
            "it does not tell where the pages are"
        } else {
            return Ok(());
        };
        Err(Error::BadIndex { what })
    }
}
