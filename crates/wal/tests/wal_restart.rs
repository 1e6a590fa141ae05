//! A WAL that starts over with new salts in front of its old frames.

use walrust_wal::FrameEnd;

use crate::live_database::LiveDatabase;

#[test]
fn frames_of_the_generation_before_are_not_mixed_in() {
    let database = LiveDatabase::with_tables(1024);
    database.insert(100, 900);
    let old = database.snapshot();
    database.checkpoint("RESTART");
    database.insert(1, 10);

    let new = database.snapshot();
    assert_eq!(new.wal.len(), old.wal.len(), "the file does not show the restart");
    let scanned = new.scan().unwrap();
    assert!(scanned.committed.frames < old.frames_in_file() / 2);
    assert_eq!(
        scanned.end,
        Some(FrameEnd::SaltMismatch {
            frame: scanned.committed.frames,
            expected: new.header().salts,
            found: old.header().salts,
        })
    );
    assert_eq!(scanned.committed.frames, database.wal_index().unwrap().header.mx_frame);
    new.assert_like_sqlite();
}

#[test]
fn a_generation_that_grows_past_the_one_before() {
    let database = LiveDatabase::with_tables(1024);
    let old = database.snapshot();
    database.checkpoint("RESTART");
    database.insert(200, 900);
    let new = database.snapshot();
    assert!(new.wal.len() > old.wal.len());
    let scanned = new.scan().unwrap();
    assert_eq!(scanned.end, None);
    assert_eq!(scanned.committed.frames, new.frames_in_file());
    new.assert_like_sqlite();
}

#[test]
fn each_restart_is_the_successor_of_the_one_before_and_of_no_other() {
    let database = LiveDatabase::with_tables(1024);
    let mut generations = vec![database.snapshot().header()];
    for mode in ["RESTART", "PASSIVE", "TRUNCATE", "FULL"] {
        database.checkpoint(mode);
        database.insert(1, 10);
        generations.push(database.snapshot().header());
    }
    for (position, newer) in generations.iter().enumerate() {
        for (other, older) in generations.iter().enumerate() {
            assert_eq!(newer.salts.0 == older.salts.0.wrapping_add(1), position == other + 1);
        }
    }
    let sequences: Vec<u32> = generations.iter().map(|header| header.checkpoint_sequence).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "checkpoint sequences {sequences:?}");
}
