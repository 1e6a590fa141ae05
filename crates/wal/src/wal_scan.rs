//! Finds what the frames of a WAL commit: the newest version of each page.
//!
//! Invariant: frames after the last commit contribute nothing. They belong to a transaction that
//! is still open, was rolled back after its pages spilled, or was torn by a crash; the next writer
//! overwrites them. The size of the database is that of the last commit, not the largest seen, and
//! pages beyond it are left out, as a checkpoint leaves them out.

use std::collections::BTreeMap;

use crate::{FrameEnd, FrameHeader, FrameReader, WalChecksum};

/// What the frames of a scan commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Frames of the generation up to and including the last commit; those before the scan if it
    /// saw no commit.
    pub frames: u32,
    /// Running checksum after these frames, or that of the WAL header if there are none.
    pub checksum: WalChecksum,
    /// Transactions committed within the scan.
    pub commits: u64,
    /// Size of the database in pages after the last commit; `None` without a commit.
    pub page_count: Option<u32>,
    /// The smallest size of the database after any commit of the scan. Pages above it were given
    /// up at some time within the scan, so their content before it may be that of a database
    /// which no longer exists.
    pub smallest_page_count: Option<u32>,
    /// For each page of the database that the scan commits, the 0-based index of its newest frame
    /// in the WAL.
    pub pages: BTreeMap<u32, u32>,
}

/// Collects the committed pages of a run of frames.
///
/// While a transaction is open SQLite may rewrite its frames in place. So a scan is not kept to be
/// fed later: a new one resumes at the last commit.
///
/// To stop after a certain commit, stop pushing once [`commits`](Self::commits) says so.
#[derive(Clone, Debug)]
pub struct WalScan {
    reader: FrameReader,
    committed: Committed,
    /// Pages of the transaction whose commit has not come yet, with the index of their frames.
    open: Vec<(u32, u32)>,
}

impl WalScan {
    /// A scan of the frames that `reader` expects next, which must begin a transaction.
    #[must_use]
    pub fn new(reader: FrameReader) -> Self {
        let committed = Committed {
            frames: reader.frames(),
            checksum: reader.running(),
            commits: 0,
            page_count: None,
            smallest_page_count: None,
            pages: BTreeMap::new(),
        };
        Self { reader, committed, open: Vec::new() }
    }

    /// Takes the next frame. `page` may be cut short if the file is.
    ///
    /// # Errors
    /// The frame is not part of the run and nothing has changed; see [`FrameReader::push`].
    pub fn push(
        &mut self,
        header: &[u8; FrameHeader::SIZE],
        page: &[u8],
    ) -> Result<FrameHeader, FrameEnd> {
        let index = self.reader.frames();
        let frame = self.reader.push(header, page)?;
        self.open.push((frame.pgno, index));
        if frame.is_commit() {
            self.commit(frame.commit);
        }
        Ok(frame)
    }

    fn commit(&mut self, page_count: u32) {
        let committed = &mut self.committed;
        committed.pages.extend(self.open.drain(..));
        committed.frames = self.reader.frames();
        committed.checksum = self.reader.running();
        committed.commits += 1;
        committed.page_count = Some(page_count);
        let smallest = committed.smallest_page_count.unwrap_or(page_count);
        committed.smallest_page_count = Some(smallest.min(page_count));
    }

    /// Transactions committed so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.committed.commits
    }

    /// The reader of the frames: how far the valid frames reach, committed or not.
    #[must_use]
    pub fn reader(&self) -> &FrameReader {
        &self.reader
    }

    /// Ends the scan; frames after the last commit are dropped.
    #[must_use]
    pub fn into_committed(mut self) -> Committed {
        if let Some(end) = self.committed.page_count.and_then(|count| count.checked_add(1)) {
            self.committed.pages.split_off(&end);
        }
        self.committed
    }
}
