//! What counts as committed, for all the ways in which SQLite fills a WAL.

use walrust_wal::frame_offset;

use crate::live_database::{LiveDatabase, PAGE_SIZES};

#[test]
fn multi_table_transactions_of_every_page_size() {
    for page_size in PAGE_SIZES {
        let database = LiveDatabase::with_tables(page_size);
        for round in 0..4 {
            database.insert(10, 200 + 700 * round);
            database.run("UPDATE notes SET body = randomblob(50) WHERE id % 4 = 1");
            database.run("DELETE FROM tags WHERE note % 5 = 2");
        }
        let snapshot = database.snapshot();
        let scanned = snapshot.scan().unwrap();
        assert_eq!(snapshot.header().page_size, page_size);
        assert_eq!(scanned.end, None, "page size {page_size}");
        // Three statements of the schema, the first rows, and four rounds of three.
        assert_eq!(scanned.committed.commits, 3 + 1 + 4 * 3, "page size {page_size}");
        assert_eq!(scanned.committed.frames, snapshot.frames_in_file());
        snapshot.assert_like_sqlite();
    }
}

#[test]
fn every_commit_boundary_is_a_database_of_its_own() {
    let database = LiveDatabase::with_tables(1024);
    for _ in 0..5 {
        database.insert(3, 900);
    }
    let snapshot = database.snapshot();
    let scanned = snapshot.scan().unwrap();
    assert_eq!(scanned.boundaries.len() as u64, scanned.committed.commits);
    for boundary in &scanned.boundaries {
        let cut = snapshot.cut(frame_offset(1024, boundary.frames) as usize);
        let part = cut.scan().unwrap();
        assert_eq!(part.boundaries.last(), Some(boundary));
        assert_eq!(part.committed.frames, boundary.frames);
        assert_eq!(part.committed.checksum, boundary.checksum);
        assert_eq!(part.committed.page_count, Some(boundary.page_count));
        cut.assert_like_sqlite();
    }
}

#[test]
fn a_rolled_back_transaction_leaves_nothing() {
    let database = LiveDatabase::with_tables(4096);
    let before = database.snapshot().scan().unwrap().committed;
    database.run("BEGIN");
    database.insert(5, 100);
    database.run("ROLLBACK");
    let snapshot = database.snapshot();
    assert_eq!(snapshot.scan().unwrap().committed, before);
    snapshot.assert_like_sqlite();
}

#[test]
fn spilled_pages_of_an_open_transaction_are_not_committed() {
    let database = LiveDatabase::with_tables(1024);
    let before = database.snapshot().scan().unwrap().committed;
    database.run("PRAGMA cache_size = 5; BEGIN");
    database.insert(200, 900);
    let snapshot = database.snapshot();
    let scanned = snapshot.scan().unwrap();
    assert!(scanned.valid_frames > before.frames + 50, "the transaction has spilled");
    assert_eq!(scanned.committed, before);
    snapshot.assert_like_sqlite();
    database.run("ROLLBACK");
}

#[test]
fn a_commit_over_a_rolled_back_spill_ends_where_the_old_tail_begins() {
    let database = LiveDatabase::with_tables(1024);
    database.run("PRAGMA cache_size = 5; BEGIN");
    database.insert(200, 900);
    database.run("ROLLBACK");
    let spilled = database.snapshot();
    assert!(spilled.scan().unwrap().valid_frames > spilled.scan().unwrap().committed.frames);
    spilled.assert_like_sqlite();

    database.run("INSERT INTO notes (body) VALUES (x'00')");
    let snapshot = database.snapshot();
    let scanned = snapshot.scan().unwrap();
    // The tail has the same salts, so only the checksum tells it apart.
    assert!(snapshot.frames_in_file() > scanned.committed.frames + 50);
    assert_eq!(
        scanned.end,
        Some(walrust_wal::FrameEnd::ChecksumMismatch { frame: scanned.committed.frames })
    );
    snapshot.assert_like_sqlite();
}

#[test]
fn a_spilled_transaction_that_rewrites_its_own_frames_and_commits() {
    let database = LiveDatabase::with_tables(512);
    database.run("PRAGMA cache_size = 5; BEGIN");
    for _ in 0..4 {
        database.insert(60, 400);
        // SQLite overwrites frames of the open transaction in place, and their checksums later.
        database.run("UPDATE notes SET body = randomblob(400)");
    }
    database.run("COMMIT");
    let snapshot = database.snapshot();
    let scanned = snapshot.scan().unwrap();
    assert_eq!(scanned.end, None);
    assert_eq!(scanned.committed.frames, database.wal_index().unwrap().header.mx_frame);
    snapshot.assert_like_sqlite();
}

