//! Files made for tests, and databases as maps of pages.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use walrust_ltx::{Checksum, Decoder, Encoder, Error, Header, Mode, PageSize, Pgno, Trailer, Txid};

/// The pages of a file or a database.
pub(crate) type Pages = BTreeMap<Pgno, Vec<u8>>;

/// A file that was read to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) header: Header,
    pub(crate) pages: Pages,
    pub(crate) trailer: Trailer,
}

pub(crate) fn txid(number: u64) -> Txid {
    Txid::new(number).unwrap()
}

pub(crate) fn page_size(bytes: u32) -> PageSize {
    PageSize::try_from(bytes).unwrap()
}

/// A header without checksums for pages of 512 bytes.
pub(crate) fn header(commit: u32, min: u64, max: u64) -> Header {
    Header::new(page_size(512), commit, txid(min), txid(max))
}

/// Compressible pages of 512 bytes that differ by number and version.
pub(crate) fn pages(numbers: impl IntoIterator<Item = Pgno>, version: u8) -> Pages {
    let page = |pgno: Pgno| {
        let start = [pgno.to_be_bytes().as_slice(), &[version; 60]].concat();
        start.into_iter().cycle().take(512).collect()
    };
    numbers.into_iter().map(|pgno| (pgno, page(pgno))).collect()
}

/// The rolling checksum, computed from nothing.
pub(crate) fn rolling(pages: &Pages) -> Checksum {
    pages
        .iter()
        .fold(Checksum::EMPTY, |sum, (&pgno, page)| sum.toggle(Checksum::of_page(pgno, page)))
}

pub(crate) fn encode(
    header: &Header,
    pages: &Pages,
    post_apply: Option<Checksum>,
) -> Result<Vec<u8>, Error> {
    let mut encoder = Encoder::new(Vec::new(), header.clone())?;
    for (&pgno, page) in pages {
        assert_eq!(encoder.page(pgno, page)?, Checksum::of_page(pgno, page));
    }
    let (file, summary) = encoder.finish(post_apply)?;
    assert_eq!(summary.size, file.len() as u64);
    assert_eq!(summary.pages as usize, pages.len());
    Ok(file)
}

pub(crate) fn decode(file: &[u8], mode: Mode) -> Result<Decoded, Error> {
    let mut decoder = Decoder::new(file, mode)?;
    let header = decoder.header().clone();
    let mut page = vec![0; header.page_size.bytes()];
    let mut pages = Pages::new();
    while let Some(pgno) = decoder.next_page(&mut page)? {
        assert!(pages.insert(pgno, page.clone()).is_none(), "page {pgno} came twice");
    }
    Ok(Decoded { header, pages, trailer: decoder.finish()? })
}

/// What a database becomes by a file: new pages, then the new size.
pub(crate) fn apply(database: &mut Pages, file: &Decoded) {
    database.extend(file.pages.clone());
    database.retain(|&pgno, _| pgno <= file.header.commit);
}

/// The same file with pages in LZ4 frames, as older programs wrote them.
pub(crate) fn with_frames(header: &Header, pages: &Pages, post_apply: Option<Checksum>) -> Vec<u8> {
    let mut forged = Forged::new(header);
    for (&pgno, page) in pages {
        forged.frame(pgno, page);
    }
    forged.finish(post_apply)
}

/// A file put together byte by byte, with checksums that are right whatever is in it.
pub(crate) struct Forged {
    stored: Vec<u8>,
    hashed: Vec<u8>,
    index: Vec<u8>,
}

impl Forged {
    pub(crate) fn new(header: &Header) -> Self {
        let bytes = header.to_bytes().to_vec();
        Self { stored: bytes.clone(), hashed: bytes, index: Vec::new() }
    }

    /// A page in an LZ4 block.
    pub(crate) fn block(&mut self, pgno: Pgno, page: &[u8]) {
        let payload = lz4_flex::block::compress(page);
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [pgno.to_be_bytes().as_slice(), &[0, 1], &size].concat();
        self.raw(pgno, &head, &payload, page);
    }

    /// A page in an LZ4 frame.
    pub(crate) fn frame(&mut self, pgno: Pgno, page: &[u8]) {
        let payload = lz4_frame(page);
        let head = [pgno.to_be_bytes().as_slice(), &[0, 0]].concat();
        self.raw(pgno, &head, &payload, page);
    }

    /// A page header, what stands behind it, and the page that this is to become.
    pub(crate) fn raw(&mut self, pgno: Pgno, head: &[u8], payload: &[u8], page: &[u8]) {
        let offset = self.stored.len() as u64;
        self.stored.extend_from_slice(head);
        self.stored.extend_from_slice(payload);
        self.hashed.extend_from_slice(head);
        self.hashed.extend_from_slice(page);
        for number in [u64::from(pgno), offset, self.stored.len() as u64 - offset] {
            leb128(number, &mut self.index);
        }
    }

    pub(crate) fn finish(mut self, post_apply: Option<Checksum>) -> Vec<u8> {
        self.index.push(0);
        let length = self.index.len() as u64;
        let index = std::mem::take(&mut self.index);
        self.finish_with(&index, length, post_apply.map_or(0, Checksum::raw))
    }

    pub(crate) fn finish_with(mut self, index: &[u8], length: u64, post_apply: u64) -> Vec<u8> {
        let length = length.to_be_bytes();
        let tail = [[0; 6].as_slice(), index, &length, &post_apply.to_be_bytes()].concat();
        self.stored.extend_from_slice(&tail);
        self.hashed.extend_from_slice(&tail);
        self.stored.extend_from_slice(&crc(&self.hashed).to_be_bytes());
        self.stored
    }
}

/// The file checksum of hashed bytes, through the page checksum: page number first, then a page.
fn crc(hashed: &[u8]) -> u64 {
    let (start, rest) = hashed.split_first_chunk().unwrap();
    Checksum::of_page(u32::from_be_bytes(*start), rest).raw()
}

pub(crate) fn leb128(mut number: u64, out: &mut Vec<u8>) {
    while number >= 128 {
        out.push(u8::try_from(number & 127).unwrap() | 128);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap());
}

/// An LZ4 frame with the settings of the programs that wrote them.
pub(crate) fn lz4_frame(content: &[u8]) -> Vec<u8> {
    let info = FrameInfo::new()
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max64KB)
        .content_checksum(true);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn fixture_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/ltx").join(name)
}

/// The bytes of a fixture; a missing one fails the test.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let path = fixture_path(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
