//! The page index: random access to the pages of a file through its last bytes.
//!
//! Invariant: an index that was parsed names frames that lie inside the file, in order, without
//! overlap. What a frame holds is checked when it is decoded; nothing here proves that the file
//! as a whole is the one that was written.

use crate::encoder::{BLOCK, END_OF_PAGES, PAGE_HEADER};
use crate::payload::{Payload, decompress_block};
use crate::trailer::post_apply_field;
use crate::{Checksum, Error, Header, IndexEntry, PageSize, Pgno, Trailer, varint};

/// The index length, the post-apply checksum and the file checksum.
const FIXED_TAIL: u64 = 24;
/// A file without pages up to its index: header and end-of-pages mark.
const BEFORE_INDEX: u64 = (Header::SIZE + END_OF_PAGES.len()) as u64;

/// The pages of a file and where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageIndex {
    entries: Vec<IndexEntry>,
    trailer: Trailer,
}

/// What the end of a file tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexTail {
    /// The index.
    Complete(PageIndex),
    /// The index is longer than the bytes given: this many from the end of the file are needed.
    NeedBytes(u64),
}

impl PageIndex {
    /// Reads the index from the last bytes of a file of `file_size` bytes.
    ///
    /// How many bytes that takes is only known from the last 24. 32 KiB hold the index of most
    /// files; if they do not, [`IndexTail::NeedBytes`] tells how many to fetch instead.
    ///
    /// # Errors
    /// If the index contradicts itself or the size of the file.
    pub fn from_tail(tail: &[u8], file_size: u64) -> Result<IndexTail, Error> {
        let available = tail.len() as u64;
        let Some(longest) = file_size.checked_sub(BEFORE_INDEX + FIXED_TAIL) else {
            return Err(Error::BadIndex { what: "the file is too small for one" });
        };
        let Some((rest, fixed)) = tail.split_last_chunk::<24>() else {
            return Ok(IndexTail::NeedBytes(FIXED_TAIL));
        };
        let number = |at: usize| {
            let bytes = fixed[at..].first_chunk().expect("three numbers of eight bytes");
            u64::from_be_bytes(*bytes)
        };
        let length = number(0);
        if length > longest {
            return Err(Error::BadIndex { what: "it is longer than the file" });
        }
        if length + FIXED_TAIL > available {
            return Ok(IndexTail::NeedBytes(length + FIXED_TAIL));
        }
        let stored = number(16);
        let file_checksum = Checksum::from_raw(stored).ok_or(Error::BadChecksumField {
            field: "the file checksum",
            found: stored,
            rule: "a checksum has bit 63 set",
        })?;
        let trailer = Trailer { post_apply: post_apply_field(number(8))?, file_checksum };
        let start = rest.len() - usize::try_from(length).expect("it is at most the bytes given");
        let end_of_frames = Header::SIZE as u64 + (longest - length);
        let entries = parse_entries(&rest[start..], end_of_frames)?;
        Ok(IndexTail::Complete(Self { entries, trailer }))
    }

    /// All pages, ascending.
    #[must_use]
    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Where a page is; `None` if the file does not have it.
    #[must_use]
    pub fn get(&self, pgno: Pgno) -> Option<IndexEntry> {
        let index = self.entries.binary_search_by_key(&pgno, |entry| entry.pgno).ok()?;
        Some(self.entries[index])
    }

    /// The trailer of the file.
    #[must_use]
    pub fn trailer(&self) -> Trailer {
        self.trailer
    }
}

fn parse_entries(mut index: &[u8], end_of_frames: u64) -> Result<Vec<IndexEntry>, Error> {
    let bad = |what| Err(Error::BadIndex { what });
    let mut entries: Vec<IndexEntry> = Vec::new();
    let mut next_offset = Header::SIZE as u64;
    loop {
        let Some(pgno) = varint::read(&mut index) else { return bad("it ends too early") };
        if pgno == 0 {
            break;
        }
        let (Some(offset), Some(size)) = (varint::read(&mut index), varint::read(&mut index))
        else {
            return bad("it ends too early");
        };
        let previous = entries.last().map_or(0, |entry| entry.pgno);
        let Ok(pgno) = u32::try_from(pgno) else { return bad("a page number is too large") };
        if pgno <= previous {
            return bad("page numbers must ascend");
        }
        if offset != next_offset {
            return bad("the frames do not lie side by side");
        }
        match offset.checked_add(size) {
            Some(end) if size > 6 => next_offset = end,
            _ => return bad("a frame has no size that a frame can have"),
        }
        entries.push(IndexEntry { pgno, offset, size });
    }
    if !index.is_empty() {
        return bad("something follows its end mark");
    }
    if next_offset != end_of_frames {
        return bad("it does not reach the end of the frames");
    }
    Ok(entries)
}

/// Decodes one page frame, as the index names it, into `page`.
///
/// Only the frame is proven to be well-formed; the page is what was written if its checksum is
/// one that the caller knows from elsewhere.
///
/// # Errors
/// If the frame is not that of page `pgno`, does not decompress to exactly one page or does not
/// end where its page does, or if `page` does not have the page size.
pub fn decode_page_frame(
    frame: &[u8],
    page_size: PageSize,
    pgno: Pgno,
    page: &mut [u8],
) -> Result<(), Error> {
    if page.len() != page_size.bytes() {
        return Err(Error::WrongPageLength { found: page.len(), expected: page_size.bytes() });
    }
    let truncated = || Error::Truncated { offset: frame.len() as u64, part: "a page frame" };
    let (head, body) = frame.split_first_chunk::<6>().ok_or_else(truncated)?;
    let [p0, p1, p2, p3, f0, f1] = *head;
    let (found, flags) = (u32::from_be_bytes([p0, p1, p2, p3]), u16::from_be_bytes([f0, f1]));
    if found != pgno || flags & !BLOCK != 0 {
        return Err(Error::BadPageHeader { pgno: found, flags, offset: 0 });
    }
    let wrong_size = Error::BadIndex { what: "a frame does not have the size it tells" };
    if flags == BLOCK {
        let (field, payload) = body.split_first_chunk::<4>().ok_or_else(truncated)?;
        if u32::from_be_bytes(*field) as usize != frame.len() - PAGE_HEADER {
            return Err(wrong_size);
        }
        return decompress_block(pgno, payload, page);
    }
    let mut rest = body;
    Payload::new(page_size).read_frame(pgno, &mut rest, page).map_err(|error| match error {
        // Reading from a slice fails only at its end.
        Error::Io(_) => truncated(),
        error => error,
    })?;
    if rest.is_empty() { Ok(()) } else { Err(wrong_size) }
}
