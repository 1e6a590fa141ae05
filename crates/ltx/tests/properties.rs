//! What holds for all databases, sizes and histories.

use std::io::{self, Read};

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use walrust_ltx::{Checksum, Decoder, Header, MergeOptions, Mode, PageSize, Pgno, merge};

use crate::support::{
    Decoded, Forged, Pages, apply, decode, encode, fixture, header, pages, rolling, txid,
    with_frames,
};

/// Gives one byte at a time, and is interrupted before each, even before the end.
struct Trickle<'a> {
    bytes: &'a [u8],
    interrupted: bool,
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = buffer.len().min(1);
        self.bytes.read(&mut buffer[..length])
    }
}

/// A page of zeros, of one repeated text, of noise, or half of each.
fn page(size: PageSize) -> impl Strategy<Value = Vec<u8>> {
    let bytes = size.bytes();
    let noise = move |seed: u64| {
        let mut state = seed;
        let next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(bytes).collect::<Vec<u8>>()
    };
    prop_oneof![
        Just(vec![0; bytes]),
        vec(any::<u8>(), 1..50).prop_map(move |text| text
            .into_iter()
            .cycle()
            .take(bytes)
            .collect()),
        any::<u64>().prop_map(noise),
        any::<u64>().prop_map(move |seed| {
            let mut page = noise(seed);
            page[bytes / 2..].fill(7);
            page
        }),
    ]
}

prop_compose! {
    fn any_header(page_size: PageSize)(
        commit in 1_u32..60,
        range in (1_u64..5, 0_u64..1000),
        timestamp_ms in any::<i64>(),
        wal in prop_oneof![Just((0, 0, 0, 0)), (1..i64::MAX, 0..i64::MAX, any::<u32>(), any::<u32>())],
        node_id in any::<u64>(),
        pre_apply in prop::option::of(any::<u64>()),
    ) -> Header {
        let pre_apply = pre_apply.and_then(|raw| Checksum::from_raw(raw | 1 << 63));
        let mut header = Header::new(page_size, commit, txid(range.0), txid(range.0 + range.1));
        header.tracking = pre_apply.is_some();
        header.pre_apply = pre_apply.filter(|_| !header.is_snapshot());
        header.timestamp_ms = timestamp_ms;
        (header.wal_offset, header.wal_size, header.wal_salt1, header.wal_salt2) = wal;
        header.node_id = node_id;
        header
    }
}

/// A header and pages that fit it.
fn any_file() -> impl Strategy<Value = (Header, Pages)> {
    prop::sample::select(PageSize::ALL.to_vec())
        .prop_flat_map(any_header)
        .prop_flat_map(|header| {
            let all: Vec<Pgno> = (1..=header.commit.min(8)).collect();
            let mut header = header;
            let numbers = if header.is_snapshot() {
                header.commit = header.commit.min(8);
                Just(all).boxed()
            } else {
                prop::sample::subsequence(all.clone(), 0..=all.len()).boxed()
            };
            (Just(header), numbers)
        })
        .prop_flat_map(|(header, numbers)| {
            let contents = vec(page(header.page_size), numbers.len());
            (Just(header), Just(numbers), contents)
        })
        .prop_map(|(header, numbers, contents)| {
            (header, numbers.into_iter().zip(contents).collect())
        })
}

fn post_apply_of(header: &Header, pages: &Pages) -> Option<Checksum> {
    header.tracking.then(|| rolling(pages))
}

/// One step of a database's life: its new size, and which of the older pages change.
#[derive(Clone, Debug)]
struct Step {
    commit: u32,
    changed: Vec<Pgno>,
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    let step = (1_u32..12, btree_set(1_u32..12, 0..4))
        .prop_map(|(commit, changed)| Step { commit, changed: changed.into_iter().collect() });
    vec(step, 1..7)
}

/// The files of a history, all with checksums, and the database after each of them.
fn files_of(history: &[Step]) -> Vec<(Vec<u8>, Pages)> {
    let mut database = Pages::new();
    let mut files = Vec::new();
    for (index, step) in (0_u8..).zip(history) {
        let number = u64::from(index) + 1;
        let before = u32::try_from(database.len()).unwrap();
        let grown = before + 1..=step.commit;
        let changed = step.changed.iter().copied().filter(|&pgno| pgno <= step.commit);
        let pages = pages(grown.chain(changed), index);
        let mut header = header(step.commit, number, number);
        header.tracking = true;
        header.pre_apply = (index > 0).then(|| rolling(&database));
        database.extend(pages.clone());
        database.retain(|&pgno, _| pgno <= step.commit);
        files.push((encode(&header, &pages, Some(rolling(&database))).unwrap(), database.clone()));
    }
    files
}

