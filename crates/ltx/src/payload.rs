//! The compressed pages of both variants: LZ4 blocks with a size field, and the LZ4 frames of
//! Litestream before 0.5.16.

use std::io::{self, Read};

use lz4_flex::block::decompress_into;
use lz4_flex::frame::FrameDecoder;

use crate::{Error, Pgno};

/// What every LZ4 frame begins with, little-endian 0x184d2204.
pub(crate) const FRAME_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// Magic, flags, block descriptor, header checksum.
const FRAME_HEADER: usize = 7;
/// Bits of the flags that add optional fields (content size, dictionary); no writer of LTX files
/// sets them.
const REFUSED_FLAGS: u8 = 0b0000_1001;

/// Decompresses one LZ4 block into exactly one page.
pub(crate) fn decompress_block(pgno: Pgno, payload: &[u8], page: &mut [u8]) -> Result<(), Error> {
    let bad = |why| Error::BadPayload { pgno, why };
    let length = decompress_into(payload, page).map_err(|error| bad(error.to_string()))?;
    if length != page.len() {
        return Err(bad(format!("it has {length} bytes, a page has {}", page.len())));
    }
    Ok(())
}

/// Decompresses one LZ4 frame into exactly one page, reading the frame and nothing behind it.
///
/// The block descriptor is checked first: only blocks of 64 KiB, which hold any page, are
/// accepted, so the decoder's buffers are bounded by that and not by what a hostile frame claims.
pub(crate) fn decompress_frame(
    pgno: Pgno,
    input: &mut impl Read,
    page: &mut [u8],
) -> Result<(), Error> {
    let bad = |why: String| Error::BadPayload { pgno, why };
    let mut header = [0; FRAME_HEADER];
    input.read_exact(&mut header)?;
    let [m0, m1, m2, m3, flags, descriptor, _] = header;
    if [m0, m1, m2, m3] != FRAME_MAGIC {
        return Err(bad("it is no LZ4 frame".to_owned()));
    }
    if flags & REFUSED_FLAGS != 0 || descriptor != 0x40 {
        return Err(bad("its LZ4 frame is of a kind that no writer uses".to_owned()));
    }
    let mut frame = FrameDecoder::new(header.as_slice().chain(input));
    let lz4 = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Io(error),
        _ if error.get_ref().is_some() => bad(error.to_string()),
        _ => Error::Io(error),
    };
    frame.read_exact(page).map_err(lz4)?;
    // Reads the end mark and the content checksum, and proves that nothing else is in the frame.
    let mut more = [0];
    if frame.read(&mut more).map_err(lz4)? != 0 {
        return Err(bad("its LZ4 frame holds more than a page".to_owned()));
    }
    Ok(())
}
