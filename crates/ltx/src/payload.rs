//! The compressed pages of both kinds: LZ4 blocks with a size field, and the LZ4 frames of
//! Litestream before 0.5.16.
//!
//! Invariant: a payload decodes to exactly one page or not at all. Hostile input: a size is
//! compared with the most that a compressor makes of a page before anything is allocated or read
//! for it, and the decompressor writes into the page it is given and nowhere else.

use std::io::{self, BufRead, Read};

use lz4_flex::block::decompress_into;
use twox_hash::XxHash32;

use crate::input::Input;
use crate::{Error, PageSize, Pgno};

/// How every LZ4 frame in an LTX file begins: the magic; version 1, independent blocks and a
/// checksum of the content; blocks of at most 64 KiB; the checksum of the last two.
const FRAME_HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x64, 0x40, 0xa7];
/// The first bytes of [`FRAME_HEADER`], which tell an LZ4 frame from anything else.
pub(crate) const FRAME_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// Bit of a block's size field: the block is not compressed.
const STORED: u32 = 1 << 31;

/// A buffer for compressed pages. It never grows beyond the most that one page takes.
#[derive(Debug)]
pub(crate) struct Payload {
    page_size: PageSize,
    buffer: Vec<u8>,
}

impl Payload {
    pub(crate) fn new(page_size: PageSize) -> Self {
        Self { page_size, buffer: Vec::new() }
    }

    /// Reads an LZ4 block of `size` bytes, decompressed into `page`.
    ///
    /// Like [`read_frame`](Self::read_frame), fails with the plain error of `read_exact` if the
    /// input ends: only the caller knows what that means.
    pub(crate) fn read_block(
        &mut self,
        pgno: Pgno,
        size: u32,
        input: &mut Input<impl BufRead>,
        page: &mut [u8],
    ) -> Result<(), Error> {
        self.check(pgno, size)?;
        // Mostly the block lies in the buffer of the input, and need not be copied.
        if let Some(block) = input.buffered()?.get(..size as usize) {
            decompress_block(pgno, block, page)?;
            input.consume(size as usize);
            return Ok(());
        }
        self.read(pgno, size, input)?;
        decompress_block(pgno, &self.buffer, page)
    }

    /// Reads one LZ4 frame and nothing beyond it, decompressed into `page`.
    pub(crate) fn read_frame(
        &mut self,
        pgno: Pgno,
        input: &mut impl Read,
        page: &mut [u8],
    ) -> Result<(), Error> {
        let bad = |why: &str| Err(Error::BadPayload { pgno, why: why.to_owned() });
        if read_array(input)? != FRAME_HEADER {
            return bad("it is no LZ4 frame, or of a kind that no writer makes");
        }
        let mut filled = 0;
        loop {
            let field = u32::from_le_bytes(read_array(input)?);
            if field == 0 {
                break;
            }
            let rest = &mut page[filled..];
            if field & STORED == 0 {
                self.read(pgno, field, input)?;
                filled += decompress_into(&self.buffer, rest)
                    .map_err(|error| Error::BadPayload { pgno, why: error.to_string() })?;
            } else {
                let size = (field & !STORED) as usize;
                let Some(stored) = rest.get_mut(..size) else {
                    return bad("it is longer than a page");
                };
                input.read_exact(stored)?;
                filled += size;
            }
        }
        if filled != page.len() {
            return bad("it is shorter than a page");
        }
        if u32::from_le_bytes(read_array(input)?) != XxHash32::oneshot(0, page) {
            return bad("the checksum of the LZ4 frame is wrong");
        }
        Ok(())
    }

    /// Fills the buffer with `size` bytes.
    fn read(&mut self, pgno: Pgno, size: u32, input: &mut impl Read) -> Result<(), Error> {
        self.check(pgno, size)?;
        if self.buffer.capacity() == 0 {
            // At once what any page may take: growing by need would overshoot.
            self.buffer.reserve_exact(self.page_size.largest_payload() as usize);
        }
        self.buffer.resize(size as usize, 0);
        Ok(input.read_exact(&mut self.buffer)?)
    }

    /// Refuses a size that no compressor makes of a page.
    fn check(&self, pgno: Pgno, size: u32) -> Result<(), Error> {
        if size > self.page_size.largest_payload() {
            return Err(Error::PayloadTooLarge { pgno, size });
        }
        Ok(())
    }
}

/// Decompresses an LZ4 block into exactly one page.
pub(crate) fn decompress_block(pgno: Pgno, payload: &[u8], page: &mut [u8]) -> Result<(), Error> {
    let bad = |why| Error::BadPayload { pgno, why };
    let length = decompress_into(payload, page).map_err(|error| bad(error.to_string()))?;
    if length != page.len() {
        return Err(bad(format!("it has {length} bytes, a page has {}", page.len())));
    }
    Ok(())
}

fn read_array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}
