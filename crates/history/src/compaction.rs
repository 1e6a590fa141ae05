//! Merges files of a history into larger ones.
//!
//! Invariant: a merged file is given only if every one of its sources was read to its end and verified.
//! Nothing in storage is changed here, and each source is fetched once.
//!
//! Memory does not depend on the files: they lie on the local disk, [`WIDTH`] of them at a time, and
//! each needs a page and a read buffer while they are merged; the results of these merges are merged
//! in turn. A source that is damaged, or that does not continue the one before it, is named, and what
//! is before and after it is merged without it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufReader, BufWriter, Seek};
use std::sync::Arc;
use std::{fs::File, mem};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use walrust_engine::manifest::FileEntry;
use walrust_engine::object_key;
use walrust_ltx::{Decoder, FileName, Header, MergeOptions, Mode, Trailer, merge};
use walrust_storage::ObjectStore;

use crate::scratch::{Fetched, HashingWriter, ScratchFile, blocking, fetch, scratch_error};
use crate::{HistoryError, RetentionProblem};

/// Files that are merged at once.
const WIDTH: usize = 64;
/// Files that are fetched ahead of their turn.
const AHEAD: usize = 4;

/// What comes of some of the sources of a merge.
#[derive(Debug)]
pub(crate) enum Part {
    /// These are one file.
    Merged(Merged),
    /// A source has no part in a merge, or some sources give no file.
    Odd(RetentionProblem),
}

/// Sources that were merged.
#[derive(Debug)]
pub(crate) struct Merged {
    /// Two at least, oldest first.
    pub(crate) sources: Vec<FileName>,
    /// The result.
    pub(crate) output: Output,
    /// Whether the first of them does not continue what is before it.
    pub(crate) is_broken_off: bool,
}

/// A merged file on the local disk.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) file: ScratchFile,
    pub(crate) header: Header,
    pub(crate) trailer: Trailer,
    pub(crate) size: u64,
    /// SHA-256 of its bytes, hex.
    pub(crate) sha256: String,
}

/// A merge under way.
pub(crate) struct Merging<'a> {
    name: &'a str,
    recorded: &'a BTreeMap<FileName, FileEntry>,
    /// The sources that were not fetched yet.
    sources: std::slice::Iter<'a, FileName>,
    fetches: BoxStream<'a, Result<Fetched, HistoryError>>,
    /// Sources that were fetched and not merged.
    pending: Vec<Source>,
    group: Group,
    /// What is to be told.
    parts: VecDeque<Part>,
    is_over: bool,
}

struct Source {
    name: FileName,
    file: Arc<File>,
}

/// Sources that continue one another and are merged in part.
#[derive(Default)]
struct Group {
    sources: Vec<FileName>,
    /// Each has some of them.
    layer: Vec<Output>,
    is_broken_off: bool,
}

impl Group {
    /// Whether a file continues it.
    fn leads_to(&self, header: &Header) -> bool {
        let last = self.layer.last();
        last.is_none_or(|last| last.trailer.post_apply == header.pre_apply)
    }
}

impl<'a> Merging<'a> {
    /// Begins to merge files of a history. `recorded` is what the manifest knows of them.
    pub(crate) fn new(
        store: &'a dyn ObjectStore,
        name: &'a str,
        sources: &'a [FileName],
        recorded: &'a BTreeMap<FileName, FileEntry>,
    ) -> Self {
        let fetches = sources
            .iter()
            .map(move |source| async move { fetch(store, &object_key(name, *source)).await });
        Self {
            name,
            recorded,
            sources: sources.iter(),
            fetches: futures_util::stream::iter(fetches).buffered(AHEAD).boxed(),
            pending: Vec::new(),
            group: Group::default(),
            parts: VecDeque::new(),
            is_over: false,
        }
    }

    /// What comes next; nothing after the last.
    ///
    /// # Errors
    /// If storage or the local disk fails.
    pub(crate) async fn next(&mut self) -> Result<Option<Part>, HistoryError> {
        loop {
            if let Some(part) = self.parts.pop_front() {
                return Ok(Some(part));
            }
            match self.fetches.next().await {
                Some(fetched) => self.take(fetched?).await?,
                None if self.is_over => return Ok(None),
                None => {
                    self.is_over = true;
                    self.merge_pending().await?;
                    self.close().await?;
                }
            }
        }
    }

    async fn take(&mut self, fetched: Fetched) -> Result<(), HistoryError> {
        let Fetched { file, sha256, expected, .. } = fetched;
        let name = *self.sources.next().expect("one was fetched for each source");
        let recorded = self.recorded.get(&name).map(|entry| &entry.sha256);
        let known = [expected.as_ref(), recorded.filter(|sha256| !sha256.is_empty())];
        if known.into_iter().flatten().any(|known| *known != sha256) {
            self.merge_pending().await?;
            let key = object_key(self.name, name);
            return self.leave_out(RetentionProblem::WrongSha256 { key }).await;
        }
        self.pending.push(Source { name, file: Arc::new(file) });
        if self.pending.len() == WIDTH { self.merge_pending().await } else { Ok(()) }
    }

    /// Merges what was fetched into one file of the group.
    async fn merge_pending(&mut self) -> Result<(), HistoryError> {
        let pending = mem::take(&mut self.pending);
        let (Some(first), Some(last)) = (pending.first(), pending.last()) else { return Ok(()) };
        let range = FileName { min: first.name.min, max: last.name.max };
        match merge_files(pending.iter().map(|source| Arc::clone(&source.file)).collect()).await? {
            Ok(output)
                if output.header.file_name() == range && self.group.leads_to(&output.header) =>
            {
                self.group.sources.extend(pending.iter().map(|source| source.name));
                self.group.layer.push(output);
                Ok(())
            }
            _ => self.merge_without_odd(pending).await,
        }
    }

