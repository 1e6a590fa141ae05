//! Writes the frames of a WAL: the counterpart of [`FrameReader`](crate::FrameReader).
//!
//! Invariant: what it makes is what a [`FrameReader`](crate::FrameReader) at the same place
//! accepts. A frame counts only once the frame that commits its transaction follows it, so what a
//! crash leaves of an unfinished transaction is nothing.

use crate::{ByteOrder, FrameHeader, Salts, WalChecksum, WalHeader};

/// Makes the headers of frames that continue a WAL.
#[derive(Clone, Debug)]
pub struct FrameWriter {
    byte_order: ByteOrder,
    page_size: u32,
    salts: Salts,
    running: WalChecksum,
}

impl FrameWriter {
    /// A writer of the first frame after a header.
    #[must_use]
    pub fn start(header: &WalHeader) -> Self {
        Self::resume(header, header.checksum)
    }

    /// A writer of the frame after one whose checksum is `running`.
    #[must_use]
    pub fn resume(header: &WalHeader, running: WalChecksum) -> Self {
        let WalHeader { byte_order, page_size, salts, .. } = *header;
        Self { byte_order, page_size, salts, running }
    }

    /// The header of the next frame, which holds `page`. `commit` is the size of the database in
    /// pages if the frame ends a transaction, otherwise 0.
    ///
    /// # Panics
    /// If `page` has not the size of a page.
    #[must_use]
    pub fn next(&mut self, pgno: u32, commit: u32, page: &[u8]) -> [u8; FrameHeader::SIZE] {
        assert_eq!(page.len(), self.page_size as usize, "a frame holds one page");
        let mut header = [0; FrameHeader::SIZE];
        header[..4].copy_from_slice(&pgno.to_be_bytes());
        header[4..8].copy_from_slice(&commit.to_be_bytes());
        self.running = self
            .running
            .update(self.byte_order, &header[..FrameHeader::CHECKSUMMED])
            .update(self.byte_order, page);
        header[8..12].copy_from_slice(&self.salts.0.to_be_bytes());
        header[12..16].copy_from_slice(&self.salts.1.to_be_bytes());
        header[16..20].copy_from_slice(&self.running.s1.to_be_bytes());
        header[20..].copy_from_slice(&self.running.s2.to_be_bytes());
        header
    }

    /// The running checksum after the last frame.
    #[must_use]
    pub fn running(&self) -> WalChecksum {
        self.running
    }
}
