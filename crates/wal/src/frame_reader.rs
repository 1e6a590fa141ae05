//! Validates the frames of one generation, one after the other.
//!
//! Invariant: a frame is accepted only if SQLite's recovery would accept it: it names a page,
//! carries the salts of the WAL header, and its checksum continues that of the frame before. So a
//! frame left over from an older generation, torn, or overwritten ends the run. Accepted frames
//! need not be committed; [`WalScan`](crate::WalScan) sorts that out.

use crate::{ByteOrder, FrameHeader, Salts, WalChecksum, WalHeader};

/// Reads the frames of a WAL in order and tells which of them are valid.
#[derive(Clone, Debug)]
pub struct FrameReader {
    byte_order: ByteOrder,
    page_size: u32,
    salts: Salts,
    frames: u32,
    running: WalChecksum,
}

impl FrameReader {
    /// A reader that expects the first frame of the WAL.
    #[must_use]
    pub fn start(header: &WalHeader) -> Self {
        Self::resume(header, 0, header.checksum)
    }

    /// A reader that expects the frame after the first `frames_done`, of which the last has the
    /// checksum `running`.
    ///
    /// The caller answers for the two belonging together, and for the generation being the same.
    #[must_use]
    pub fn resume(header: &WalHeader, frames_done: u32, running: WalChecksum) -> Self {
        Self {
            byte_order: header.byte_order,
            page_size: header.page_size,
            salts: header.salts,
            frames: frames_done,
            running,
        }
    }

    /// Checks the next frame. `page` may be cut short if the file is.
    ///
    /// After an error the reader stands where it stood, so a frame that was read while it was
    /// being written can be read again.
    ///
    /// # Errors
    /// The frame is not part of the run: here the valid frames end.
    pub fn push(
        &mut self,
        header: &[u8; FrameHeader::SIZE],
        page: &[u8],
    ) -> Result<FrameHeader, FrameEnd> {
        let frame = self.frames;
        let next = frame.checked_add(1).ok_or(FrameEnd::TooManyFrames)?;
        let fields = FrameHeader::parse(header);
        if fields.salts != self.salts {
            return Err(FrameEnd::SaltMismatch {
                frame,
                expected: self.salts,
                found: fields.salts,
            });
        }
        if fields.pgno == 0 {
            return Err(FrameEnd::ZeroPgno { frame });
        }
        if page.len() != self.page_size as usize {
            return Err(FrameEnd::Torn { frame, expected: self.page_size, found: page.len() });
        }
        let computed = self
            .running
            .update(self.byte_order, &header[..FrameHeader::CHECKSUMMED])
            .update(self.byte_order, page);
        if fields.checksum != computed {
            return Err(FrameEnd::ChecksumMismatch { frame });
        }
        self.frames = next;
        self.running = computed;
        Ok(fields)
    }

    /// Frames of the generation up to here, including those skipped by [`resume`](Self::resume).
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// The running checksum after these frames, or that of the WAL header if there are none.
    #[must_use]
    pub fn running(&self) -> WalChecksum {
        self.running
    }

    /// Bytes in the page of every frame.
    #[must_use]
    pub fn page_size(&self) -> u32 {
        self.page_size
    }
}

/// Why the run of valid frames ends. `frame` is the 0-based index of the frame that is not part
/// of it.
///
/// None of these means damage by itself: a WAL that restarted keeps the frames of its older
/// generation until they are overwritten, and a crash may tear the last transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameEnd {
    /// The frame belongs to another generation.
    #[error("frame {frame} has salts {found}, the WAL header has {expected}")]
    SaltMismatch {
        /// Index of the frame.
        frame: u32,
        /// Salts of the WAL header.
        expected: Salts,
        /// Salts of the frame.
        found: Salts,
    },
    /// The frame names no page.
    #[error("frame {frame} names page 0, which does not exist")]
    ZeroPgno {
        /// Index of the frame.
        frame: u32,
    },
    /// The frame is cut short, or the caller passed something else than one page.
    #[error("frame {frame} has a page of {found} bytes instead of {expected}")]
    Torn {
        /// Index of the frame.
        frame: u32,
        /// Bytes in a page.
        expected: u32,
        /// Bytes there are.
        found: usize,
    },
    /// The bytes of the frame are not those that were written after the frame before it.
    #[error("frame {frame} does not continue the checksum of the frames before it")]
    ChecksumMismatch {
        /// Index of the frame.
        frame: u32,
    },
    /// The count of frames is used up; no WAL that SQLite wrote gets here.
    #[error("the WAL has more than 4294967295 frames")]
    TooManyFrames,
}
