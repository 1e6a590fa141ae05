//! What must hold for any bytes, whoever made them. The fuzz target runs the same function.

use allocation_counter::{AllocationInfo, measure};
use std::io::{BufRead, BufReader};

use walrust_ltx::{
    Decoder, Encoder, Error, Header, IndexTail, Mode, PageIndex, PageSize, Pgno, Trailer,
    decode_page_frame,
};

/// Read buffer, texts of errors and the entry of an index.
const FIXED: u64 = 17 * 1024;

type Pages = Vec<(Pgno, Vec<u8>)>;

/// Reads any bytes in every way there is: no panic, and no more memory than declared.
pub(crate) fn read_anything(bytes: &[u8]) {
    let strict = read_stream(bytes, Mode::Strict);
    // Once as a whole, once through a buffer that no page fits into.
    let lenient = read_stream(BufReader::with_capacity(64, bytes), Mode::Lenient);
    read_index(bytes);
    read_frame(bytes);
    let Ok((header, pages, trailer)) = strict else { return };
    assert_eq!(lenient.expect("lenient reading forgives more, not less").2, trailer);
    check_index(bytes, &header, &pages);
    check_encoding(header, &pages, trailer);
}

fn read_stream(bytes: impl BufRead, mode: Mode) -> Result<(Header, Pages, Trailer), Error> {
    let mut opened = None;
    let opening = measure(|| opened = Some(Decoder::new(bytes, mode)));
    assert_bounded(&opening, FIXED);
    let mut decoder = opened.expect("the closure has run")?;
    let header = decoder.header().clone();
    let payload = payload_bound(header.page_size);
    let mut page = vec![0; header.page_size.bytes()];
    let mut pages = Vec::new();
    loop {
        let mut pgno = None;
        let reading = measure(|| pgno = Some(decoder.next_page(&mut page)));
        assert_bounded(&reading, FIXED + payload);
        match pgno.expect("the closure has run")? {
            Some(pgno) => pages.push((pgno, page.clone())),
            None => break,
        }
    }
    let mut trailer = None;
    let finishing = measure(|| trailer = Some(decoder.finish()));
    assert_bounded(&finishing, FIXED);
    Ok((header, pages, trailer.expect("the closure has run")?))
}

fn assert_bounded(info: &AllocationInfo, bound: u64) {
    assert!(info.bytes_max <= bound, "{} bytes allocated, {bound} declared", info.bytes_max);
}

fn read_index(bytes: &[u8]) {
    let mut result = None;
    let parsing = measure(|| result = Some(PageIndex::from_tail(bytes, bytes.len() as u64)));
    // An entry takes three bytes or more in the file, 24 in memory, and a vector that grows has
    // room for twice as many, while the old one is still there.
    assert_bounded(&parsing, 1024 + 3 * 8 * bytes.len() as u64);
    let Some(Ok(IndexTail::Complete(index))) = result else { return };
    for entry in index.entries() {
        assert!(entry.offset >= 100 && entry.offset + entry.size < bytes.len() as u64);
        let range = [entry.offset, entry.offset + entry.size];
        let [start, end] = range.map(|at| usize::try_from(at).expect("it lies in the file"));
        read_frame(&bytes[start..end]);
    }
}

/// Any bytes as the frame of the page that they name, or of another.
fn read_frame(bytes: &[u8]) {
    let named = bytes.first_chunk().map_or(1, |pgno| Pgno::from_be_bytes(*pgno));
    for size in [PageSize::ALL[0], PageSize::ALL[3], PageSize::ALL[7]] {
        let mut page = vec![0; size.bytes()];
        let mut result = None;
        let reading = measure(|| result = Some(decode_page_frame(bytes, size, named, &mut page)));
        assert_bounded(&reading, 1024 + payload_bound(size));
        if let Some(Ok(())) = result {
            let other = named.wrapping_add(1);
            decode_page_frame(bytes, size, other, &mut page).expect_err("it is another page");
        }
    }
}

/// The most bytes of a compressed page.
fn payload_bound(size: PageSize) -> u64 {
    u64::from(size.get()) * 256 / 255 + 16
}

fn check_index(bytes: &[u8], header: &Header, pages: &Pages) {
    let answer = PageIndex::from_tail(bytes, bytes.len() as u64);
    let Ok(IndexTail::Complete(index)) = answer else { panic!("a valid file has a valid index") };
    assert_eq!(index.entries().len(), pages.len());
    let mut found = vec![0; header.page_size.bytes()];
    for (entry, (pgno, page)) in index.entries().iter().zip(pages) {
        let range = [entry.offset, entry.offset + entry.size];
        let [start, end] = range.map(|at| usize::try_from(at).expect("it lies in the file"));
        decode_page_frame(&bytes[start..end], header.page_size, *pgno, &mut found)
            .expect("a frame of a valid file is valid");
        assert_eq!(&found, page);
    }
}

/// What was accepted can be written again, and the new file says the same.
fn check_encoding(header: Header, pages: &Pages, trailer: Trailer) {
    let mut encoder = Encoder::new(Vec::new(), header.clone()).expect("the header is valid");
    for (pgno, page) in pages {
        encoder.page(*pgno, page).expect("the pages are in order");
    }
    let (file, summary) = encoder.finish(trailer.post_apply).expect("the file is complete");
    assert_eq!((summary.size, summary.pages as usize), (file.len() as u64, pages.len()));
    assert_eq!(summary.trailer.post_apply, trailer.post_apply);
    let again = read_stream(file.as_slice(), Mode::Strict).expect("what was written is valid");
    assert_eq!((&again.0, &again.1, again.2), (&header, pages, summary.trailer));
}