    /// Looks at each source, and merges those that fit together.
    async fn merge_without_odd(&mut self, pending: Vec<Source>) -> Result<(), HistoryError> {
        let mut fitting: Vec<Source> = Vec::new();
        let mut before = self.group.layer.last().map(|last| last.trailer.post_apply);
        for source in pending {
            let key = object_key(self.name, source.name);
            let problem = match verify(Arc::clone(&source.file)).await? {
                Ok((header, trailer)) if header.file_name() == source.name => {
                    let is_linked = before.is_none_or(|before| before == header.pre_apply);
                    before = Some(trailer.post_apply);
                    if !is_linked {
                        self.merge_fitting(mem::take(&mut fitting)).await?;
                        self.leave_out(RetentionProblem::BrokenChain { key }).await?;
                        self.group.is_broken_off = true;
                    }
                    fitting.push(source);
                    continue;
                }
                Ok(_) => RetentionProblem::NotLtx { key },
                Err(source) => RetentionProblem::Damaged { key, source: source.into() },
            };
            self.merge_fitting(mem::take(&mut fitting)).await?;
            self.leave_out(problem).await?;
            before = None;
        }
        self.merge_fitting(fitting).await
    }

    /// Merges sources that continue the group into one file of it.
    async fn merge_fitting(&mut self, fitting: Vec<Source>) -> Result<(), HistoryError> {
        let names: Vec<FileName> = fitting.iter().map(|source| source.name).collect();
        let ([first, ..], [.., last]) = (&names[..], &names[..]) else { return Ok(()) };
        let key = object_key(self.name, FileName { min: first.min, max: last.max });
        match merge_files(fitting.into_iter().map(|source| source.file).collect()).await? {
            Ok(output) => {
                self.group.sources.extend(names);
                self.group.layer.push(output);
                Ok(())
            }
            Err(source) => {
                let source = source.into();
                self.leave_out(RetentionProblem::NotMergeable { key, source }).await
            }
        }
    }

    /// Tells of a source that has no part in a merge; the next begins another group.
    async fn leave_out(&mut self, problem: RetentionProblem) -> Result<(), HistoryError> {
        self.close().await?;
        self.parts.push_back(Part::Odd(problem));
        Ok(())
    }

    /// Makes one file of the group, if it has more than one source.
    async fn close(&mut self) -> Result<(), HistoryError> {
        let Group { sources, mut layer, is_broken_off } = mem::take(&mut self.group);
        let ([first, _, ..], [.., last]) = (&sources[..], &sources[..]) else { return Ok(()) };
        let key = object_key(self.name, FileName { min: first.min, max: last.max });
        while layer.len() > 1 {
            let mut rest = mem::take(&mut layer).into_iter();
            loop {
                let chunk = rest.by_ref().take(WIDTH).map(|output| output.file.into_file().into());
                let chunk: Vec<Arc<File>> = chunk.collect();
                if chunk.is_empty() {
                    break;
                }
                match merge_files(chunk).await? {
                    Ok(output) => layer.push(output),
                    Err(source) => {
                        let source = source.into();
                        let problem = RetentionProblem::NotMergeable { key, source };
                        self.parts.push_back(Part::Odd(problem));
                        return Ok(());
                    }
                }
            }
        }
        let merged = layer.pop().map(|output| Merged { sources, output, is_broken_off });
        self.parts.extend(merged.map(Part::Merged));
        Ok(())
    }
}

/// Merges files on the local disk; an error of the format if that is not possible.
async fn merge_files(
    files: Vec<Arc<File>>,
) -> Result<Result<Output, walrust_ltx::Error>, HistoryError> {
    let failed = |source| scratch_error("merge files", source);
    let work = move || {
        let out = ScratchFile::create().map_err(failed)?;
        let decoders = files.into_iter().map(|mut file| {
            file.rewind()?;
            Decoder::new(BufReader::new(file), Mode::Strict)
        });
        let writer = HashingWriter::new(BufWriter::new(out.file().try_clone().map_err(failed)?));
        let merged = decoders
            .collect::<Result<Vec<_>, _>>()
            .and_then(|decoders| merge(decoders, writer, MergeOptions::default()));
        let (writer, header, summary) = match merged {
            Ok(merged) => merged,
            // A full disk is not the fault of a file.
            Err(walrust_ltx::Error::Io(source)) => return Err(failed(source)),
            Err(error) => return Ok(Err(error)),
        };
        let sha256 = writer.finish().map_err(failed)?;
        let (trailer, size) = (summary.trailer, summary.size);
        Ok(Ok(Output { file: out, header, trailer, size, sha256 }))
    };
    blocking(work).await
}

/// Reads a file on the local disk from its beginning to its end.
pub(crate) async fn verify(
    mut file: Arc<File>,
) -> Result<Result<(Header, Trailer), walrust_ltx::Error>, HistoryError> {
    let work = move || {
        file.rewind()?;
        let mut decoder = Decoder::new(BufReader::new(file), Mode::Strict)?;
        let header = decoder.header().clone();
        let mut page = vec![0; header.page_size.bytes()];
        while decoder.next_page(&mut page)?.is_some() {}
        Ok((header, decoder.finish()?))
    };
    match blocking(work).await {
        Err(walrust_ltx::Error::Io(source)) => Err(scratch_error("verify a file", source)),
        verified => Ok(verified),
    }
}
