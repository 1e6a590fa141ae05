//! A database of applications in other processes, and the locks that a test holds on it.
//!
//! Invariant: this process never opens the database through SQLite, so the only locks it has are
//! those that the test has taken.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use tempfile::TempDir;
use walrust_testkit::{SqlProcess, SqliteLibrary, sidecar};

/// Database file: the first byte of the range that every connection shares.
const SHARED: i64 = 0x4000_0002;
/// `-shm` file: the dead man's switch.
const DMS: i64 = 128;
/// `-shm` file: read lock 0; those of the four slots follow.
const READ_LOCK_ZERO: i64 = 123;
/// The value of a mark that no reader uses.
pub(crate) const UNUSED: u32 = u32::MAX;
/// The modes of a checkpoint that wait for readers and writers, if they are told to.
pub(crate) const WAITING_MODES: [&str; 3] = ["FULL", "RESTART", "TRUNCATE"];

/// A database in WAL mode that only its applications checkpoint.
#[derive(Debug)]
pub(crate) struct Database {
    directory: TempDir,
    library: SqliteLibrary,
}

impl Database {
    /// A new database, and the application that has created it.
    pub(crate) fn new(library: SqliteLibrary) -> (Self, SqlProcess) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let database = Self { directory, library };
        let mut application = database.open();
        assert_eq!(application.run("PRAGMA journal_mode = WAL"), [["wal"]]);
        application.run("CREATE TABLE t (v BLOB)");
        (database, application)
    }

    /// Another application.
    pub(crate) fn open(&self) -> SqlProcess {
        let mut application = SqlProcess::open(self.library, &self.path());
        application.run("PRAGMA wal_autocheckpoint = 0");
        application
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("app.db")
    }

    /// Size of the WAL in bytes.
    pub(crate) fn wal_size(&self) -> u64 {
        fs::metadata(self.wal()).expect("there is a WAL").len()
    }

    pub(crate) fn wal(&self) -> PathBuf {
        sidecar(&self.path(), "-wal")
    }

    pub(crate) fn shm(&self) -> PathBuf {
        sidecar(&self.path(), "-shm")
    }

    /// The content of the database file, without the WAL.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).expect("the database is readable")
    }

    /// The wal-index; nobody may be at work.
    pub(crate) fn wal_index(&self) -> WalIndex {
        WalIndex::read(&self.shm())
    }

    /// Holds the database as every connection does.
    pub(crate) fn lock_shared(&self) -> Lock {
        Lock::ofd(&self.path(), SHARED)
    }

    /// Holds the dead man's switch as every connection does.
    pub(crate) fn lock_switch(&self) -> Lock {
        Lock::ofd(&self.shm(), DMS)
    }

    /// Holds read lock 0, the one of readers that ignore the WAL.
    pub(crate) fn lock_zero(&self) -> Lock {
        Lock::ofd(&self.shm(), READ_LOCK_ZERO)
    }

    /// Holds the slot with the newest mark.
    pub(crate) fn lock_slot(&self) -> Slot {
        let index = self.wal_index();
        let marked = (1..5).filter(|slot| index.marks[*slot] <= index.frames);
        let number = marked.max_by_key(|slot| index.marks[*slot]).expect("somebody has read");
        let offset = i64::try_from(number).expect("one of four");
        let _lock = Lock::ofd(&self.shm(), READ_LOCK_ZERO + offset);
        let mark = index.marks[number];
        assert_eq!(self.wal_index().marks[number], mark, "nobody is at work");
        Slot { number, mark, _lock }
    }

    /// All three locks of the pin, and the slot at the newest commit.
    pub(crate) fn pin(&self, application: &mut SqlProcess) -> (Lock, Lock, Slot) {
        read(application);
        let slot = self.lock_slot();
        assert_eq!(slot.mark, self.wal_index().frames, "a reader has just set the mark");
        (self.lock_shared(), self.lock_switch(), slot)
    }
}

/// A slot of the wal-index that is held.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) number: usize,
    /// The frames that its readers see.
    pub(crate) mark: u32,
    _lock: Lock,
}

/// A shared lock on one byte, through a read-only descriptor of its own.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    byte: i64,
    owner: Owner,
}

