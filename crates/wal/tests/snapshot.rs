//! A copy of a database file and its WAL, and the two ways to turn them into one file.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use walrust_wal::{
    Committed, FrameEnd, FrameHeader, FrameReader, WalChecksum, WalHeader, WalScan, frame_offset,
    frame_size,
};

use crate::live_database::sidecar;

#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) database: Vec<u8>,
    pub(crate) wal: Vec<u8>,
}

/// A place in a WAL where a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitBoundary {
    /// Frames of the generation up to and including the commit frame.
    pub(crate) frames: u32,
    /// Running checksum after these frames.
    pub(crate) checksum: WalChecksum,
    /// Size of the database in pages after the transaction.
    pub(crate) page_count: u32,
}

/// A finished scan: what it found and where it stopped.
pub(crate) struct Scanned {
    pub(crate) committed: Committed,
    /// Every commit boundary on the way.
    pub(crate) boundaries: Vec<CommitBoundary>,
    /// Valid frames, committed or not.
    pub(crate) valid_frames: u32,
    /// Why the run ended; `None` at the end of the file.
    pub(crate) end: Option<FrameEnd>,
}

impl Snapshot {
    pub(crate) fn read(path: &Path) -> Self {
        Self {
            database: fs::read(path).expect("the database file"),
            wal: fs::read(sidecar(path, "-wal")).expect("the WAL"),
        }
    }

    pub(crate) fn write_to(&self, path: &Path) {
        fs::write(path, &self.database).expect("a copy of the database file");
        fs::write(sidecar(path, "-wal"), &self.wal).expect("a copy of the WAL");
    }

    /// The same database with the WAL cut after `length` bytes.
    pub(crate) fn cut(&self, length: usize) -> Self {
        Self { database: self.database.clone(), wal: self.wal[..length].to_vec() }
    }

    pub(crate) fn header(&self) -> WalHeader {
        WalHeader::parse(&self.wal).expect("SQLite wrote the header")
    }

    /// Scans the WAL from its start; `None` if it has no valid header.
    pub(crate) fn scan(&self) -> Option<Scanned> {
        let header = WalHeader::parse(&self.wal).ok()?;
        Some(self.scan_from(&header, FrameReader::start(&header)))
    }

    /// Scans the WAL from where `reader` stands.
    pub(crate) fn scan_from(&self, header: &WalHeader, reader: FrameReader) -> Scanned {
        let mut scan = WalScan::new(reader);
        let mut boundaries = Vec::new();
        let mut end = None;
        while let Some((frame_header, page)) = self.frame(header.page_size, scan.reader().frames())
        {
            match scan.push(frame_header, page) {
                Ok(frame) if frame.is_commit() => boundaries.push(CommitBoundary {
                    frames: scan.reader().frames(),
                    checksum: scan.reader().running(),
                    page_count: frame.commit,
                }),
                Ok(_) => {}
                Err(error) => {
                    end = Some(error);
                    break;
                }
            }
        }
        let valid_frames = scan.reader().frames();
        Scanned { committed: scan.into_committed(), boundaries, valid_frames, end }
    }

    /// The frame with the given index, its page cut short if the file is.
    pub(crate) fn frame(
        &self,
        page_size: u32,
        index: u32,
    ) -> Option<(&[u8; FrameHeader::SIZE], &[u8])> {
        let start = usize::try_from(frame_offset(page_size, index)).expect("a small WAL");
        let (header, rest) = self.wal.get(start..)?.split_first_chunk()?;
        Some((header, &rest[..rest.len().min(page_size as usize)]))
    }

    /// Our way: the committed pages laid over the database file.
    pub(crate) fn overlaid(&self) -> Vec<u8> {
        let mut image = self.database.clone();
        let Some(Scanned { committed, .. }) = self.scan() else { return image };
        let Some(page_count) = committed.page_count else { return image };
        let page_size = self.header().page_size;
        let size = page_size as usize;
        image.resize(page_count as usize * size, 0);
        for (&pgno, &frame) in &committed.pages {
            let (_, page) = self.frame(page_size, frame).expect("the scan has seen the frame");
            image[(pgno as usize - 1) * size..][..size].copy_from_slice(page);
        }
        image
    }

    /// SQLite's way: recovery and a full checkpoint of a copy.
    pub(crate) fn checkpointed(&self) -> Vec<u8> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("copy.db");
        self.write_to(&path);
        let connection = Connection::open(&path).expect("a connection to the copy");
        let busy: u32 = connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .expect("a checkpoint of the copy");
        assert_eq!(busy, 0, "nobody else has the copy open");
        drop(connection);
        fs::read(&path).expect("the checkpointed copy")
    }

    /// Asserts that both ways give the same file.
    #[track_caller]
    pub(crate) fn assert_like_sqlite(&self) {
        let (ours, theirs) = (self.overlaid(), self.checkpointed());
        assert_eq!(ours.len(), theirs.len(), "size of the database file");
        let page_size = WalHeader::parse(&self.wal).map_or(512, |header| header.page_size as usize);
        let differing: Vec<usize> = (ours.chunks(page_size).zip(theirs.chunks(page_size)))
            .enumerate()
            .filter_map(|(index, (ours, theirs))| (ours != theirs).then_some(index + 1))
            .collect();
        assert!(differing.is_empty(), "pages that SQLite sees differently: {differing:?}");
    }

    /// Frames that fit into the file, valid or not.
    pub(crate) fn frames_in_file(&self) -> u32 {
        let frames =
            (self.wal.len() - WalHeader::SIZE) as u64 / frame_size(self.header().page_size);
        u32::try_from(frames).expect("a small WAL")
    }
}
