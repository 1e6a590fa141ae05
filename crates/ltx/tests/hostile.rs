//! Bytes that nobody meant to be a file: the body of the fuzz target on generated inputs.

use std::fs;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::anything::read_anything;
use crate::support::{Forged, fixture_path, header, page_size, txid};

/// All fixtures, good and bad.
fn fixtures() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for directory in [fixture_path(""), fixture_path("bad")] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "ltx") {
                files.push(fs::read(path).unwrap());
            }
        }
    }
    assert_eq!(files.len(), 19 + 27);
    files
}

#[test]
fn fixtures_are_read_within_bounds() {
    fixtures().iter().for_each(|file| read_anything(file));
}

#[test]
fn a_payload_of_any_claimed_size_allocates_no_more_than_a_page() {
    for size in [528, 529, 530, 70_000, 1 << 24, 1 << 31, u32::MAX] {
        for flags in [0, 1] {
            let head = [[0, 0, 0, 2, 0, flags].as_slice(), &size.to_be_bytes()].concat();
            let mut forged = Forged::new(&header(3, 5, 5));
            forged.raw(2, &head, &[0; 600], &[0; 512]);
            read_anything(&forged.finish(None));
        }
    }
}

#[test]
fn growing_payloads_stay_within_the_bound_of_one() {
    let size = page_size(65536);
    let header = walrust_ltx::Header::new(size, 9, txid(5), txid(5));
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(size.bytes())
    .collect();
    let mut forged = Forged::new(&header);
    for (pgno, length) in [(1, 30_000), (2, 40_000), (3, 50_000), (4, 65_536)] {
        let mut page = noise.clone();
        page[length..].fill(0);
        if pgno % 2 == 0 { forged.block(pgno, &page) } else { forged.frame(pgno, &page) }
    }
    read_anything(&forged.finish(None));
}

#[test]
fn a_number_of_the_index_without_end_is_not_collected() {
    let forged = Forged::new(&header(3, 5, 5));
    read_anything(&forged.finish_with(&[0x80; 200_000], 200_000, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..400)) {
        read_anything(&bytes);
    }

    #[test]
    fn damaged_fixtures(
        which in any::<prop::sample::Index>(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let fixtures = fixtures();
        let mut file = which.get(&fixtures).clone();
        if let (Some(cut), false) = (cut, file.is_empty()) {
            file.truncate(cut.index(file.len()));
        }
        for (at, byte) in damage {
            if !file.is_empty() {
                let at = at.index(file.len());
                file[at] = byte;
            }
        }
        read_anything(&file);
    }

    /// Right checksums around wrong frames, which random damage would not get through.
    #[test]
    fn forged_frames(
        frames in vec((0_u32..6, 0_u16..3, prop::option::of(0_u32..600), vec(any::<u8>(), 0..600)), 0..4),
        min in 1_u64..3,
        index in vec(any::<u8>(), 0..20),
        own_index in any::<bool>(),
        post_apply in prop_oneof![Just(0), any::<u64>()],
    ) {
        let mut forged = Forged::new(&header(4, min, 5));
        for (pgno, flags, size, payload) in frames {
            let mut head = [pgno.to_be_bytes().as_slice(), &flags.to_be_bytes()].concat();
            if flags == 1 {
                let length = u32::try_from(payload.len()).unwrap();
                head.extend_from_slice(&size.unwrap_or(length).to_be_bytes());
            }
            let mut page = [0; 512];
            // What the payload really decodes to, if to anything: then the checksum fits.
            let _ = lz4_flex::block::decompress_into(&payload, &mut page);
            forged.raw(pgno, &head, &payload, &page);
        }
        let file = if own_index {
            forged.finish(None)
        } else {
            let length = index.len() as u64;
            forged.finish_with(&index, length, post_apply)
        };
        read_anything(&file);
    }
}
