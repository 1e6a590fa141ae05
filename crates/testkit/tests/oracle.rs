//! The oracle: it sees the newest commit, leaves the source alone, and notices any difference.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;
use walrust_testkit::{
    TestDatabase, assert_same_content, assert_same_database, check_integrity, sidecar, wait_for,
};

/// How long the kernel may need to name all locks.
const DEADLINE: Duration = Duration::from_secs(30);

fn restored(database: &TestDatabase, image: &[u8]) -> PathBuf {
    let path = database.directory().join("restored.db");
    fs::write(&path, image).expect("a copy");
    path
}

#[test]
fn an_image_is_what_a_checkpoint_would_leave() {
    let database = TestDatabase::with_history(1024, 21, 40);
    assert!(fs::metadata(sidecar(database.path(), "-wal")).unwrap().len() > 0);
    let image = database.image();
    assert!(image != fs::read(database.path()).unwrap(), "the newest commits are in the WAL");
    database.run("PRAGMA wal_checkpoint(TRUNCATE)");
    assert!(image == fs::read(database.path()).unwrap());
}

/// The locks on a file, by the kernel's list: owner, kind and bytes.
#[cfg(target_os = "linux")]
fn locks(path: &std::path::Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;

    let inode = format!(":{} ", fs::metadata(path).expect("the file").ino());
    let list = fs::read_to_string("/proc/locks").expect("the kernel's list of locks");
    let lines = list.lines().filter(|line| line.contains(&inode));
    lines.filter_map(|line| Some(line.split_once(':')?.1.to_owned())).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn looking_leaves_files_and_locks_alone() {
    let database = TestDatabase::with_history(4096, 22, 10);
    let files = || ["", "-wal", "-shm"].map(|suffix| sidecar(database.path(), suffix));
    let state =
        || files().map(|path| (locks(&path), fs::metadata(&path).unwrap().modified().unwrap()));
    // A connection in WAL mode keeps a shared lock on the database file and on the wal-index. The
    // kernel's list may leave out some that were there all the time if others change meanwhile.
    let mut before = state();
    wait_for(DEADLINE, "the locks of a connection", || {
        before = state();
        [0, 1, 2].map(|file| before[file].0.len()) == [1, 0, 1]
    });
    let _ = walrust_testkit::image(database.path());
    let _ = walrust_testkit::dump(database.path());
    assert_same_database(database.path(), database.path());
    check_integrity(database.path());
    // One that was dropped does not come back.
    wait_for(DEADLINE, "the same locks", || state() == before);
}

#[test]
fn a_true_copy_passes() {
    let database = TestDatabase::with_history(512, 23, 40);
    let copy = restored(&database, &database.image());
    assert_same_database(database.path(), &copy);
    assert_same_content(database.path(), &copy);
}

#[test]
#[should_panic(expected = "2 of the common pages differ, first [2, 5]; ")]
fn pages_that_differ_are_named() {
    let database = TestDatabase::with_history(512, 24, 20);
    let mut image = database.image();
    // Both are interior to free space or text; whether SQLite minds is not the question.
    image[512 + 511] ^= 1;
    image[4 * 512 + 511] ^= 1;
    let copy = restored(&database, &image);
    assert_same_database(database.path(), &copy);
}

#[test]
#[should_panic(expected = "is not the same database")]
fn a_missing_commit_is_noticed() {
    let database = TestDatabase::with_history(4096, 25, 20);
    let copy = restored(&database, &database.image());
    database.run("UPDATE accounts SET balance = balance + 1 WHERE id = 1");
    assert_same_database(database.path(), &copy);
}

#[test]
#[should_panic(expected = "the first difference is")]
fn other_rows_are_noticed_whatever_the_pages() {
    let database = TestDatabase::with_history(4096, 26, 20);
    let copy = restored(&database, &database.image());
    database
        .run("UPDATE documents SET body = x'c0ffee' WHERE id = (SELECT min(id) FROM documents)");
    assert_same_content(database.path(), &copy);
}

#[test]
fn other_pages_with_the_same_rows_have_the_same_content() {
    let database = TestDatabase::with_history(4096, 27, 60);
    let copy = restored(&database, &database.image());
    Connection::open(&copy).unwrap().execute_batch("PRAGMA page_size = 512; VACUUM").unwrap();
    assert_same_content(database.path(), &copy);
}

#[test]
#[should_panic(expected = "integrity check of")]
fn a_corrupt_index_fails_the_check() {
    let mut database = TestDatabase::with_history(4096, 28, 60);
    database.run("PRAGMA wal_checkpoint(TRUNCATE)");
    let root: u32 = (database.connection())
        .query_row(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'accounts_by_name'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let mut image = database.image();
    // An empty leaf in place of the index: readable, but it lacks every entry.
    image[(root as usize - 1) * 4096..][..8].copy_from_slice(&[10, 0, 0, 0, 0, 0x10, 0, 0]);
    check_integrity(&restored(&database, &image));
}
