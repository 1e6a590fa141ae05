//! Appends transactions to the WAL of a replica, page for page, beside readers.
//!
//! SQLite has no interface that writes given pages in a build without `sqlite_dbpage`, and with it
//! changes some of them (see ARCHITECTURE.md). So this does what SQLite's own writer does
//! (`sqlite3WalFrames` and `walIndexAppend` in `wal.c`), in the same order and under the same lock:
//!
//! 1. take the lock of the writer, which also keeps others from restarting the WAL or rebuilding the
//!    wal-index;
//! 2. write frames after the last committed one, the last of them with the size of the database,
//!    and sync them;
//! 3. enter their pages in the hash tables of the wal-index;
//! 4. replace the header of the wal-index: its second copy, then the first.
//!
//! Invariant: readers see the old state until the last step and the new one after it; those that are
//! in a transaction keep the old one. A crash before the last step leaves frames that do not count,
//! or, if the wal-index is lost with the last process, whole transactions that do.
//!
//! The caller has a SQLite connection open on the database, so that the WAL and the wal-index stay
//! where they are, and drops it before this value (see `database_files.rs`). It begins no
//! transaction while one is written here.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use walrust_ltx::{PageSize, Pgno};
use walrust_wal::{
    Committed, FrameWriter, SHM_WRITE, Salts, WalHeader, WalIndex, WalIndexBlock, WalIndexHeader,
    frame_offset,
};

use crate::DatabaseError;
use crate::database_files::{DatabaseFiles, sidecar};
use crate::ofd_lock::{is_unsupported, try_lock_exclusive, unlock};
use crate::wal_source::{WalRead, read_frames, read_wal_header};

/// How often the lock of the writer is tried, a millisecond apart. Checkpoints of readers hold it
/// for a moment.
const ATTEMPTS: u32 = 2000;
/// Bytes of frames that are written at once.
const RUN: usize = 256 * 1024;

/// The files of a replica, open for writing.
#[derive(Debug)]
pub(crate) struct WalWriter {
    files: DatabaseFiles,
    shm: File,
    shm_path: PathBuf,
    wal: File,
    page_size: PageSize,
}

/// A transaction that nobody sees before it is committed. Dropped, it never was.
#[derive(Debug)]
pub(crate) struct WalTransaction<'a> {
    writer: &'a WalWriter,
    _lock: WriteLock<'a>,
    /// The header of the wal-index, as it was found and as it is going to be.
    header: WalIndexHeader,
    frames: FrameWriter,
    /// Frames that are not written yet.
    run: Vec<u8>,
    /// Where they belong.
    offset: u64,
    /// The pages of all frames of the transaction.
    pgnos: Vec<Pgno>,
    /// The last page, whose frame says whether it ends the transaction.
    last: Option<Pgno>,
    last_page: Vec<u8>,
}

/// The lock of the writer.
#[derive(Debug)]
struct WriteLock<'a> {
    shm: &'a File,
}

impl Drop for WriteLock<'_> {
    fn drop(&mut self) {
        if let Err(error) = unlock(self.shm, SHM_WRITE) {
            // It goes with the file at the latest.
            tracing::warn!(%error, "cannot give the lock of the writer back");
        }
    }
}

impl WalWriter {
    /// Opens the WAL and the wal-index, which exist while a connection is open.
    pub(crate) fn open(files: DatabaseFiles, page_size: PageSize) -> Result<Self, DatabaseError> {
        let open = |path: &PathBuf| {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(path);
            file.map_err(DatabaseError::io("open", path))
        };
        let shm_path = sidecar(files.path(), "-shm");
        let wal_path = sidecar(files.path(), "-wal");
        let (shm, wal) = (open(&shm_path)?, open(&wal_path)?);
        Ok(Self { files, shm, shm_path, wal, page_size })
    }

    pub(crate) fn files(&self) -> &DatabaseFiles {
        &self.files
    }

    pub(crate) fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// What the WAL holds up to the last commit of `index`; `None` if it is empty. The caller holds
    /// a read transaction.
    pub(crate) fn committed(&self, index: &WalIndex) -> Result<Option<Committed>, DatabaseError> {
        let WalIndexHeader { mx_frame, salts, .. } = index.header;
        if mx_frame == 0 {
            return Ok(None);
        }
        match read_frames(&self.files, &self.wal, salts, None, mx_frame)? {
            WalRead::Complete(committed) => Ok(Some(committed)),
            WalRead::Restarted => {
                Err(DatabaseError::Unstable { path: self.files.wal_path().to_owned() })
            }
        }
    }