/// To whom a lock belongs.
#[derive(Clone, Copy, Debug)]
enum Owner {
    Descriptor,
    Process,
}

impl Lock {
    #[track_caller]
    fn ofd(path: &Path, byte: i64) -> Self {
        Self::take(path, byte, Owner::Descriptor)
    }

    /// Holds the database as [`Database::lock_shared`], but with a lock of this process.
    #[track_caller]
    pub(crate) fn posix_shared(database: &Database) -> Self {
        Self::take(&database.path(), SHARED, Owner::Process)
    }

    #[track_caller]
    fn take(path: &Path, byte: i64, owner: Owner) -> Self {
        let file = File::open(path).expect("the file is readable");
        let lock = Self { file, byte, owner };
        lock.set(libc::F_RDLCK);
        lock
    }

    /// Another descriptor of the same open file description.
    pub(crate) fn copy_descriptor(&self) -> File {
        self.file.try_clone().expect("a descriptor is free")
    }

    #[track_caller]
    fn set(&self, kind: i32) {
        let range = libc::flock {
            l_type: libc::c_short::try_from(kind).expect("a small constant"),
            l_whence: libc::c_short::try_from(libc::SEEK_SET).expect("a small constant"),
            l_start: self.byte,
            l_len: 1,
            l_pid: 0,
        };
        let command = match self.owner {
            Owner::Descriptor => FcntlArg::F_OFD_SETLK(&range),
            Owner::Process => FcntlArg::F_SETLK(&range),
        };
        fcntl(&self.file, command).unwrap_or_else(|error| panic!("{self:?}: {error}"));
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread is about to start has a copy of the
        // descriptor until it runs its program, and with it the lock.
        self.set(libc::F_UNLCK);
    }
}

/// What the header of the `-shm` file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WalIndex {
    /// Committed frames in the WAL.
    pub(crate) frames: u32,
    /// The salts of the generation; the bytes are those of the WAL, so the first is big-endian.
    pub(crate) salts: (u32, u32),
    /// Frames that are in the database file.
    pub(crate) backfilled: u32,
    /// What the readers of each read lock see.
    pub(crate) marks: [u32; 5],
}

impl WalIndex {
    fn read(path: &Path) -> Self {
        let mut bytes = [0; 120];
        let shm = File::open(path).expect("the wal-index is readable");
        shm.read_exact_at(&mut bytes, 0).expect("the wal-index has a header");
        assert_eq!(bytes[..48], bytes[48..96], "the copies of the header, while nobody writes");
        let four = |offset| bytes[offset..offset + 4].try_into().expect("four bytes");
        let native = |offset| u32::from_ne_bytes(four(offset));
        Self {
            frames: native(16),
            salts: (u32::from_be_bytes(four(32)), u32::from_be_bytes(four(36))),
            backfilled: native(96),
            marks: std::array::from_fn(|mark| native(100 + 4 * mark)),
        }
    }
}

/// Commits so many times.
#[track_caller]
pub(crate) fn commit(application: &mut SqlProcess, times: u32) {
    for _ in 0..times {
        application.run("INSERT INTO t VALUES (randomblob(3000))");
    }
}

/// Reads what is committed, and so moves a free slot to the last commit.
#[track_caller]
pub(crate) fn read(application: &mut SqlProcess) {
    application.run("SELECT count(*) FROM t");
}

/// Runs a checkpoint: whether it was kept from its work, the frames of the WAL, and those of them
/// that are in the database file.
#[track_caller]
pub(crate) fn checkpoint(application: &mut SqlProcess, mode: &str) -> (bool, u32, u32) {
    let [busy, frames, backfilled] = application.numbers(&format!("PRAGMA wal_checkpoint({mode})"));
    let count = |number| u32::try_from(number).expect("the database is in WAL mode");
    (busy != 0, count(frames), count(backfilled))
}

/// Asserts that the database has so many rows and no damage.
#[track_caller]
pub(crate) fn assert_rows(application: &mut SqlProcess, rows: i64) {
    assert_eq!(application.numbers("SELECT count(*) FROM t"), [rows]);
    assert_eq!(application.run("PRAGMA integrity_check"), [["ok"]]);
}
