//! Files that must be refused, each for its own reason.

use walrust_ltx::{Checksum, Error, Header, Mode, PageSize};

use crate::fixtures::manifest;
use crate::support::{Forged, Pages, decode, fixture, header, leb128, pages, rolling, txid};

/// The name of the variant, which the tests compare instead of texts.
fn kind(error: &Error) -> String {
    let text = format!("{error:?}");
    text.split([' ', '(', '{']).next().unwrap().to_owned()
}

#[test]
fn every_bad_fixture_is_refused_for_the_reason_that_it_was_made_for() {
    let expected = [
        ("magic", "BadMagic"),
        ("flags-bit0", "OldVersion"),
        ("pagesize-1000", "BadPageSize"),
        ("txid-zero", "BadTxidRange"),
        ("salt-without-waloffset", "BadWalFields"),
        ("walsize-without-waloffset", "BadWalFields"),
        ("nochecksum-with-pre", "BadChecksumField"),
        ("snapshot-with-pre", "BadChecksumField"),
        ("inc-pre-noflag", "BadChecksumField"),
        ("nochecksum-with-post", "BadChecksumField"),
        ("file-checksum", "FileChecksum"),
        ("file-checksum-noflag", "FileChecksum"),
        ("trunc-0", "Truncated"),
        ("trunc-50", "Truncated"),
        ("trunc-103", "Truncated"),
        ("trunc-120", "Truncated"),
        ("trunc-175", "Truncated"),
        ("trunc-190", "Truncated"),
        ("payload-size-huge", "PayloadTooLarge"),
        ("lz4-garbage", "BadPayload"),
        ("pages-out-of-order", "PageOutOfPlace"),
        ("page-duplicate", "PageOutOfPlace"),
        ("pgno-zero-with-flag", "BadPageHeader"),
        ("snapshot-missing-page", "PageOutOfPlace"),
        ("lock-page", "PageOutOfPlace"),
        ("index-wrong-offset", "BadIndex"),
        ("index-empty", "BadIndex"),
    ];
    let bad = manifest().bad;
    assert_eq!(bad.len(), expected.len());
    for case in bad {
        let name = case.file.strip_prefix("bad/").unwrap().strip_suffix(".ltx").unwrap();
        let (_, reason) = expected.iter().find(|(known, _)| *known == name).unwrap();
        let error = decode(&fixture(&case.file), Mode::Strict).expect_err(&case.must_reject);
        assert_eq!(&kind(&error), reason, "{name}: {error}");
        assert!(!error.is_io(), "{name}");
    }
}

#[test]
fn lenient_reading_forgives_what_litestream_forgives_and_nothing_else() {
    let forgiven =
        ["bad/index-empty.ltx", "bad/index-wrong-offset.ltx", "bad/nochecksum-with-post.ltx"];
    for case in manifest().bad {
        let result = decode(&fixture(&case.file), Mode::Lenient);
        if forgiven.contains(&case.file.as_str()) {
            assert_eq!(result.unwrap().trailer.post_apply, None, "{}", case.file);
        } else {
            result.expect_err(&case.must_reject);
        }
    }
}

#[test]
fn the_error_tells_where_the_file_ends() {
    let file = fixture("ls17-ps4096-L0-b-onepage.ltx");
    for length in 0..file.len() {
        for mode in [Mode::Strict, Mode::Lenient] {
            match decode(&file[..length], mode) {
                Err(Error::Truncated { offset, .. }) => {
                    assert!(offset <= length as u64, "{offset} of {length}");
                }
                other => panic!("{length} bytes: {other:?}"),
            }
        }
    }
}

#[test]
fn a_file_with_lz4_frames_may_end_nowhere_else_either() {
    let file = fixture("ls15-ps512-L0-1-lz4frame.ltx");
    for length in 0..file.len() {
        let error = decode(&file[..length], Mode::Strict).unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{length} bytes: {error}");
    }
}

#[test]
fn nothing_may_follow_the_trailer() {
    for extra in [1, 24, 5000] {
        let mut file = fixture("ls17-ps512-L0-1.ltx");
        file.extend(std::iter::repeat_n(0, extra));
        for mode in [Mode::Strict, Mode::Lenient] {
            let error = decode(&file, mode).unwrap_err();
            assert!(matches!(error, Error::TrailingBytes), "{extra} bytes: {error}");
        }
    }
}

/// Decodes a file in both modes and returns the one kind of error.
fn refused(file: &[u8]) -> String {
    let strict = kind(&decode(file, Mode::Strict).unwrap_err());
    assert_eq!(kind(&decode(file, Mode::Lenient).unwrap_err()), strict);
    strict
}

#[test]
fn a_page_beyond_the_end_of_the_database_is_refused() {
    let mut forged = Forged::new(&header(3, 5, 5));
    forged.block(4, &[1; 512]);
    assert_eq!(refused(&forged.finish(None)), "PageOutOfPlace");
}