    /// Begins a transaction as soon as no other writer or checkpoint is at work.
    pub(crate) fn begin(&self) -> Result<WalTransaction<'_>, DatabaseError> {
        let lock = self.lock()?;
        let mut header = self.files.wal_index()?.header;
        let wal_header = if header.mx_frame == 0 {
            let wal_header = self.start_generation()?;
            header.salts = wal_header.salts;
            header.frame_checksum = wal_header.checksum;
            header.big_endian_checksum = cfg!(target_endian = "big");
            wal_header
        } else {
            self.generation(&header)?
        };
        header.page_size = self.page_size.get();
        Ok(WalTransaction {
            frames: FrameWriter::resume(&wal_header, header.frame_checksum),
            run: Vec::with_capacity(RUN),
            offset: frame_offset(self.page_size.get(), header.mx_frame),
            pgnos: Vec::new(),
            last: None,
            last_page: Vec::with_capacity(self.page_size.bytes()),
            writer: self,
            _lock: lock,
            header,
        })
    }

    fn lock(&self) -> Result<WriteLock<'_>, DatabaseError> {
        for _ in 0..ATTEMPTS {
            match try_lock_exclusive(&self.shm, SHM_WRITE) {
                Ok(true) => return Ok(WriteLock { shm: &self.shm }),
                Ok(false) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) if is_unsupported(&error) => {
                    return Err(DatabaseError::Unsupported {
                        path: self.shm_path.clone(),
                        what: "this system or file system has no open file description locks, \
                               without which a replica cannot be written beside its readers"
                            .to_owned(),
                    });
                }
                Err(error) => return Err(DatabaseError::io("lock", &self.shm_path)(error)),
            }
        }
        Err(DatabaseError::Locked { path: self.files.path().to_owned() })
    }

    /// Writes the header of a WAL that has no frames. Until it is durable no frame may be written:
    /// after a loss of power frames of the last generation would be taken for the newest.
    fn start_generation(&self) -> Result<WalHeader, DatabaseError> {
        let salts = Salts(fastrand::u32(..), fastrand::u32(..));
        let header = WalHeader::new(self.page_size.get(), 0, salts);
        let write = || {
            self.wal.write_all_at(&header.to_bytes(), 0)?;
            self.wal.sync_data()
        };
        write().map_err(DatabaseError::io("write the WAL", self.files.wal_path()))?;
        Ok(header)
    }

    /// The header of the WAL that goes on.
    fn generation(&self, index: &WalIndexHeader) -> Result<WalHeader, DatabaseError> {
        match read_wal_header(&self.files, &self.wal)? {
            Some(header)
                if header.salts == index.salts && header.page_size == self.page_size.get() =>
            {
                Ok(header)
            }
            _ => Err(DatabaseError::WalDamaged {
                path: self.files.wal_path().to_owned(),
                promised: index.mx_frame,
                found: 0,
            }),
        }
    }

    /// Enters the pages of the frames after frame `done` in the wal-index.
    fn enter(&self, done: u32, pgnos: &[Pgno]) -> std::io::Result<()> {
        let mut rest = pgnos;
        let mut block = WalIndexBlock::of_frame(done + 1);
        while !rest.is_empty() {
            // What the block holds already: the frames up to `done`.
            let first = block.first_frame();
            let held = (done + 1).saturating_sub(first) as usize;
            let mut bytes = vec![0; held * 4];
            self.shm.read_exact_at(&mut bytes, block.offset())?;
            let (words, _) = bytes.as_chunks::<4>();
            let mut pages: Vec<u32> = words.iter().map(|word| u32::from_ne_bytes(*word)).collect();
            let room = (block.last_frame() - first + 1) as usize - held;
            let (now, later) = rest.split_at(room.min(rest.len()));
            pages.extend_from_slice(now);
            self.shm.write_all_at(&block.bytes(&pages), block.offset())?;
            rest = later;
            block = block.next();
        }
        Ok(())
    }
}

impl WalTransaction<'_> {
    /// Counts the transactions of all writers; see [`WalIndexHeader::change`].
    pub(crate) fn change(&self) -> u32 {
        self.header.change
    }

    /// Adds a page. A transaction has each page once.
    pub(crate) fn page(&mut self, pgno: Pgno, page: &[u8]) -> Result<(), DatabaseError> {
        if let Some(last) = self.last.replace(pgno) {
            self.frame(last, 0)?;
        }
        self.last_page.clear();
        self.last_page.extend_from_slice(page);
        Ok(())
    }

    /// Makes the transaction durable, then visible. `page_count` is the size of the database after
    /// it. Returns the count of [`change`](Self::change) after it; a transaction without pages
    /// changes nothing.
    pub(crate) fn commit(mut self, page_count: u32) -> Result<u32, DatabaseError> {
        let Some(last) = self.last.take() else { return Ok(self.header.change) };
        self.frame(last, page_count)?;
        self.flush()?;
        let writer = self.writer;
        let sync = writer.wal.sync_data();
        sync.map_err(DatabaseError::io("sync the WAL", writer.files.wal_path()))?;
        let done = self.header.mx_frame;
        self.header.mx_frame += u32::try_from(self.pgnos.len()).expect("checked in frame()");
        self.header.change = self.header.change.wrapping_add(1);
        self.header.page_count = page_count;
        self.header.frame_checksum = self.frames.running();
        let bytes = self.header.to_bytes();
        let publish = || {
            writer.enter(done, &self.pgnos)?;
            fence(Ordering::SeqCst);
            writer.shm.write_all_at(&bytes, WalIndexHeader::SIZE as u64)?;
            fence(Ordering::SeqCst);
            writer.shm.write_all_at(&bytes, 0)
        };
        publish().map_err(DatabaseError::io("write the wal-index", &writer.shm_path))?;
        Ok(self.header.change)
    }

    /// Makes a frame of the last page.
    fn frame(&mut self, pgno: Pgno, commit: u32) -> Result<(), DatabaseError> {
        let frames = self.pgnos.len() as u64 + 1 + u64::from(self.header.mx_frame);
        if frames > u64::from(u32::MAX) {
            return Err(DatabaseError::Unsupported {
                path: self.writer.files.wal_path().to_owned(),
                what: "the WAL has as many frames as it can have".to_owned(),
            });
        }
        self.run.extend_from_slice(&self.frames.next(pgno, commit, &self.last_page));
        self.run.extend_from_slice(&self.last_page);
        self.pgnos.push(pgno);
        if self.run.len() >= RUN { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DatabaseError> {
        let written = self.writer.wal.write_all_at(&self.run, self.offset);
        written.map_err(DatabaseError::io("write the WAL", self.writer.files.wal_path()))?;
        self.offset += self.run.len() as u64;
        self.run.clear();
        Ok(())
    }
}
