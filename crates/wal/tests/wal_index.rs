//! The header of `-shm` files that SQLite keeps.

use rusqlite::Connection;
use walrust_wal::{ByteOrder, READ_MARK_UNUSED, WalChecksum, WalIndex, WalIndexError};

use crate::live_database::{LiveDatabase, PAGE_SIZES};

fn begin_read(connection: &Connection) {
    connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").expect("a reader");
}

#[test]
fn it_tells_what_a_scan_of_the_wal_finds() {
    for page_size in PAGE_SIZES {
        let database = LiveDatabase::with_tables(page_size);
        for round in 0..3 {
            let snapshot = database.snapshot();
            let committed = snapshot.scan().unwrap().committed;
            let index = database.wal_index().unwrap();
            assert_eq!(index.header.version, 3_007_000);
            assert!(index.header.is_init);
            assert_eq!(index.header.page_size, page_size);
            assert_eq!(index.header.mx_frame, committed.frames);
            assert_eq!(Some(index.header.page_count), committed.page_count);
            assert_eq!(index.header.frame_checksum, committed.checksum);
            assert_eq!(index.header.salts, snapshot.header().salts);
            assert_eq!(index.header.big_endian_checksum, cfg!(target_endian = "big"));
            assert_eq!(index.backfilled, 0);
            database.insert(10 + round, 500);
        }
    }
}

#[test]
fn each_commit_changes_it_and_a_rollback_does_not() {
    let database = LiveDatabase::with_tables(4096);
    let first = database.wal_index().unwrap();
    database.run("BEGIN; INSERT INTO notes (body) VALUES (x'01'); ROLLBACK");
    assert_eq!(database.wal_index().unwrap().header, first.header);
    database.run("INSERT INTO notes (body) VALUES (x'01')");
    let second = database.wal_index().unwrap();
    assert_ne!(second.header.change, first.header.change);
    assert!(second.header.mx_frame > first.header.mx_frame);
}

#[test]
fn spilled_frames_of_an_open_transaction_do_not_count() {
    let database = LiveDatabase::with_tables(1024);
    let before = database.wal_index().unwrap().header;
    database.run("PRAGMA cache_size = 5; BEGIN");
    database.insert(200, 900);
    assert!(database.snapshot().scan().unwrap().valid_frames > before.mx_frame);
    assert_eq!(database.wal_index().unwrap().header, before);
}

#[test]
fn a_reader_has_a_mark_at_the_commit_it_sees() {
    let database = LiveDatabase::with_tables(4096);
    let reader = database.connect();
    begin_read(&reader);
    let seen = database.wal_index().unwrap().header.mx_frame;
    database.insert(10, 500);
    let index = database.wal_index().unwrap();
    assert!(index.header.mx_frame > seen);
    assert!(index.read_marks[1..].contains(&seen), "{:?} lacks {seen}", index.read_marks);
    assert_eq!(index.read_marks[0], 0);
    assert!(index.read_marks[1..].contains(&READ_MARK_UNUSED), "four readers were never needed");
}

#[test]
fn a_passive_checkpoint_backfills_to_the_oldest_reader() {
    let database = LiveDatabase::with_tables(4096);
    let reader = database.connect();
    begin_read(&reader);
    let seen = database.wal_index().unwrap().header.mx_frame;
    database.insert(10, 500);

    let (_, frames, backfilled) = database.checkpoint("PASSIVE");
    let index = database.wal_index().unwrap();
    assert_eq!((index.header.mx_frame, index.backfilled), (frames, backfilled));
    assert_eq!(index.backfilled, seen);
    assert_eq!(index.backfill_attempted, seen);

    reader.execute_batch("COMMIT").unwrap();
    database.checkpoint("PASSIVE");
    let index = database.wal_index().unwrap();
    assert_eq!(index.backfilled, index.header.mx_frame);
    assert_eq!(index.backfill_attempted, index.header.mx_frame);
}

