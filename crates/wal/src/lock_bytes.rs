//! The bytes that SQLite locks on Unix (sqlite.org/walformat.html, section 2.3, and `os_unix.c`).
//!
//! They are POSIX byte-range locks: shared by readers, exclusive for writers. All are offsets in
//! bytes, and each lock covers one byte unless it says otherwise. The bytes of the database file
//! lie in the page at 1 GiB, which for this reason never holds data.

/// Database file: held while a lock on the shared range is being acquired.
pub const DATABASE_PENDING_BYTE: u64 = 0x4000_0000;
/// Database file: held by a writer of rollback journal mode.
pub const DATABASE_RESERVED_BYTE: u64 = DATABASE_PENDING_BYTE + 1;
/// Database file: first byte of the shared range. A connection in WAL mode keeps a shared lock on
/// the range; the last one to close wants it exclusively before it deletes the WAL.
pub const DATABASE_SHARED_BYTE: u64 = DATABASE_PENDING_BYTE + 2;
/// Length of the shared range in bytes.
pub const DATABASE_SHARED_LENGTH: u64 = 510;

/// `-shm` file: held exclusively by the writer.
pub const SHM_WRITE: u64 = 120;
/// `-shm` file: held exclusively by a checkpoint.
pub const SHM_CHECKPOINT: u64 = 121;
/// `-shm` file: held exclusively while the wal-index is rebuilt.
pub const SHM_RECOVER: u64 = 122;
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
    SHM_RECOVER + 1 + mark as u64
}