#[test]
fn a_snapshot_that_ends_too_early_is_refused() {
    let mut forged = Forged::new(&header(3, 1, 5));
    forged.block(1, &[1; 512]);
    forged.block(2, &[1; 512]);
    assert_eq!(refused(&forged.finish(None)), "PageOutOfPlace");
}

#[test]
fn a_block_that_is_not_exactly_one_page_is_refused() {
    for length in [511, 513, 0, 1024] {
        let content = vec![7; length];
        let payload = lz4_flex::block::compress(&content);
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [[0, 0, 0, 2, 0, 1].as_slice(), &size].concat();
        let mut forged = Forged::new(&header(3, 5, 5));
        forged.raw(2, &head, &payload, &content);
        assert_eq!(refused(&forged.finish(None)), "BadPayload", "{length} bytes");
    }
}

#[test]
fn a_payload_may_be_as_large_as_a_compressor_makes_it_and_no_larger() {
    for (page_size, largest) in [(512, 530), (4096, 4128), (65536, 65809)] {
        let size = PageSize::try_from(page_size).unwrap();
        for (claim, expected) in [(largest, "Truncated"), (largest + 1, "PayloadTooLarge")] {
            let mut file = Header::new(size, 3, txid(5), txid(5)).to_bytes().to_vec();
            file.extend_from_slice(&[0, 0, 0, 2, 0, 1]);
            file.extend_from_slice(&u32::to_be_bytes(claim));
            assert_eq!(refused(&file), expected, "{claim} bytes for a page of {page_size}");
        }
    }
}

#[test]
fn an_lz4_frame_that_is_not_exactly_one_page_is_refused() {
    for length in [511, 513, 0, 1024] {
        let content = vec![7; length];
        let payload = crate::support::lz4_frame(&content);
        let mut forged = Forged::new(&header(3, 5, 5));
        forged.raw(2, &[0, 0, 0, 2, 0, 0], &payload, &content);
        assert_eq!(refused(&forged.finish(None)), "BadPayload", "{length} bytes");
    }
}

#[test]
fn what_was_in_the_buffer_does_not_complete_a_page() {
    // One byte is missing, and the checksum is right for the zero that the buffer has there.
    let page = [vec![7; 511], vec![0]].concat();
    let reference = crate::support::lz4_frame(&page);
    let compressed = lz4_flex::block::compress(&page[..511]);
    let length = u32::try_from(compressed.len()).unwrap().to_le_bytes();
    let checksum = reference.last_chunk::<4>().unwrap();
    let frame = [&reference[..7], &length, &compressed, &[0; 4], checksum].concat();
    let mut forged = Forged::new(&header(3, 5, 5));
    forged.raw(2, &[0, 0, 0, 2, 0, 0], &frame, &page);
    assert_eq!(refused(&forged.finish(None)), "BadPayload");
}

#[test]
fn an_lz4_frame_with_a_wrong_checksum_is_refused() {
    let content = [7; 512];
    let mut payload = crate::support::lz4_frame(&content);
    *payload.last_mut().unwrap() ^= 1;
    let mut forged = Forged::new(&header(3, 5, 5));
    forged.raw(2, &[0, 0, 0, 2, 0, 0], &payload, &content);
    assert_eq!(refused(&forged.finish(None)), "BadPayload");
}

#[test]
fn an_lz4_frame_may_hold_stored_and_several_blocks() {
    let content: Vec<u8> = (0..512_u32).map(|n| n.to_le_bytes()[0]).collect();
    let reference = crate::support::lz4_frame(&content);
    let compressed = lz4_flex::block::compress(&content[..300]);
    let frame = [
        &reference[..7],
        &u32::try_from(compressed.len()).unwrap().to_le_bytes(),
        &compressed,
        &(212_u32 | 1 << 31).to_le_bytes(),
        &content[300..],
        &[0; 4],
        reference.last_chunk::<4>().unwrap(),
    ]
    .concat();
    let mut forged = Forged::new(&header(3, 5, 5));
    forged.raw(2, &[0, 0, 0, 2, 0, 0], &frame, &content);
    let decoded = decode(&forged.finish(None), Mode::Strict).unwrap();
    assert_eq!(decoded.pages, Pages::from([(2, content)]));
}

#[test]
fn raw_pages_and_unknown_page_flags_are_refused() {
    for flags in [2_u16, 3, 0x8000, 0xffff] {
        let head = [[0, 0, 0, 2].as_slice(), &flags.to_be_bytes(), &[0, 0, 2, 0]].concat();
        let mut forged = Forged::new(&header(3, 5, 5));
        forged.raw(2, &head, &[1; 512], &[1; 512]);
        assert_eq!(refused(&forged.finish(None)), "BadPageHeader");
    }
    for head in [[0, 0, 0, 2, 0, 1, 0, 0, 2, 0].as_slice(), &[0, 0, 0, 2, 0, 0]] {
        let mut forged = Forged::new(&header(3, 5, 5));
        forged.raw(2, head, &[1; 512], &[1; 512]);
        assert_eq!(refused(&forged.finish(None)), "BadPayload");
    }
}

