//! The lock bytes, compared with the locks that SQLite really takes.
//!
//! `/proc/locks` lists them by inode and byte range; other systems have no such list.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use walrust_wal::{DATABASE_SHARED_BYTE, SHM_DMS, SHM_WRITE, shm_read_lock};

use crate::live_database::{LiveDatabase, sidecar};

/// Locks on a file: kind, first byte, last byte.
fn locks(path: &Path) -> BTreeSet<(String, u64, u64)> {
    let inode = format!(":{}", fs::metadata(path).expect("the file").ino());
    let list = fs::read_to_string("/proc/locks").expect("the kernel's list of locks");
    let fields = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields
        .filter(|fields| fields.len() == 8 && fields[5].ends_with(&inode))
        .map(|fields| {
            let byte = |field: usize| fields[field].parse().expect("a byte offset");
            (fields[3].to_owned(), byte(6), byte(7))
        })
        .collect()
}

fn lock(kind: &str, first: u64, length: u64) -> (String, u64, u64) {
    (kind.to_owned(), first, first + length - 1)
}

#[test]
fn an_open_database_shares_its_range_and_the_dead_mans_switch() {
    let database = LiveDatabase::with_tables(4096);
    let shared = lock("READ", DATABASE_SHARED_BYTE, 510);
    assert_eq!(locks(database.path()), [shared].into());
    let shm = sidecar(database.path(), "-shm");
    assert_eq!(locks(&shm), [lock("READ", SHM_DMS, 1)].into());
}

#[test]
fn a_reader_locks_its_mark_and_a_writer_the_write_byte() {
    let database = LiveDatabase::with_tables(4096);
    let shm = sidecar(database.path(), "-shm");
    database.run("BEGIN IMMEDIATE");
    // The writer is a reader too: its snapshot has the first mark.
    let expected =
        [lock("READ", SHM_DMS, 1), lock("READ", shm_read_lock(1), 1), lock("WRITE", SHM_WRITE, 1)];
    assert_eq!(locks(&shm), expected.into());
    database.run("ROLLBACK");

    database.checkpoint("PASSIVE");
    database.run("BEGIN; SELECT count(*) FROM notes");
    let expected = [lock("READ", SHM_DMS, 1), lock("READ", shm_read_lock(0), 1)];
    assert_eq!(locks(&shm), expected.into(), "a reader of a backfilled WAL ignores it");
}

#[test]
fn the_read_locks_lie_between_those_of_the_writer_and_the_dead_mans_switch() {
    assert_eq!([0, 1, 2, 3, 4].map(shm_read_lock), [123, 124, 125, 126, 127]);
    assert_eq!((SHM_WRITE, SHM_DMS), (120, 128));
}

#[test]
#[should_panic(expected = "five read marks")]
fn there_is_no_sixth_read_mark() {
    let _ = shm_read_lock(5);
}
