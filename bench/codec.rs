//! Throughput of the LTX codec over 4 KiB pages, in bytes of page data.
//!
//! `cargo bench -p walrust-ltx` runs it without the daemon. The bars are 400 MB/s for encoding and
//! 1 GB/s for decoding compressible pages on one core. The machine's share in a result shows in the
//! references of the same run: a copy of the same pages, their CRC, and the bare LZ4 calls, which
//! no encoder or decoder of the format can beat.

use std::io;

use crc_fast::{CrcAlgorithm, Digest};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use lz4_flex::block::{
    CompressTable, compress, compress_into_with_table, decompress_into, get_maximum_output_size,
};
use walrust_ltx::{
    Checksum, Decoder, Encoder, Header, IndexTail, MergeOptions, Mode, PageIndex, PageSize, Pgno,
    Txid, decode_page_frame, merge,
};

/// Bytes in a page.
const PAGE: usize = 4096;
/// Pages per iteration: 4 MiB, more than the caches next to a core hold.
const PAGES: Pgno = 1024;

fn main() {
    divan::main();
}

/// What a page looks like.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// Rows of a table: a third of their bytes differ from row to row.
    Rows,
    /// What does not compress.
    Noise,
}

const CONTENTS: [Content; 2] = [Content::Rows, Content::Noise];

fn noise(seed: u32) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[0]
    })
}

fn page(content: Content, pgno: Pgno) -> Vec<u8> {
    let mut random = noise(pgno);
    match content {
        Content::Noise => random.by_ref().take(PAGE).collect(),
        Content::Rows => {
            let mut page = vec![0; PAGE];
            page[..4].copy_from_slice(&pgno.to_be_bytes());
            // A b-tree page fills from its end and has free space in front of the rows.
            for (number, row) in page[600..].chunks_mut(92).enumerate() {
                let text = format!(
                    "{:08}|customer@example.com|2026-11-23T02:31:19Z|status=active|amount=",
                    pgno as usize * 40 + number
                );
                let text = text.into_bytes().into_iter().chain(random.by_ref().take(24));
                row.iter_mut().zip(text).for_each(|(byte, new)| *byte = new);
            }
            page
        }
    }
}

fn pages(content: Content) -> Vec<Vec<u8>> {
    (1..=PAGES).map(|pgno| page(content, pgno)).collect()
}

fn header(tracking: bool) -> Header {
    let size = PageSize::try_from(4096).expect("4096 is a page size");
    Header { tracking, ..Header::new(size, PAGES, Txid::FIRST, Txid::FIRST) }
}

fn encoded(pages: &[Vec<u8>], tracking: bool) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), header(tracking)).expect("the header is valid");
    let mut rolling = Checksum::EMPTY;
    for (pgno, page) in (1..).zip(pages) {
        rolling = rolling.toggle(encoder.page(pgno, page).expect("the pages are in order"));
    }
    encoder.finish(tracking.then_some(rolling)).expect("the file is complete").0
}

fn decoded(file: &[u8], page: &mut [u8]) {
    let mut decoder = Decoder::new(file, Mode::Strict).expect("the file is valid");
    while let Some(pgno) = decoder.next_page(page).expect("the file is valid") {
        black_box(pgno);
    }
    decoder.finish().expect("the file is valid");
}

/// The page data of one iteration.
fn page_data() -> BytesCount {
    BytesCount::new(PAGE * PAGES as usize)
}

#[divan::bench(args = CONTENTS)]
fn encode(bencher: Bencher<'_, '_>, content: Content) {
    let pages = pages(content);
    bencher.counter(page_data()).bench_local(|| {
        let mut encoder = Encoder::new(io::sink(), header(false)).expect("the header is valid");
        for (pgno, page) in (1..).zip(&pages) {
            black_box(encoder.page(pgno, page).expect("the pages are in order"));
        }
        encoder.finish(None).expect("the file is complete").1
    });
}

#[divan::bench(args = CONTENTS)]
fn encode_reference_lz4_and_crc(bencher: Bencher<'_, '_>, content: Content) {
    let pages = pages(content);
    let mut out = vec![0; get_maximum_output_size(PAGE)];
    let mut table = CompressTable::small();
    bencher.counter(page_data()).bench_local(|| {
        let mut crc = Digest::new(CrcAlgorithm::Crc64GoIso);
        for page in &pages {
            crc.update(page);
            black_box(compress_into_with_table(page, &mut out, &mut table).expect("it has room"));
        }
        crc.finalize()
    });
}

