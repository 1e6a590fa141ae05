//! The page index against ends of files that lie.

use walrust_ltx::{Error, IndexTail, PageIndex, decode_page_frame};

use crate::support::{encode, header, leb128, page_size, pages};

/// The end of a file with these numbers for an index.
fn tail(numbers: &[u64]) -> Vec<u8> {
    let mut index = Vec::new();
    numbers.iter().for_each(|&number| leb128(number, &mut index));
    let length = (index.len() as u64).to_be_bytes();
    [index.as_slice(), &length, &[0; 8], &(1_u64 << 63).to_be_bytes()].concat()
}

/// Parses an index of a file with 200 bytes of frames.
fn parse(numbers: &[u64]) -> Result<IndexTail, Error> {
    let tail = tail(numbers);
    PageIndex::from_tail(&tail, 100 + 200 + 6 + tail.len() as u64)
}

#[test]
fn frames_lie_side_by_side_from_the_header_to_the_index() {
    let Ok(IndexTail::Complete(index)) = parse(&[2, 100, 50, 7, 150, 150, 0]) else {
        panic!("the index is valid");
    };
    let entries: Vec<_> = index.entries().iter().map(|e| (e.pgno, e.offset, e.size)).collect();
    assert_eq!(entries, [(2, 100, 50), (7, 150, 150)]);
    assert_eq!(index.get(7), Some(index.entries()[1]));
    assert_eq!(index.get(3), None);
}

#[test]
fn an_index_that_lies_is_refused() {
    let large = u64::from(u32::MAX) + 1;
    let cases: [&[u64]; 12] = [
        &[],
        &[2, 100, 50, 7, 150, 150],
        &[2, 100, 50, 7, 150, 0],
        &[2, 100, 50, 2, 150, 150, 0],
        &[7, 100, 50, 2, 150, 150, 0],
        &[2, 100, 50, 7, 151, 149, 0],
        &[2, 101, 49, 7, 150, 150, 0],
        &[2, 100, 50, 7, 150, 149, 0],
        &[2, 100, 50, 7, 150, 151, 0],
        &[2, 100, 50, 7, 150, u64::MAX, 0],
        &[2, 100, 50, large, 150, 150, 0],
        &[2, 100, 50, 7, 150, 150, 0, 0],
    ];
    for numbers in cases {
        let error = parse(numbers).expect_err("the index lies");
        assert!(matches!(error, Error::BadIndex { .. }), "{numbers:?}: {error}");
    }
    assert!(parse(&[2, 100, 6, 7, 106, 194, 0]).is_err(), "a frame without payload");
}

#[test]
fn the_length_of_the_index_is_held_against_the_size_of_the_file() {
    let file = encode(&header(9, 5, 5), &pages(2..=9, 1), None).unwrap();
    let size = file.len() as u64;
    assert_eq!(PageIndex::from_tail(&[], size).unwrap(), IndexTail::NeedBytes(24));
    assert_eq!(
        PageIndex::from_tail(&file[file.len() - 23..], size).unwrap(),
        IndexTail::NeedBytes(24)
    );
    PageIndex::from_tail(&file, size - 1).unwrap_err();
    PageIndex::from_tail(&file[50..], 129).unwrap_err();
    for length in [0, size - 129, u64::MAX] {
        let mut lying = file.clone();
        let at = lying.len() - 24;
        lying[at..at + 8].copy_from_slice(&length.to_be_bytes());
        let error = PageIndex::from_tail(&lying, size).unwrap_err();
        assert!(matches!(error, Error::BadIndex { .. }), "{length}: {error}");
    }
}

#[test]
fn checksums_without_the_first_bit_are_refused() {
    let mut file = encode(&header(9, 5, 5), &pages([2], 1), None).unwrap();
    let size = file.len();
    file[size - 8] &= 0x7f;
    let error = PageIndex::from_tail(&file, size as u64).unwrap_err();
    assert!(matches!(error, Error::BadChecksumField { .. }), "{error}");
}

#[test]
fn a_frame_must_be_that_of_the_page_and_nothing_more() {
    let pages = pages([2], 1);
    let size = page_size(512);
    let block = encode(&header(9, 5, 5), &pages, None).unwrap();
    let frame = crate::support::with_frames(&header(9, 5, 5), &pages, None);
    for file in [block, frame] {
        let IndexTail::Complete(index) = PageIndex::from_tail(&file, file.len() as u64).unwrap()
        else {
            panic!("the whole file was given");
        };
        let end = 100 + usize::try_from(index.entries()[0].size).unwrap();
        let mut page = vec![0; 512];
        decode_page_frame(&file[100..end], size, 2, &mut page).unwrap();
        assert_eq!(page, pages[&2]);
        let other = decode_page_frame(&file[100..end], size, 3, &mut page).unwrap_err();
        assert!(matches!(other, Error::BadPageHeader { pgno: 2, .. }), "{other}");
        for wrong in (100..end).chain([end + 1]) {
            let error = decode_page_frame(&file[100..wrong], size, 2, &mut page).unwrap_err();
            assert!(error.is_corruption(), "{wrong}: {error}");
        }
        for (size, length) in [(size, 511), (page_size(1024), 512)] {
            let wrong = decode_page_frame(&file[100..end], size, 2, &mut page[..length]);
            assert!(matches!(wrong, Err(Error::WrongPageLength { .. })), "{length}: {wrong:?}");
        }
        for flags in [2, 3, 0xff] {
            let mut frame = file[100..end].to_vec();
            frame[5] = flags;
            let unknown = decode_page_frame(&frame, size, 2, &mut page);
            assert!(matches!(unknown, Err(Error::BadPageHeader { .. })), "{flags}: {unknown:?}");
        }
    }
}

#[test]
fn the_size_field_of_a_frame_is_held_against_the_frame() {
    let mut file = encode(&header(9, 5, 5), &pages([2], 1), None).unwrap();
    let payload = u32::from_be_bytes(*file[106..].first_chunk().unwrap());
    let end = 110 + payload as usize;
    for lie in [payload - 1, payload + 1, 0, u32::MAX] {
        file[106..110].copy_from_slice(&lie.to_be_bytes());
        let error = decode_page_frame(&file[100..end], page_size(512), 2, &mut [0; 512]);
        assert!(matches!(error, Err(Error::BadIndex { .. })), "{lie}: {error:?}");
    }
}
