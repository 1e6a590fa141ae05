//! Merges a run of LTX files into one that has the same effect.
//!
//! Invariant: applying the merged file gives the same database as applying its inputs in order.
//! All inputs are read to their end and verified before the merge succeeds; on an error the output
//! has no trailer and must be thrown away.
//!
//! Memory: per input one page and one decoder, which is a read buffer of 16 KiB and a compressed
//! page; for the output about ten bytes per page. The size of the files does not matter.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{BufRead, Write};

use crate::{Checksum, Decoder, Encoder, Error, Header, Pgno, Summary, Trailer};

/// What the merged file carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeOptions {
    /// Leave the rolling checksums out, as Litestream wants it. They are left out anyway if any
    /// input has none.
    pub without_checksums: bool,
}

/// Merges files, oldest first. Their ranges of TXIDs may overlap but not leave a gap.
///
/// Returns the writer, which is not flushed, the header of the merged file, and its summary.
/// The merged file has the time of its last input and no WAL fields.
///
/// # Errors
/// If there is no input, inputs do not follow each other or have different page sizes, an input
/// breaks a rule of the format, a page that the result needs is in no input, or writing fails.
pub fn merge<R: BufRead, W: Write>(
    inputs: Vec<Decoder<R>>,
    out: W,
    options: MergeOptions,
) -> Result<(W, Header, Summary), Error> {
    let header = merged_header(&inputs, options)?;
    let mut growth = Growth::new(&inputs, &header);
    let mut encoder = Encoder::new(out, header.clone())?;
    let mut sources = Sources::new(inputs)?;
    while let Some((pgno, newest)) = sources.next() {
        if pgno <= header.commit {
            growth.check(pgno, newest)?;
            encoder.page(pgno, &sources.sources[newest].page)?;
        }
        sources.advance_past(pgno)?;
    }
    growth.check_end()?;
    let last = sources.finish()?;
    let post_apply = last.and_then(|trailer| trailer.post_apply).filter(|_| header.tracking);
    let (out, summary) = encoder.finish(post_apply)?;
    Ok((out, header, summary))
}

/// One input and the page it has read ahead.
struct Source<R> {
    decoder: Decoder<R>,
    page: Vec<u8>,
}

/// All inputs, oldest first, and which page each of them stands at.
struct Sources<R> {
    sources: Vec<Source<R>>,
    /// The least page number on top; of several inputs that stand at it, the newest.
    heads: BinaryHeap<(Reverse<Pgno>, usize)>,
}

impl<R: BufRead> Sources<R> {
    fn new(inputs: Vec<Decoder<R>>) -> Result<Self, Error> {
        let mut sources = Self { sources: Vec::new(), heads: BinaryHeap::new() };
        for (index, decoder) in inputs.into_iter().enumerate() {
            let page = vec![0; decoder.header().page_size.bytes()];
            sources.sources.push(Source { decoder, page });
            sources.advance(index)?;
        }
        Ok(sources)
    }

    /// The least page number at which an input stands, and the newest such input.
    fn next(&self) -> Option<(Pgno, usize)> {
        self.heads.peek().map(|&(Reverse(pgno), index)| (pgno, index))
    }

    /// Moves every input that stands at `pgno` on to its next page.
    fn advance_past(&mut self, pgno: Pgno) -> Result<(), Error> {
        while let Some((_, index)) = self.next().filter(|&(head, _)| head == pgno) {
            self.heads.pop();
            self.advance(index)?;
        }
        Ok(())
    }

    fn advance(&mut self, index: usize) -> Result<(), Error> {
        let Source { decoder, page } = &mut self.sources[index];
        if let Some(pgno) = decoder.next_page(page)? {
            self.heads.push((Reverse(pgno), index));
        }
        Ok(())
    }

    /// Verifies all inputs and returns the trailer of the last.
    fn finish(self) -> Result<Option<Trailer>, Error> {
        let mut before: Option<(Header, Trailer)> = None;
        for Source { decoder, .. } in self.sources {
            let header = decoder.header().clone();
            let trailer = decoder.finish()?;
            if let Some((before, trailer)) = &before {
                check_chain(before, trailer, &header)?;
            }
            before = Some((header, trailer));
        }
        Ok(before.map(|(_, trailer)| trailer))
    }
}

/// A file that begins where the one before it ends begins with the state that the other leaves.
/// Where ranges overlap, or one of the files has no checksums, there is nothing to compare.
fn check_chain(before: &Header, trailer: &Trailer, next: &Header) -> Result<(), Error> {
    let (Some(found), Some(expected)) = (trailer.post_apply, next.pre_apply) else {
        return Ok(());
    };
    if next.min_txid != before.max_txid.next() || found == expected {
        return Ok(());
    }
    Err(Error::BrokenChain { min: next.min_txid, max: next.max_txid, expected, found })
}

/// Follows the pages by which the database grew between the inputs.
///
/// A file that makes the database larger has all new pages, though nothing in the file itself
/// tells how large it was before. If one is missing, an older file may still have a page of that
/// number, from before the database shrank: with it the merged file would restore a database that
/// never was.
struct Growth {
    /// For each input the least size that the database had after a later one, in pages.
    least_after: Vec<Pgno>,
    /// The pages after this one, up to the end, all came in with one of the inputs.
    known: Pgno,
    commit: Pgno,
    lock_page: Pgno,
}

impl Growth {
    fn new<R: BufRead>(inputs: &[Decoder<R>], merged: &Header) -> Self {
        let commits = inputs.iter().map(|decoder| decoder.header().commit);
        let mut least = Pgno::MAX;
        let mut least_after: Vec<Pgno> = commits
            .rev()
            .map(|commit| {
                let after = least;
                least = least.min(commit);
                after
            })
            .collect();
        least_after.reverse();
        Self {
            least_after,
            known: least,
            commit: merged.commit,
            lock_page: merged.page_size.lock_page(),
        }
    }

    /// The merged file gets `pgno` next, from the input at `index`.
    fn check(&mut self, pgno: Pgno, index: usize) -> Result<(), Error> {
        match self.missing() {
            Some(missing) if pgno > missing => Err(Error::MissingGrowth { pgno: missing }),
            _ if pgno > self.least_after[index] => Err(Error::MissingGrowth { pgno }),
            _ => {
                self.known = self.known.max(pgno);
                Ok(())
            }
        }
    }

    /// The merged file gets no more pages.
    fn check_end(&self) -> Result<(), Error> {
        match self.missing() {
            Some(pgno) => Err(Error::MissingGrowth { pgno }),
            None => Ok(()),
        }
    }

    /// The first page that has yet to come.
    fn missing(&self) -> Option<Pgno> {
        let mut next = self.known.checked_add(1)?;
        if next == self.lock_page {
            next += 1;
        }
        (next <= self.commit).then_some(next)
    }
}

fn merged_header<R: BufRead>(
    inputs: &[Decoder<R>],
    options: MergeOptions,
) -> Result<Header, Error> {
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
    let pre_apply: Option<Checksum> = first.pre_apply.filter(|_| tracking);
    Ok(Header {
        tracking,
        timestamp_ms: last.timestamp_ms,
        pre_apply,
        ..Header::new(first.page_size, last.commit, first.min_txid, last.max_txid)
    })
}
