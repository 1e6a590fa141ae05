//! The blocks of the wal-index: which page each frame holds, and a hash table that finds the frames
//! of a page (sqlite.org/walformat.html, section 2.2, and `walIndexAppend` in `wal.c`).
//!
//! Invariant: the bytes of a block follow from the pages of its frames, in order. So a block that is
//! made anew with more frames has the same bytes for the frames that it had before, and may be
//! written over the old one while readers look into it.

/// Entries of a hash table, twice as many as frames.
const SLOTS: usize = 8192;
/// Frames of every block but the first.
const FRAMES: u32 = 4096;
/// Bytes of the header, which the first block has in place of some frames.
const HEADER: usize = crate::WalIndex::SIZE;
/// Frames of the first block.
const FRAMES_OF_FIRST: u32 = FRAMES - HEADER as u32 / 4;
/// The multiplier of the hash.
const HASH: u32 = 383;

/// One block of the wal-index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalIndexBlock {
    index: u32,
}

impl WalIndexBlock {
    /// Bytes of a block.
    pub const SIZE: usize = 32 * 1024;

    /// The block that has the frame with this number, from 1 on.
    #[must_use]
    pub fn of_frame(frame: u32) -> Self {
        debug_assert!(frame > 0, "frames are counted from 1 on");
        Self { index: (frame + FRAMES - FRAMES_OF_FIRST - 1) / FRAMES }
    }

    /// Number of its first frame, from 1 on.
    #[must_use]
    pub fn first_frame(self) -> u32 {
        match self.index {
            0 => 1,
            index => FRAMES_OF_FIRST + (index - 1) * FRAMES + 1,
        }
    }

    /// Number of its last frame.
    #[must_use]
    pub fn last_frame(self) -> u32 {
        FRAMES_OF_FIRST + self.index * FRAMES
    }

    /// The block after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self { index: self.index + 1 }
    }

    /// Where its list of pages begins in the `-shm` file: a native-endian `u32` for each frame.
    #[must_use]
    pub fn offset(self) -> u64 {
        let header = if self.index == 0 { HEADER } else { 0 };
        u64::from(self.index) * Self::SIZE as u64 + header as u64
    }

    /// The bytes from [`offset`](Self::offset) to the end of the block. `pages` are the pages of
    /// its frames, from the first on; the rest is empty.
    ///
    /// # Panics
    /// If the block has not so many frames.
    #[must_use]
    pub fn bytes(self, pages: &[u32]) -> Vec<u8> {
        let frames = (self.last_frame() - self.first_frame() + 1) as usize;
        assert!(pages.len() <= frames, "{} frames in a block of {frames}", pages.len());
        let mut bytes = vec![0; frames * 4 + SLOTS * 2];
        let (list, slots) = bytes.split_at_mut(frames * 4);
        for (index, pgno) in pages.iter().enumerate() {
            list[index * 4..][..4].copy_from_slice(&pgno.to_ne_bytes());
            let mut slot = pgno.wrapping_mul(HASH) as usize % SLOTS;
            while slots[slot * 2..][..2] != [0, 0] {
                slot = (slot + 1) % SLOTS;
            }
            // At most half of the slots are taken, so the search ends; and 4096 fits 16 bits.
            slots[slot * 2..][..2].copy_from_slice(&(index as u16 + 1).to_ne_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_follow_one_another() {
        let first = WalIndexBlock::of_frame(1);
        assert_eq!((first.first_frame(), first.last_frame(), first.offset()), (1, 4062, 136));
        assert_eq!(WalIndexBlock::of_frame(4062), first);
        let second = WalIndexBlock::of_frame(4063);
        assert_eq!(second, first.next());
        assert_eq!((second.first_frame(), second.last_frame()), (4063, 8158));
        assert_eq!(second.offset(), 32 * 1024);
        assert_eq!(WalIndexBlock::of_frame(8159), second.next());
    }

    #[test]
    fn every_block_ends_where_the_next_begins() {
        for block in [WalIndexBlock::of_frame(1), WalIndexBlock::of_frame(9000)] {
            let end = block.offset() + block.bytes(&[]).len() as u64;
            assert_eq!(end % WalIndexBlock::SIZE as u64, 0);
        }
    }
}