#[test]
fn each_counter_has_its_own_place() {
    // A checkpoint that was killed leaves more attempted than backfilled; nothing else does.
    let mut shm = LiveDatabase::with_tables(4096).shm();
    for (offset, value) in [(96, 1_u32), (100, 2), (104, 3), (108, 4), (112, 5), (116, 6), (128, 7)]
    {
        shm[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }
    let index = WalIndex::parse(&shm).unwrap();
    assert_eq!(index.backfilled, 1);
    assert_eq!(index.read_marks, [2, 3, 4, 5, 6]);
    assert_eq!(index.backfill_attempted, 7);
}

#[test]
fn a_restart_shows_in_salts_and_counts_even_if_the_file_looks_the_same() {
    let database = LiveDatabase::with_tables(4096);
    database.insert(50, 900);
    let length = database.snapshot().wal.len();
    let old = database.wal_index().unwrap();
    database.checkpoint("RESTART");
    database.insert(1, 10);
    let new = database.wal_index().unwrap();
    assert_eq!(database.snapshot().wal.len(), length);
    assert!(new.header.salts.0 == old.header.salts.0.wrapping_add(1));
    assert!(new.header.mx_frame < old.header.mx_frame);
    assert_eq!(new.backfilled, 0);
}

#[test]
fn a_database_opened_without_a_wal_has_no_page_size_yet() {
    let database = LiveDatabase::with_tables(4096);
    database.checkpoint("TRUNCATE");
    let mut snapshot = database.snapshot();
    snapshot.wal.clear();
    let reopened = LiveDatabase::from_snapshot(&snapshot);
    begin_read(&reopened.connection);
    let index = reopened.wal_index().unwrap();
    assert_eq!((index.header.page_size, index.header.mx_frame), (0, 0));
}

/// Changes both copies of the header and, if asked, makes their checksums fit again.
fn with_header(shm: &[u8], fix_checksum: bool, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = shm[..WalIndex::SIZE].to_vec();
    let (first, rest) = bytes.split_at_mut(48);
    change(first);
    if fix_checksum {
        let order = if cfg!(target_endian = "big") { ByteOrder::Big } else { ByteOrder::Little };
        let checksum = WalChecksum::default().update(order, &first[..40]);
        first[40..44].copy_from_slice(&checksum.s1.to_ne_bytes());
        first[44..48].copy_from_slice(&checksum.s2.to_ne_bytes());
    }
    rest[..48].copy_from_slice(first);
    bytes
}

#[test]
fn a_header_that_sqlite_would_not_trust() {
    let shm = LiveDatabase::with_tables(4096).shm();
    assert!(WalIndex::parse(&with_header(&shm, true, |_| ())).is_ok());

    let short = WalIndex::parse(&shm[..135]);
    assert_eq!(short, Err(WalIndexError::TooShort { length: 135 }));
    assert_eq!(WalIndex::parse(&[]), Err(WalIndexError::TooShort { length: 0 }));
    assert_eq!(WalIndex::parse(&[0; 32768]), Err(WalIndexError::NotInitialised));

    let not_initialised = with_header(&shm, true, |header| header[12] = 0);
    assert_eq!(WalIndex::parse(&not_initialised), Err(WalIndexError::NotInitialised));

    let version = 3_007_001_u32;
    let newer =
        with_header(&shm, true, |header| header[..4].copy_from_slice(&version.to_ne_bytes()));
    assert_eq!(WalIndex::parse(&newer), Err(WalIndexError::Version { version }));

    let page_size =
        with_header(&shm, true, |header| header[14..16].copy_from_slice(&768_u16.to_ne_bytes()));
    assert_eq!(WalIndex::parse(&page_size), Err(WalIndexError::PageSize { page_size: 768 }));
}

#[test]
fn copies_that_differ_in_any_byte() {
    let shm = LiveDatabase::with_tables(4096).shm();
    for byte in 0..96 {
        let mut bytes = shm.clone();
        bytes[byte] ^= 1;
        assert_eq!(WalIndex::parse(&bytes), Err(WalIndexError::CopiesDiffer), "byte {byte}");
    }
}

#[test]
fn equal_copies_with_a_wrong_checksum() {
    let shm = LiveDatabase::with_tables(4096).shm();
    for byte in (8..48).filter(|&byte| byte != 12) {
        let error = WalIndex::parse(&with_header(&shm, false, |header| header[byte] ^= 1));
        assert!(matches!(error, Err(WalIndexError::Checksum { .. })), "byte {byte}: {error:?}");
    }
}
