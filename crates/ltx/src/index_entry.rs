//! One entry of a page index: where the frame of a page is.

use crate::{Pgno, varint};

/// Where one page is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The page.
    pub pgno: Pgno,
    /// Where its frame begins, in bytes from the start of the file.
    pub offset: u64,
    /// Size of its frame in bytes, with the page header.
    pub size: u64,
}

impl IndexEntry {
    /// Appends the entry as it is stored: three variable-length numbers.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        varint::write(u64::from(self.pgno), out);
        varint::write(self.offset, out);
        varint::write(self.size, out);
    }
}
