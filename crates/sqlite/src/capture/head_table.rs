//! The page checksums of the bucket's head, made from the files that lead there.
//!
//! Invariant: the table is used only if it adds up to the checksum of the head, so a file that is
//! damaged, missing or of another history changes nothing.

use std::io::BufRead;

use walrust_ltx::{Checksum, Decoder, FileName, Mode, PageSize, Txid};

use crate::DatabaseError;
use crate::page_checksums::PageChecksums;

/// The table of a state in the bucket, on its way to the head.
#[derive(Debug)]
pub struct HeadTable {
    pub(super) table: PageChecksums,
    pub(super) page_size: PageSize,
    pub(super) page_count: u32,
    /// The state that the table describes; `None` before the first file.
    txid: Option<Txid>,
}

impl HeadTable {
    /// An empty table at the path, or the copy of the table of a state.
    pub(super) fn new(
        table: PageChecksums,
        page_size: PageSize,
        from: Option<(Txid, u32)>,
    ) -> Self {
        let (txid, page_count) = from.unzip();
        Self { table, page_size, page_count: page_count.unwrap_or(0), txid }
    }

    /// Takes the checksums of the pages of the next file; `false` if it does not continue the table
    /// or is damaged.
    ///
    /// # Errors
    /// If the table cannot be written.
    pub fn apply(&mut self, name: FileName, input: impl BufRead) -> Result<bool, DatabaseError> {
        let follows = match self.txid {
            Some(txid) => name.min == txid.next(),
            None => name.is_snapshot(),
        };
        let Ok(mut decoder) = Decoder::new(input, Mode::Strict) else { return Ok(false) };
        let header = decoder.header().clone();
        if !follows || header.file_name() != name || header.page_size != self.page_size {
            return Ok(false);
        }
        let mut changes = Vec::new();
        let mut page = vec![0; header.page_size.bytes()];
        loop {
            match decoder.next_page(&mut page) {
                Ok(Some(pgno)) => changes.push((pgno, Checksum::of_page(pgno, &page))),
                Ok(None) => break,
                Err(_) => return Ok(false),
            }
        }
        if decoder.finish().is_err() {
            return Ok(false);
        }
        self.table.apply(&changes, header.commit)?;
        (self.txid, self.page_count) = (Some(name.max), header.commit);
        Ok(true)
    }
}
