//! Continuing in the middle of a WAL.

use walrust_wal::{FrameEnd, FrameReader, WalChecksum, WalScan, frame_offset};

use crate::live_database::LiveDatabase;

#[test]
fn a_scan_resumed_at_any_boundary_sees_exactly_the_rest() {
    let database = LiveDatabase::with_tables(1024);
    for _ in 0..4 {
        database.insert(5, 600);
    }
    let snapshot = database.snapshot();
    let header = snapshot.header();
    let all = snapshot.scan().unwrap();
    for (done, boundary) in all.boundaries.iter().enumerate() {
        let reader = FrameReader::resume(&header, boundary.frames, boundary.checksum);
        let rest = snapshot.scan_from(&header, reader);
        assert_eq!(rest.boundaries, all.boundaries[done + 1..]);
        assert_eq!(rest.committed.frames, all.committed.frames);
        assert_eq!(rest.committed.checksum, all.committed.checksum);
        let newest = |(_, frame): &(&u32, &u32)| **frame >= boundary.frames;
        assert!(rest.committed.pages.iter().eq(all.committed.pages.iter().filter(newest)));
    }
}

#[test]
fn resuming_at_the_last_commit_finds_nothing_and_stays() {
    let snapshot = LiveDatabase::with_tables(512).snapshot();
    let header = snapshot.header();
    let last = *snapshot.scan().unwrap().boundaries.last().unwrap();
    // The next transaction is torn: its first frame has only a header yet.
    let mut torn = snapshot.clone();
    torn.wal.extend_from_slice(&snapshot.wal[32..60]);
    for snapshot in [snapshot, torn] {
        let reader = FrameReader::resume(&header, last.frames, last.checksum);
        let rest = snapshot.scan_from(&header, reader).committed;
        assert_eq!((rest.frames, rest.checksum), (last.frames, last.checksum));
        assert_eq!((rest.commits, rest.page_count), (0, None));
        assert!(rest.pages.is_empty());
    }
}

#[test]
fn resuming_at_no_frames_is_starting() {
    let snapshot = LiveDatabase::with_tables(4096).snapshot();
    let header = snapshot.header();
    let resumed = FrameReader::resume(&header, 0, header.checksum);
    assert_eq!(snapshot.scan_from(&header, resumed).committed, snapshot.scan().unwrap().committed);
}

#[test]
fn a_wrong_running_checksum_accepts_no_frame() {
    let snapshot = LiveDatabase::with_tables(4096).snapshot();
    let header = snapshot.header();
    let first = snapshot.scan().unwrap().boundaries[0];
    let WalChecksum { s1, s2 } = first.checksum;
    let wrong = WalChecksum { s1, s2: s2 ^ 1 };
    let rest = snapshot.scan_from(&header, FrameReader::resume(&header, first.frames, wrong));
    assert_eq!(rest.end, Some(FrameEnd::ChecksumMismatch { frame: first.frames }));
}

#[test]
fn a_frame_read_too_early_can_be_read_again() {
    let snapshot = LiveDatabase::with_tables(1024).snapshot();
    let mut scan = WalScan::new(FrameReader::start(&snapshot.header()));
    for frame in 0..snapshot.frames_in_file() {
        let (header, page) = snapshot.frame(1024, frame).unwrap();
        let mut half_written = page.to_vec();
        half_written[512..].fill(0xa5);
        assert!(scan.push(header, &half_written).is_err());
        assert!(scan.push(header, &page[..512]).is_err());
        scan.push(header, page).unwrap();
    }
    assert_eq!(scan.into_committed(), snapshot.scan().unwrap().committed);
}

#[test]
fn the_count_of_frames_does_not_wrap() {
    let snapshot = LiveDatabase::with_tables(1024).snapshot();
    let header = snapshot.header();
    let mut reader = FrameReader::resume(&header, u32::MAX, header.checksum);
    let (frame, page) = snapshot.frame(1024, 0).unwrap();
    assert_eq!(reader.push(frame, page), Err(FrameEnd::TooManyFrames));
}

#[test]
fn offsets_reach_past_four_gigabytes() {
    assert_eq!(frame_offset(4096, 0), 32);
    assert_eq!(frame_offset(512, 2), 32 + 2 * 536);
    assert_eq!(frame_offset(4096, 1_100_000), 32 + 1_100_000 * 4120);
    assert_eq!(frame_offset(65_536, u32::MAX), 32 + u64::from(u32::MAX) * 65_560);
}
