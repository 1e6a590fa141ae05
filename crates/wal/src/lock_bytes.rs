//! The bytes that SQLite locks on Unix (sqlite.org/walformat.html, section 2.3, and `os_unix.c`).
//!
//! They are POSIX byte-range locks: shared by readers, exclusive for writers. All are offsets in
//! bytes, and each lock covers one byte unless it says otherwise. The bytes of the database file
//! lie in the page at 1 GiB, which for this reason never holds data.

/// Database file: first byte of the shared range, which has 510. A connection in WAL mode keeps a
/// shared lock on the range; the last one to close wants it exclusively before it deletes the WAL.
pub const DATABASE_SHARED_BYTE: u64 = 0x4000_0002;

/// `-shm` file: held exclusively by the writer.
pub const SHM_WRITE: u64 = 120;
/// `-shm` file: the lock of read mark 0. Between it and [`SHM_WRITE`] lie those of checkpoints and of
/// whoever rebuilds the wal-index.
const SHM_READ: u64 = 123;
/// `-shm` file, the dead man's switch: every connection shares it; one that gets it exclusively
/// is alone and rebuilds the wal-index.
pub const SHM_DMS: u64 = 128;

/// `-shm` file: the lock of read mark `mark` (0 to 4).
///
/// Read lock 0 belongs to readers that ignore the WAL: it lets a writer restart the WAL and keeps
/// checkpoints from writing to the database file.
///
/// # Panics
/// If there is no such read mark.
#[must_use]
pub const fn shm_read_lock(mark: usize) -> u64 {
    assert!(mark < 5, "a wal-index has five read marks");
    SHM_READ + mark as u64
}
