//! Faults that replicators have had in reading a WAL. The number in the name of a test is that of
//! the fault.

use walrust_wal::{ByteOrder, FrameEnd, FrameReader, WalChecksum, WalHeader, frame_offset};

use crate::live_database::LiveDatabase;
use crate::snapshot::Snapshot;

fn several_commits() -> Snapshot {
    let database = LiveDatabase::with_tables(1024);
    for _ in 0..4 {
        database.insert(3, 400);
    }
    database.snapshot()
}

#[test]
fn a04_a_frame_counts_only_with_the_salts_of_the_header() {
    let whole = several_commits();
    let frame = whole.frames_in_file() / 2;
    for byte in 8..16 {
        let mut other = whole.clone();
        other.wal[frame_offset(1024, frame) as usize + byte] ^= 1;
        // Salts are not part of the checksum: nothing else gives the frame away.
        let scanned = other.scan().unwrap();
        assert_eq!(scanned.valid_frames, frame, "byte {byte} of the frame");
        assert!(matches!(scanned.end, Some(FrameEnd::SaltMismatch { .. })), "{:?}", scanned.end);
        other.assert_like_sqlite();
    }
}

#[test]
fn a04_the_magic_number_of_this_machine_means_little_endian_words() {
    let snapshot = several_commits();
    assert_eq!(snapshot.wal[..4], 0x377f_0682_u32.to_be_bytes());
    assert_eq!(snapshot.header().byte_order, ByteOrder::Little);
    let sum = |order| WalChecksum::default().update(order, &snapshot.wal[..24]);
    assert_eq!(sum(ByteOrder::Little), snapshot.header().checksum);
    assert_ne!(sum(ByteOrder::Big), snapshot.header().checksum);
    let mut other = snapshot.clone();
    other.wal[..4].copy_from_slice(&0x377f_0683_u32.to_be_bytes());
    assert!(WalHeader::parse(&other.wal).is_err(), "in the other order the sum is wrong");
}

#[test]
fn a04_a_header_without_a_checksum_voids_the_wal() {
    let mut snapshot = several_commits();
    snapshot.wal[24..32].fill(0);
    assert!(snapshot.scan().is_none());
    snapshot.assert_like_sqlite();
}

#[test]
fn a05_frames_behind_the_last_commit_are_not_committed() {
    let database = LiveDatabase::with_tables(1024);
    let committed = database.snapshot().scan().unwrap().committed;
    database.run("PRAGMA cache_size = 5; BEGIN");
    database.insert(200, 900);
    let snapshot = database.snapshot();
    let scanned = snapshot.scan().unwrap();
    assert!(scanned.valid_frames > committed.frames + 50, "an open transaction has spilled");
    assert_eq!(scanned.committed, committed);
    snapshot.assert_like_sqlite();
}

#[test]
fn a26_a_resumed_scan_at_the_header_is_one_from_the_start() {
    let snapshot = several_commits();
    let header = snapshot.header();
    let reader = FrameReader::resume(&header, 0, header.checksum);
    let resumed = snapshot.scan_from(&header, reader);
    assert_eq!(resumed.committed, snapshot.scan().unwrap().committed);
}

#[test]
fn a26_a_resumed_scan_at_a_commit_with_a_torn_frame_behind_it_stays_there() {
    let snapshot = several_commits();
    let header = snapshot.header();
    for boundary in snapshot.scan().unwrap().boundaries {
        let end = frame_offset(1024, boundary.frames) as usize;
        for torn in [0, 1, 23, 24, 25, 1047] {
            let cut = snapshot.cut(snapshot.wal.len().min(end + torn));
            let reader = FrameReader::resume(&header, boundary.frames, boundary.checksum);
            let rest = cut.scan_from(&header, reader).committed;
            assert_eq!((rest.frames, rest.commits), (boundary.frames, 0), "{torn} bytes of it");
            assert_eq!(rest.checksum, boundary.checksum);
        }
    }
}

#[test]
fn a26_a_wal_of_a_header_alone_is_empty() {
    let cut = several_commits().cut(WalHeader::SIZE);
    let committed = cut.scan().unwrap().committed;
    assert_eq!((committed.frames, committed.page_count), (0, None));
    assert_eq!(committed.checksum, cut.header().checksum);
    cut.assert_like_sqlite();
}

#[test]
fn a26_frames_lie_where_they_lie_beyond_four_gigabytes() {
    assert_eq!(frame_offset(4096, 0), 32);
    assert_eq!(frame_offset(4096, 1_042_468), 32 + 1_042_468 * 4120);
    assert!(frame_offset(4096, 1_042_468) > 1 << 32);
    assert_eq!(frame_offset(65_536, u32::MAX), 32 + u64::from(u32::MAX) * 65_560);
}
