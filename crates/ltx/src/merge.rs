//! Merges a run of LTX files into one that has the same effect.
//!
//! Invariant: applying the merged file gives the same database as applying its inputs in order.
//! All inputs are read to their end and verified before the merge succeeds; on an error the output
//! is worthless and must be thrown away.
//!
//! Memory: one page, one decoder and the output's index per input, whatever the size of the files.

use std::io::{Read, Write};

use crate::{Checksum, Decoder, Encoder, Error, Header, Pgno, Summary, Trailer};

/// What the merged file carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeOptions {
    /// Leave the rolling checksums out, as Litestream wants it. They are left out anyway if any
    /// input has none.
    pub without_checksums: bool,
}

/// One input and the page it has read ahead.
struct Source<R> {
    decoder: Decoder<R>,
    page: Vec<u8>,
    pgno: Option<Pgno>,
}

/// Merges files, oldest first. Ranges may overlap but not leave a gap.
///
/// Returns the writer, which is not flushed, the header of the merged file, and its summary.
///
/// # Errors
/// If there is no input, inputs do not follow each other or have different page sizes, an input
/// breaks a rule of the format, a page that the result needs is in no input, or writing fails.
pub fn merge<R: Read, W: Write>(
    inputs: Vec<Decoder<R>>,
    out: W,
    options: MergeOptions,
) -> Result<(W, Header, Summary), Error> {
    let header = merged_header(&inputs, options)?;
    let page_size = header.page_size.bytes();
    let mut encoder = Encoder::new(out, header.clone())?;
    let mut sources = Vec::with_capacity(inputs.len());
    for decoder in inputs {
        let mut source = Source { decoder, page: vec![0; page_size], pgno: None };
        source.advance()?;
        sources.push(source);
    }
    while let Some(pgno) = sources.iter().filter_map(|source| source.pgno).min() {
        // The newest version wins.
        let newest = sources.iter().rposition(|source| source.pgno == Some(pgno));
        let newest = newest.expect("some input has the least page number");
        if pgno <= header.commit {
            encoder.page(pgno, &sources[newest].page)?;
        }
        for source in sources.iter_mut().filter(|source| source.pgno == Some(pgno)) {
            source.advance()?;
        }
    }
    let mut last: Option<Trailer> = None;
    for source in sources {
        last = Some(source.decoder.finish()?);
    }
    let post_apply: Option<Checksum> =
        last.and_then(|trailer| trailer.post_apply).filter(|_| header.tracking);
    let (out, summary) = encoder.finish(post_apply)?;
    Ok((out, header, summary))
}

impl<R: Read> Source<R> {
    fn advance(&mut self) -> Result<(), Error> {
        self.pgno = self.decoder.next_page(&mut self.page)?;
        Ok(())
    }
}

fn merged_header<R: Read>(inputs: &[Decoder<R>], options: MergeOptions) -> Result<Header, Error> {
    let headers: Vec<&Header> = inputs.iter().map(Decoder::header).collect();
    let (Some(first), Some(last)) = (headers.first(), headers.last()) else {
        return Err(Error::NothingToMerge);
    };
    for pair in headers.windows(2) {
        let (before, next) = (pair[0], pair[1]);
        if next.page_size != first.page_size {
            let (first, other) = (first.page_size.get(), next.page_size.get());
            return Err(Error::MixedPageSizes { first, other });
        }
        if next.min_txid > before.max_txid.next() || next.max_txid <= before.max_txid {
            let (min, max) = (next.min_txid, next.max_txid);
            return Err(Error::NotContiguous { after: before.max_txid, min, max });
        }
    }
    let tracking = !options.without_checksums && headers.iter().all(|header| header.tracking);
    Ok(Header {
        tracking,
        page_size: first.page_size,
        commit: last.commit,
        min_txid: first.min_txid,
        max_txid: last.max_txid,
        timestamp_ms: last.timestamp_ms,
        pre_apply: first.pre_apply.filter(|_| tracking),
        wal_offset: 0,
        wal_size: 0,
        wal_salt1: 0,
        wal_salt2: 0,
        node_id: 0,
    })
}
