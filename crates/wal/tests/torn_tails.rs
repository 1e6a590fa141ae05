//! WALs that end anywhere, as a crash or a concurrent writer leaves them.

use walrust_wal::{FrameEnd, FrameHeader, WalHeader, WalHeaderError, frame_offset, frame_size};

use crate::live_database::LiveDatabase;
use crate::snapshot::Snapshot;

fn several_transactions(page_size: u32) -> Snapshot {
    let database = LiveDatabase::with_tables(page_size);
    database.insert(2, 100);
    database.insert(4, 700);
    database.snapshot()
}

#[test]
fn a_wal_cut_at_every_kind_of_position() {
    let page_size = 512;
    let snapshot = several_transactions(page_size);
    let within_a_frame = [0, 1, 8, 23, 24, 25, 24 + 256, frame_size(page_size) as usize - 1];
    for frame in 0..snapshot.frames_in_file() {
        let start = frame_offset(page_size, frame) as usize;
        for cut in within_a_frame.map(|offset| snapshot.cut(start + offset)) {
            let scanned = cut.scan().unwrap();
            assert_eq!(scanned.valid_frames, frame, "cut after {} bytes", cut.wal.len());
            cut.assert_like_sqlite();
        }
    }
}

#[test]
fn a_wal_without_a_whole_header_holds_nothing() {
    let snapshot = several_transactions(4096);
    for length in 0..WalHeader::SIZE {
        let cut = snapshot.cut(length);
        assert_eq!(WalHeader::parse(&cut.wal), Err(WalHeaderError::TooShort { length }));
        cut.assert_like_sqlite();
    }
}

#[test]
fn a_wal_of_nothing_but_a_header_commits_nothing() {
    let cut = several_transactions(4096).cut(WalHeader::SIZE);
    let scanned = cut.scan().unwrap();
    assert_eq!(scanned.committed.frames, 0);
    assert_eq!(scanned.committed.checksum, cut.header().checksum);
    assert_eq!(scanned.committed.page_count, None);
    assert_eq!(scanned.end, None);
    cut.assert_like_sqlite();
}

#[test]
fn a_frame_cut_inside_its_page_is_torn() {
    let page_size = 1024;
    let snapshot = several_transactions(page_size);
    let last = snapshot.frames_in_file() - 1;
    let cut = snapshot.cut(snapshot.wal.len() - 1);
    let end = FrameEnd::Torn { frame: last, expected: page_size, found: 1023 };
    assert_eq!(cut.scan().unwrap().end, Some(end));
}

#[test]
fn a_flipped_bit_anywhere_in_a_frame_ends_the_run_there() {
    let page_size = 512;
    let snapshot = several_transactions(page_size);
    let frame = snapshot.frames_in_file() / 2;
    let start = frame_offset(page_size, frame) as usize;
    for offset in (0..FrameHeader::SIZE).chain([24, 25, 24 + 255, 24 + 511]) {
        let mut damaged = snapshot.clone();
        damaged.wal[start + offset] ^= 0x10;
        let scanned = damaged.scan().unwrap();
        assert_eq!(scanned.valid_frames, frame, "bit flipped in byte {offset} of the frame");
        damaged.assert_like_sqlite();
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_header_voids_the_wal() {
    let snapshot = several_transactions(512);
    for offset in 0..WalHeader::SIZE {
        let mut damaged = snapshot.clone();
        damaged.wal[offset] ^= 0x01;
        assert!(WalHeader::parse(&damaged.wal).is_err(), "bit flipped in byte {offset}");
        damaged.assert_like_sqlite();
    }
}

#[test]
fn a_zeroed_header_checksum_is_no_checksum() {
    let mut snapshot = several_transactions(512);
    snapshot.wal[24..32].fill(0);
    let error = WalHeader::parse(&snapshot.wal).unwrap_err();
    assert!(matches!(error, WalHeaderError::BadChecksum { .. }), "{error}");
    snapshot.assert_like_sqlite();
}

#[test]
fn a_frame_of_page_zero_ends_the_run_even_with_a_valid_checksum() {
    let page_size = 512;
    let mut snapshot = several_transactions(page_size);
    let header = snapshot.header();
    let frame = snapshot.frames_in_file() - 1;
    let start = frame_offset(page_size, frame) as usize;
    let before = FrameHeader::parse(snapshot.frame(page_size, frame - 1).unwrap().0).checksum;
    let bytes = &mut snapshot.wal[start..];
    bytes[..4].fill(0);
    let checksum =
        before.update(header.byte_order, &bytes[..8]).update(header.byte_order, &bytes[24..]);
    bytes[16..20].copy_from_slice(&checksum.s1.to_be_bytes());
    bytes[20..24].copy_from_slice(&checksum.s2.to_be_bytes());
    assert_eq!(snapshot.scan().unwrap().end, Some(FrameEnd::ZeroPgno { frame }));
    snapshot.assert_like_sqlite();
}