#[test]
fn savepoints_released_and_rolled_back() {
    let database = LiveDatabase::with_tables(2048);
    database.run("PRAGMA cache_size = 5; BEGIN");
    database.insert(30, 500);
    database.run("SAVEPOINT inner");
    database.insert(200, 1500);
    database.run("ROLLBACK TO inner; RELEASE inner; SAVEPOINT other");
    database.insert(10, 100);
    database.run("RELEASE other; COMMIT");
    let snapshot = database.snapshot();
    snapshot.assert_like_sqlite();
    assert_eq!(
        snapshot.scan().unwrap().committed.frames,
        database.wal_index().unwrap().header.mx_frame
    );
}

#[test]
fn vacuum_shrinks_to_the_size_of_the_last_commit() {
    let database = LiveDatabase::with_tables(1024);
    database.insert(300, 900);
    let large = database.snapshot().scan().unwrap().committed.page_count.unwrap();
    database.run("DELETE FROM notes WHERE id > 10; DELETE FROM tags; VACUUM");
    let snapshot = database.snapshot();
    let committed = snapshot.scan().unwrap().committed;
    let small = committed.page_count.unwrap();
    assert!(small < large / 2, "{small} pages after VACUUM, {large} before");
    assert_eq!(committed.pages.keys().max(), Some(&small), "pages beyond the end are left out");
    snapshot.assert_like_sqlite();
}

#[test]
fn a_database_that_shrinks_and_grows_again() {
    let database = LiveDatabase::with_tables(1024);
    database.insert(300, 900);
    database.checkpoint("TRUNCATE");
    database.run("UPDATE notes SET body = randomblob(900)");
    database.run("DELETE FROM notes; DELETE FROM tags; VACUUM");
    let small = database.wal_index().unwrap().header.page_count;
    database.insert(200, 900);
    let snapshot = database.snapshot();
    let committed = snapshot.scan().unwrap().committed;
    assert!(committed.page_count > Some(2 * small));
    assert_eq!(committed.smallest_page_count, Some(small));
    snapshot.assert_like_sqlite();
}

#[test]
fn auto_vacuum_moves_pages_and_truncates_in_each_commit() {
    for mode in ["FULL", "INCREMENTAL"] {
        let database = LiveDatabase::with_pragmas(1024, &format!("PRAGMA auto_vacuum = {mode}"));
        database.run(
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, body BLOB);
             CREATE TABLE tags (name TEXT PRIMARY KEY, note INTEGER) WITHOUT ROWID;",
        );
        database.insert(120, 900);
        let large = database.snapshot().scan().unwrap().committed.page_count;
        database.run("DELETE FROM notes WHERE id % 3 > 0; PRAGMA incremental_vacuum");
        let snapshot = database.snapshot();
        assert!(snapshot.scan().unwrap().committed.page_count < large, "{mode}");
        snapshot.assert_like_sqlite();
    }
}

#[test]
fn every_page_that_a_transaction_adds_has_a_frame() {
    let database = LiveDatabase::with_tables(1024);
    database.checkpoint("TRUNCATE");
    // Even pages that are free again when the transaction commits.
    database.run("BEGIN");
    database.insert(100, 5000);
    database.run("DELETE FROM notes WHERE id > 20; COMMIT");
    let snapshot = database.snapshot();
    let committed = snapshot.scan().unwrap().committed;
    let in_file = u32::try_from(snapshot.database.len() / 1024).unwrap();
    let mut added = in_file + 1..=committed.page_count.unwrap();
    assert!(added.clone().count() > 100);
    assert!(added.all(|pgno| committed.pages.contains_key(&pgno)));
    snapshot.assert_like_sqlite();
}

#[test]
fn a_scan_stops_at_the_commit_its_caller_chooses() {
    use walrust_wal::{FrameReader, WalScan};

    let database = LiveDatabase::with_tables(1024);
    database.insert(40, 900);
    let snapshot = database.snapshot();
    let all = snapshot.scan().unwrap();
    let mut scan = WalScan::new(FrameReader::start(&snapshot.header()));
    while scan.commits() < 2 {
        let (header, page) = snapshot.frame(1024, scan.reader().frames()).unwrap();
        scan.push(header, page).unwrap();
    }
    let committed = scan.into_committed();
    let (end, page_count) = (all.boundaries[1], committed.page_count);
    assert_eq!((committed.frames, committed.checksum), (end.frames, end.checksum));
    assert_eq!((committed.commits, page_count), (2, Some(end.page_count)));
    assert!(committed.pages.values().all(|&frame| frame < all.boundaries[1].frames));
}
