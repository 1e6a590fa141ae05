//! Writes pages of a database in place, neighbours in one system call.
//!
//! Invariant: after [`PageWriter::flush`] every page that was placed is in the file, at the offset of its
//! number. A page is made where it is written from, so that it is not copied on the way.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use walrust_ltx::Pgno;

use crate::writeback::Writeback;

/// Bytes collected before they are written. The largest page has a quarter of it.
const RUN: usize = 256 * 1024;

/// Pages on their way to a file.
#[derive(Debug, Default)]
pub(crate) struct PageWriter {
    /// Offset of the run in the file.
    offset: u64,
    /// Has the size [`RUN`] from the first page on; only the first `length` bytes are pages.
    run: Vec<u8>,
    length: usize,
    writeback: Writeback,
}

impl PageWriter {
    /// A place for the next page, with what an earlier one has left in it.
    ///
    /// # Errors
    /// If the pages before cannot be written.
    pub(crate) fn place(&mut self, file: &File, page_size: usize) -> io::Result<&mut [u8]> {
        self.run.resize(RUN, 0);
        if self.length + page_size > RUN {
            self.flush(file)?;
        }
        Ok(&mut self.run[self.length..self.length + page_size])
    }

    /// What is in the place is the page with this number.
    ///
    /// # Errors
    /// If the pages before cannot be written.
    pub(crate) fn placed(&mut self, file: &File, page_size: usize, pgno: Pgno) -> io::Result<()> {
        let offset = u64::from(pgno - 1) * page_size as u64;
        if offset != self.offset + self.length as u64 {
            let page = self.length..self.length + page_size;
            self.flush(file)?;
            self.run.copy_within(page, 0);
            self.offset = offset;
        }
        self.length += page_size;
        Ok(())
    }

    /// Writes what was placed and not written yet.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn flush(&mut self, file: &File) -> io::Result<()> {
        let pages = &self.run[..self.length];
        if pages.is_empty() {
            return Ok(());
        }
        file.write_all_at(pages, self.offset)?;
        self.writeback.wrote(file, pages.len())?;
        self.offset += pages.len() as u64;
        self.length = 0;
        Ok(())
    }

    /// Waits for what is on its way to the disk. What was written last may not be there.
    ///
    /// # Errors
    /// If the disk reported one meanwhile.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.writeback.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn pages_in_any_order_are_where_they_belong() {
        let mut file = tempfile::tempfile().unwrap();
        let mut writer = PageWriter::default();
        let pgnos = (1..=130).chain([200, 201, 150, 3]).chain(140..=149);
        for pgno in pgnos.clone() {
            writer.place(&file, 4096).unwrap().fill(pgno as u8);
            writer.placed(&file, 4096, pgno).unwrap();
        }
        writer.flush(&file).unwrap();
        let mut bytes = Vec::new();
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 201 * 4096);
        for (index, page) in bytes.chunks(4096).enumerate() {
            let pgno = index as u32 + 1;
            let expected = if pgnos.clone().any(|it| it == pgno) { pgno as u8 } else { 0 };
            assert!(page.iter().all(|byte| *byte == expected), "page {pgno}");
        }
    }
}