#[divan::bench(args = CONTENTS)]
fn decode(bencher: Bencher<'_, '_>, content: Content) {
    let file = encoded(&pages(content), false);
    let mut page = vec![0; PAGE];
    bencher.counter(page_data()).bench_local(|| decoded(black_box(&file), &mut page));
}

#[divan::bench(args = CONTENTS)]
fn decode_snapshot_with_checksums(bencher: Bencher<'_, '_>, content: Content) {
    let file = encoded(&pages(content), true);
    let mut page = vec![0; PAGE];
    bencher.counter(page_data()).bench_local(|| decoded(black_box(&file), &mut page));
}

#[divan::bench(args = CONTENTS)]
fn decode_reference_lz4_and_crc(bencher: Bencher<'_, '_>, content: Content) {
    let payloads: Vec<Vec<u8>> = pages(content).iter().map(|page| compress(page)).collect();
    let mut page = vec![0; PAGE];
    bencher.counter(page_data()).bench_local(|| {
        let mut crc = Digest::new(CrcAlgorithm::Crc64GoIso);
        for payload in &payloads {
            decompress_into(payload, &mut page).expect("it was compressed");
            crc.update(&page);
        }
        crc.finalize()
    });
}

#[divan::bench(args = CONTENTS)]
fn decode_by_index(bencher: Bencher<'_, '_>, content: Content) {
    let file = encoded(&pages(content), false);
    let mut page = vec![0; PAGE];
    bencher.counter(page_data()).bench_local(|| {
        let tail = PageIndex::from_tail(&file, file.len() as u64).expect("the file is valid");
        let IndexTail::Complete(index) = tail else { panic!("the whole file was given") };
        for entry in index.entries() {
            let range = [entry.offset, entry.offset + entry.size];
            let [start, end] = range.map(|at| usize::try_from(at).expect("it lies in the file"));
            let size = header(false).page_size;
            decode_page_frame(&file[start..end], size, entry.pgno, &mut page)
                .expect("the frame is valid");
        }
    });
}

#[divan::bench(args = [2, 16, 128])]
fn merge_files(bencher: Bencher<'_, '_>, inputs: u32) {
    // A snapshot and files that each change their share of all pages.
    let pages = pages(Content::Rows);
    let mut files = vec![encoded(&pages, false)];
    for number in 1..inputs {
        let txid = Txid::new(u64::from(number) + 1).expect("it is not zero");
        let header = Header { min_txid: txid, max_txid: txid, ..header(false) };
        let mut encoder = Encoder::new(Vec::new(), header).expect("the header is valid");
        for (pgno, page) in (1..).zip(&pages).skip(number as usize).step_by(inputs as usize - 1) {
            encoder.page(pgno, page).expect("the pages are in order");
        }
        files.push(encoder.finish(None).expect("the file is complete").0);
    }
    bencher.counter(BytesCount::new(2 * PAGE * PAGES as usize)).bench_local(|| {
        let open = |file| Decoder::new(file, Mode::Strict).expect("the file is valid");
        let inputs = files.iter().map(Vec::as_slice).map(open);
        merge(inputs.collect(), io::sink(), MergeOptions::default()).expect("they fit").2
    });
}

#[divan::bench(args = CONTENTS)]
fn page_checksums(bencher: Bencher<'_, '_>, content: Content) {
    let pages = pages(content);
    bencher.counter(page_data()).bench_local(|| {
        let sums = (1..).zip(&pages).map(|(pgno, page)| Checksum::of_page(pgno, page));
        sums.fold(Checksum::EMPTY, Checksum::toggle)
    });
}

#[divan::bench(args = CONTENTS)]
fn reference_copy(bencher: Bencher<'_, '_>, content: Content) {
    let pages = pages(content);
    let mut copy = vec![0; PAGE];
    bencher.counter(page_data()).bench_local(|| {
        for page in &pages {
            copy.copy_from_slice(page);
            black_box(&copy);
        }
    });
}
