//! WALs whose checksums take big-endian words, as a big-endian machine writes them.
//!
//! SQLite continues a WAL in the byte order it finds, so a WAL whose checksums were rewritten gets
//! frames that SQLite itself wrote in that order.

use walrust_wal::{ByteOrder, WalChecksum, WalHeader, frame_size};

use crate::live_database::{LiveDatabase, PAGE_SIZES};
use crate::snapshot::Snapshot;

/// The same WAL with its checksums in big-endian words.
fn to_big_endian(snapshot: &Snapshot) -> Snapshot {
    fn store(checksum: WalChecksum, bytes: &mut [u8]) {
        bytes[..4].copy_from_slice(&checksum.s1.to_be_bytes());
        bytes[4..8].copy_from_slice(&checksum.s2.to_be_bytes());
    }

    let frame_size = frame_size(snapshot.header().page_size) as usize;
    let mut converted = snapshot.clone();
    let (header, frames) = converted.wal.split_at_mut(WalHeader::SIZE);
    header[3] |= 1;
    let mut running = WalChecksum::default().update(ByteOrder::Big, &header[..24]);
    store(running, &mut header[24..]);
    for frame in frames.chunks_exact_mut(frame_size) {
        running = running.update(ByteOrder::Big, &frame[..8]).update(ByteOrder::Big, &frame[24..]);
        store(running, &mut frame[16..]);
    }
    converted
}

#[test]
fn sqlite_and_the_scan_agree_on_a_big_endian_wal() {
    for page_size in PAGE_SIZES {
        let native = LiveDatabase::with_tables(page_size).snapshot();
        let big = to_big_endian(&native);
        assert_eq!(big.header().byte_order, ByteOrder::Big);
        assert_eq!(big.scan().unwrap().end, None);
        assert_eq!(big.scan().unwrap().committed.pages, native.scan().unwrap().committed.pages);
        big.assert_like_sqlite();
        // Proof that SQLite took the frames: without them the file would be older.
        assert_eq!(big.checkpointed(), native.checkpointed());
        assert_ne!(big.checkpointed(), big.database);
    }
}

#[test]
fn frames_that_sqlite_appends_in_big_endian_words() {
    let rewritten = to_big_endian(&LiveDatabase::with_tables(1024).snapshot());
    let database = LiveDatabase::from_snapshot(&rewritten);
    database.insert(30, 700);
    let snapshot = database.snapshot();
    let scanned = snapshot.scan().unwrap();
    assert_eq!(snapshot.header().byte_order, ByteOrder::Big);
    assert!(scanned.committed.frames > rewritten.frames_in_file());
    assert_eq!(scanned.end, None);
    let index = database.wal_index().unwrap();
    assert!(index.header.big_endian_checksum);
    assert_eq!(index.header.mx_frame, scanned.committed.frames);
    assert_eq!(index.header.frame_checksum, scanned.committed.checksum);
    assert_eq!(index.header.salts, snapshot.header().salts);
    snapshot.assert_like_sqlite();
}

#[test]
fn the_magic_number_decides_and_the_other_order_does_not_fit() {
    let mut snapshot = LiveDatabase::with_tables(1024).snapshot();
    assert!(WalHeader::parse(&snapshot.wal).is_ok());
    snapshot.wal[3] ^= 1;
    assert!(WalHeader::parse(&snapshot.wal).is_err());
}

#[test]
fn a_checksum_can_be_taken_in_parts() {
    let bytes: Vec<u8> = (0..1024_u32).map(|number| (number * 37 % 251) as u8).collect();
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let whole = WalChecksum::default().update(order, &bytes);
        for split in (0..=bytes.len()).step_by(8) {
            let (head, tail) = bytes.split_at(split);
            assert_eq!(WalChecksum::default().update(order, head).update(order, tail), whole);
        }
    }
}

#[test]
#[should_panic(expected = "multiples of 8 bytes, not 12")]
fn a_checksum_refuses_half_a_step() {
    let _ = WalChecksum::default().update(ByteOrder::Little, &[0; 12]);
}
