//! What a database holds, page for page, worked out from its files without SQLite.

use std::rc::Rc;

use walrust_ltx::{Checksum, Pgno};

/// Bytes before the frames of a WAL.
const HEADER: usize = 32;
/// Bytes before the page of a frame.
const FRAME_HEADER: usize = 24;

/// One state of a database.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) bytes: Rc<Vec<u8>>,
    pub(crate) checksum: Checksum,
}

impl PartialEq for Image {
    fn eq(&self, other: &Self) -> bool {
        self.checksum == other.checksum && self.bytes == other.bytes
    }
}

impl Image {
    pub(crate) fn new(bytes: Vec<u8>, page_size: u32) -> Self {
        assert_eq!(bytes.len() % page_size as usize, 0, "a database has whole pages");
        let pages = (1..).zip(bytes.chunks(page_size as usize));
        let checksum = pages.fold(Checksum::EMPTY, |rolling, (pgno, page): (Pgno, _)| {
            rolling.toggle(Checksum::of_page(pgno, page))
        });
        Self { bytes: Rc::new(bytes), checksum }
    }

    /// The database file overlaid with the frames of its WAL up to the last commit. Nobody may have
    /// died while it wrote a commit: the checksums of the frames are not looked at.
    pub(crate) fn of_files(files: &Files, page_size: u32) -> Self {
        let mut bytes = files.database.clone();
        let frames = files.frames(page_size);
        let Some(end) = frames.iter().rposition(|frame| number(&frame[4..8]) > 0) else {
            return Self::new(bytes, page_size);
        };
        for frame in &frames[..=end] {
            let offset = (number(&frame[..4]) as usize - 1) * page_size as usize;
            if bytes.len() < offset + page_size as usize {
                bytes.resize(offset + page_size as usize, 0);
            }
            bytes[offset..][..page_size as usize].copy_from_slice(&frame[FRAME_HEADER..]);
        }
        bytes.resize(number(&frames[end][4..8]) as usize * page_size as usize, 0);
        Self::new(bytes, page_size)
    }

    /// How many pages have to be replaced or added to make `self` of `old`.
    pub(crate) fn changed_pages(&self, old: &Self, page_size: u32) -> usize {
        let mut old = old.bytes.chunks(page_size as usize);
        self.bytes.chunks(page_size as usize).filter(|page| old.next() != Some(page)).count()
    }
}

/// The files of a database as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) database: Vec<u8>,
    pub(crate) wal: Vec<u8>,
}

impl Files {
    /// The frames of the current generation.
    fn frames(&self, page_size: u32) -> Vec<&[u8]> {
        let Some((header, frames)) = self.wal.split_at_checked(HEADER) else { return Vec::new() };
        let ours = |frame: &&[u8]| frame[8..16] == header[16..24];
        frames.chunks_exact(FRAME_HEADER + page_size as usize).take_while(ours).collect()
    }

    /// Which generation the WAL is.
    pub(crate) fn salts(&self) -> Option<[u8; 8]> {
        self.wal.get(16..24)?.try_into().ok()
    }

    /// The sizes of the WAL file at which a commit ends, and before the first.
    pub(crate) fn commit_ends(&self, page_size: u32) -> Vec<usize> {
        let frame_size = FRAME_HEADER + page_size as usize;
        let frames = self.frames(page_size);
        let ends = (1..).zip(&frames).filter(|(_, frame)| number(&frame[4..8]) > 0);
        let ends = ends.map(|(count, _)| HEADER + count * frame_size);
        [HEADER.min(self.wal.len())].into_iter().chain(ends).collect()
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}