#[test]
fn only_the_length_field_of_the_index_is_wrong() {
    let mut index = Vec::new();
    for number in [2, 100, 0] {
        leb128(number, &mut index);
    }
    let mut forged = Forged::new(&header(3, 5, 5));
    forged.block(2, &[1; 512]);
    let good = forged.finish(None);
    let size = good.len() - 100 - 6 - 24 - 4;
    let index = [2, 100, u8::try_from(size).unwrap(), 0];
    for length in [3, 5, u64::MAX] {
        let mut forged = Forged::new(&header(3, 5, 5));
        forged.block(2, &[1; 512]);
        let file = forged.finish_with(&index, length, 0);
        let error = decode(&file, Mode::Strict).unwrap_err();
        assert!(matches!(error, Error::BadIndex { .. }), "{error}");
        decode(&file, Mode::Lenient).unwrap();
    }
}

#[test]
fn a_number_of_the_index_with_too_many_bits_is_refused() {
    let index = [[0xff_u8; 10].as_slice(), &[0]].concat();
    let forged = Forged::new(&header(3, 5, 5));
    assert_eq!(refused(&forged.finish_with(&index, 11, 0)), "BadIndex");
}

#[test]
fn post_apply_checksums_are_held_against_the_header() {
    let database = pages(1..=3, 1);
    let mut tracking = header(3, 1, 1);
    tracking.tracking = true;
    let snapshot = |post_apply| {
        let mut forged = Forged::new(&tracking);
        database.iter().for_each(|(&pgno, page)| forged.block(pgno, page));
        forged.finish(post_apply)
    };
    decode(&snapshot(Some(rolling(&database))), Mode::Strict).unwrap();
    assert_eq!(refused(&snapshot(None)), "BadChecksumField");
    assert_eq!(refused(&snapshot(Some(Checksum::EMPTY))), "PostApply");

    let mut deleted = header(0, 7, 7);
    deleted.tracking = true;
    deleted.pre_apply = Some(Checksum::EMPTY);
    let deletion = |post_apply| Forged::new(&deleted).finish(post_apply);
    decode(&deletion(Some(Checksum::EMPTY)), Mode::Strict).unwrap();
    assert_eq!(refused(&deletion(Some(rolling(&database)))), "BadChecksumField");
    let untracked = Forged::new(&header(0, 7, 7)).finish(None);
    assert_eq!(kind(&decode(&untracked, Mode::Strict).unwrap_err()), "BadChecksumField");
}

#[test]
fn a_checksum_without_the_first_bit_is_not_taken_for_none() {
    let mut bytes = header(3, 5, 5).to_bytes();
    bytes[47] = 1;
    assert_eq!(kind(&Header::from_bytes(&bytes).unwrap_err()), "BadChecksumField");
    let file = Forged::new(&header(3, 5, 5)).finish_with(&[0], 1, 1);
    assert_eq!(kind(&decode(&file, Mode::Strict).unwrap_err()), "BadChecksumField");
    assert_eq!(decode(&file, Mode::Lenient).unwrap().trailer.post_apply, None);
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    type Change = fn(&mut Header);
    let changes: [(Change, &str); 7] = [
        (|h| h.max_txid = txid(4), "BadTxidRange"),
        (|h| h.wal_offset = -1, "BadWalFields"),
        (|h| (h.wal_offset, h.wal_size) = (32, -1), "BadWalFields"),
        (|h| h.wal_salt1 = 1, "BadWalFields"),
        (|h| h.wal_salt2 = 1, "BadWalFields"),
        (|h| h.pre_apply = Some(Checksum::EMPTY), "BadChecksumField"),
        (|h| h.tracking = true, "BadChecksumField"),
    ];
    for (change, expected) in changes {
        let mut bad = header(3, 5, 5);
        bad.validate().unwrap();
        change(&mut bad);
        assert_eq!(kind(&bad.validate().unwrap_err()), expected);
        assert_eq!(refused(&Forged::new(&bad).finish(None)), expected);
    }
}

#[test]
fn unknown_header_flags_are_refused_and_reserved_bytes_are_not() {
    let good = Forged::new(&header(3, 5, 5)).finish(None);
    for flags in [4_u32, 6, 0x8000_0002] {
        let mut file = good.clone();
        file[4..8].copy_from_slice(&flags.to_be_bytes());
        assert_eq!(refused(&file), "BadFlags");
    }
    let mut bytes = header(3, 5, 5).to_bytes();
    bytes[80..].fill(0xaa);
    assert_eq!(Header::from_bytes(&bytes).unwrap(), header(3, 5, 5));
}