fn merged(files: &[Vec<u8>]) -> Vec<u8> {
    let inputs = files.iter().map(|file| Decoder::new(file.as_slice(), Mode::Strict).unwrap());
    merge(inputs.collect(), Vec::new(), MergeOptions::default()).unwrap().0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_written_is_read((header, pages) in any_file()) {
        let post_apply = post_apply_of(&header, &pages);
        let file = encode(&header, &pages, post_apply).unwrap();
        let decoded = decode(&file, Mode::Strict).unwrap();
        prop_assert_eq!(&decoded.header, &header);
        prop_assert_eq!(&decoded.pages, &pages);
        prop_assert_eq!(decoded.trailer.post_apply, post_apply);
        prop_assert_eq!(&decode(&file, Mode::Lenient).unwrap(), &decoded);
    }

    #[test]
    fn pages_in_lz4_frames_are_read((header, pages) in any_file(), frames in vec(any::<bool>(), 8)) {
        let post_apply = post_apply_of(&header, &pages);
        let mut forged = Forged::new(&header);
        for ((&pgno, page), is_frame) in pages.iter().zip(frames) {
            if is_frame { forged.frame(pgno, page) } else { forged.block(pgno, page) }
        }
        let decoded = decode(&forged.finish(post_apply), Mode::Strict).unwrap();
        prop_assert_eq!(&decoded.header, &header);
        prop_assert_eq!(&decoded.pages, &pages);
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_arrive(
        (header, pages) in any_file(),
        buffer in 1..600_usize,
    ) {
        let file = with_frames(&header, &pages, post_apply_of(&header, &pages));
        let input = Trickle { bytes: &file, interrupted: false };
        let input = std::io::BufReader::with_capacity(buffer, input);
        let mut decoder = Decoder::new(input, Mode::Strict).unwrap();
        let mut page = vec![0; header.page_size.bytes()];
        let mut found = Pages::new();
        while let Some(pgno) = decoder.next_page(&mut page).unwrap() {
            found.insert(pgno, page.clone());
        }
        decoder.finish().unwrap();
        prop_assert_eq!(found, pages);
    }

    #[test]
    fn a_header_survives(header in any_header(PageSize::ALL[3])) {
        prop_assert_eq!(Header::from_bytes(&header.to_bytes()).unwrap(), header);
    }

    #[test]
    fn checksum_increments_equal_recomputation(
        changes in vec((1_u32..20, prop::option::of(0_u8..200)), 0..60),
    ) {
        let mut database = Pages::new();
        let mut sum = Checksum::EMPTY;
        for (pgno, version) in changes {
            if let Some(old) = database.remove(&pgno) {
                sum = sum.toggle(Checksum::of_page(pgno, &old));
            }
            if let Some(version) = version {
                let new = vec![version; 512];
                sum = sum.toggle(Checksum::of_page(pgno, &new));
                database.insert(pgno, new);
            }
            prop_assert_eq!(sum, rolling(&database));
        }
    }

    #[test]
    fn merging_equals_applying_in_order(history in history(), cut in any::<prop::sample::Index>()) {
        let files = files_of(&history);
        let (_, last) = files.last().unwrap();
        let bytes: Vec<Vec<u8>> = files.iter().map(|(file, _)| file.clone()).collect();
        let all = decode(&merged(&bytes), Mode::Strict).unwrap();
        prop_assert_eq!(&all.pages, last);
        prop_assert_eq!(all.trailer.post_apply, Some(rolling(last)));

        // From the middle on: an increment that leads from one state to the last.
        let cut = cut.index(files.len());
        let rest: Decoded = decode(&merged(&bytes[cut..]), Mode::Strict).unwrap();
        let mut database = if cut == 0 { Pages::new() } else { files[cut - 1].1.clone() };
        apply(&mut database, &rest);
        prop_assert_eq!(&database, last);

        // In two parts, and with an overlap: the same bytes.
        let one = merged(&bytes);
        if cut > 0 {
            let parts = [merged(&bytes[..cut]), merged(&bytes[cut..])];
            prop_assert_eq!(&merged(&parts), &one);
            let overlapping = [merged(&bytes[..cut]), merged(&bytes[cut - 1..])];
            prop_assert_eq!(&merged(&overlapping), &one);
        }
    }
}

/// Flips every bit of a file, one at a time. Nothing that the file says may change unnoticed:
/// only in compressed bytes may a flip go through, and then it decompresses to the same pages.
fn flip_every_bit(file: &[u8]) {
    let original = decode(file, Mode::Strict).unwrap();
    let mut unnoticed = 0;
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut flipped = file.to_vec();
            flipped[at] ^= 1 << bit;
            if let Ok(decoded) = decode(&flipped, Mode::Strict) {
                assert_eq!(decoded, original, "byte {at}, bit {bit}");
                unnoticed += 1;
            }
        }
    }
    assert!(unnoticed < file.len() / 4, "{unnoticed} flips changed nothing");
}

#[test]
fn any_flipped_bit_of_a_fixture_is_noticed() {
    for name in [
        "ck-3-shrink.ltx",
        "ck-4-delete.ltx",
        "ck-compact-1-3.ltx",
        "ls15-ps512-L0-1-lz4frame.ltx",
        "ls17-ps4096-L0-b-onepage.ltx",
        "ls17-ps512-L0-1.ltx",
    ] {
        flip_every_bit(&fixture(name));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn any_flipped_bit_is_noticed(contents in vec(page(PageSize::ALL[0]), 1..4), frames in any::<bool>()) {
        let pages: Pages = (1..).zip(contents).collect();
        let mut header = header(u32::try_from(pages.len()).unwrap(), 1, 3);
        header.tracking = true;
        let post_apply = Some(rolling(&pages));
        if frames {
            flip_every_bit(&with_frames(&header, &pages, post_apply));
        } else {
            flip_every_bit(&encode(&header, &pages, post_apply).unwrap());
        }
    }
}
