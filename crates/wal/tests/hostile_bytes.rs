//! Bytes that no SQLite wrote: an error or an early end, never a panic.

use proptest::collection::vec;
use proptest::prelude::*;
use walrust_wal::{
    ByteOrder, DatabaseHeader, FrameEnd, FrameReader, WalChecksum, WalHeader, WalHeaderError,
    WalIndex, WalScan,
};

/// A WAL header with the given fields and a checksum that fits.
fn header(version: u32, page_size: u32, salts: (u32, u32)) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [0x377f_0682, version, page_size, 0, salts.0, salts.1] {
        bytes.extend(field.to_be_bytes());
    }
    let checksum = WalChecksum::default().update(ByteOrder::Little, &bytes);
    bytes.extend(checksum.s1.to_be_bytes());
    bytes.extend(checksum.s2.to_be_bytes());
    bytes
}

#[test]
fn a_valid_checksum_does_not_make_a_header_valid() {
    assert!(WalHeader::parse(&header(3_007_000, 4096, (1, 2))).is_ok());
    for version in [0, 3_006_999, 3_007_001, u32::MAX] {
        let parsed = WalHeader::parse(&header(version, 4096, (1, 2)));
        assert_eq!(parsed, Err(WalHeaderError::BadVersion { version }));
    }
    for page_size in [0, 1, 256, 513, 4095, 131_072, u32::MAX] {
        let parsed = WalHeader::parse(&header(3_007_000, page_size, (1, 2)));
        assert_eq!(parsed, Err(WalHeaderError::BadPageSize { page_size }));
    }
    let mut bytes = header(3_007_000, 4096, (1, 2));
    bytes[..4].copy_from_slice(&0x377f_0684_u32.to_be_bytes());
    assert_eq!(WalHeader::parse(&bytes), Err(WalHeaderError::BadMagic { magic: 0x377f_0684 }));
}

#[test]
fn a_page_of_another_size_is_no_page_even_with_a_valid_checksum() {
    let header = WalHeader::parse(&header(3_007_000, 1024, (5, 6))).unwrap();
    for length in [0, 512, 1016, 1032, 2048] {
        let page = vec![7; length];
        let mut reader = FrameReader::start(&header);
        let end = reader.push(&frame_header(&reader, 1, 1, &page), &page);
        assert_eq!(end, Err(FrameEnd::Torn { frame: 0, expected: 1024, found: length }));
    }
}

/// The header of a frame that a reader of little-endian words with salts (5, 6) expects next.
fn frame_header(reader: &FrameReader, pgno: u32, commit: u32, page: &[u8]) -> [u8; 24] {
    let mut bytes = [0; 24];
    let order = ByteOrder::Little;
    bytes[..4].copy_from_slice(&pgno.to_be_bytes());
    bytes[4..8].copy_from_slice(&commit.to_be_bytes());
    let WalChecksum { s1, s2 } = reader.running().update(order, &bytes[..8]).update(order, page);
    for (field, slot) in [pgno, commit, 5, 6, s1, s2].into_iter().zip(bytes.chunks_mut(4)) {
        slot.copy_from_slice(&field.to_be_bytes());
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_parse_or_fail(bytes in vec(any::<u8>(), 0..300)) {
        let _ = DatabaseHeader::parse(&bytes);
        let _ = WalHeader::parse(&bytes);
        let _ = WalIndex::parse(&bytes);
    }

    #[test]
    fn frames_of_any_content_count_only_with_their_checksum(
        frames in vec((any::<u32>(), any::<u32>(), any::<u8>(), any::<bool>()), 1..20),
    ) {
        let header = WalHeader::parse(&header(3_007_000, 512, (5, 6))).unwrap();
        let mut scan = WalScan::new(FrameReader::start(&header));
        let mut expected = 0;
        for (pgno, commit, fill, honest) in frames {
            let page = [fill; 512];
            let mut bytes = frame_header(scan.reader(), pgno, commit, &page);
            bytes[23] ^= u8::from(!honest);
            let accepted = scan.push(&bytes, &page).is_ok();
            prop_assert_eq!(accepted, honest && pgno != 0);
            expected += u32::from(accepted);
            prop_assert_eq!(scan.reader().frames(), expected);
        }
        let committed = scan.into_committed();
        let end = committed.page_count.unwrap_or(0);
        prop_assert!(committed.pages.keys().all(|&pgno| pgno <= end));
        prop_assert!(committed.pages.values().all(|&frame| frame < committed.frames));
    }
}
