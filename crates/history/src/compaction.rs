//! Merges files of a history into a larger one in storage.
//!
//! Invariant: a merged file is in storage only if every one of its sources was read to its end and
//! verified, and it is reported as merged only if it was read back from storage as it was written.
//! Its sources are not touched here. A crash leaves a whole merged file or none.
//!
//! Memory does not depend on the files: they lie on the local disk, [`WIDTH`] of them at a time, and
//! each needs a page and a read buffer while they are merged; the results of these merges are merged
//! in turn. A source that is damaged, or that does not continue the one before it, is found and
//! named; the caller leaves it where it is and merges what is before and behind it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Seek};

use futures_util::StreamExt;
use walrust_engine::manifest::FileEntry;
use walrust_engine::{ErrorClass, Merge, object_key};
use walrust_ltx::{Decoder, FileName, Header, MergeOptions, Mode, Trailer, merge};
use walrust_storage::{Condition, Metadata, ObjectStore};

use crate::scratch::{Fetched, HashingWriter, ScratchFile, blocking, fetch, scratch_error};
use crate::{
    HistoryError, MERGED_SINCE, RetentionProblem, SHA256, WRITER, describe_file, patiently,
};

/// Files that are merged at once.
const WIDTH: usize = 64;
/// Files that are fetched ahead of their turn.
const AHEAD: usize = 4;

/// How a merge ended.
#[derive(Debug)]
pub(crate) enum Merged {
    /// Storage has the merged file.
    Stored(FileEntry),
    /// A source cannot take part; what is before and behind it can.
    Odd {
        /// Its place among the sources.
        index: usize,
        /// Whether it can begin another merge: it is whole, but does not continue what is before it.
        begins: bool,
        problem: RetentionProblem,
    },
    /// These sources cannot be merged, and it is not the fault of one of them.
    Impossible(RetentionProblem),
}

/// Merges files of a history and stores the result, signed by a writer of the name. `recorded` is
/// what the manifest knows of the sources.
///
/// # Errors
/// If storage or the local disk fails.
pub(crate) async fn store_merged(
    store: &dyn ObjectStore,
    name: &str,
    plan: &Merge,
    recorded: &BTreeMap<FileName, FileEntry>,
    writer: &str,
) -> Result<Merged, HistoryError> {
    let merged = match merge_sources(store, name, plan, recorded).await? {
        Ok(merged) => merged,
        Err((index, problem)) => return Ok(Merged::Odd { index, begins: false, problem }),
    };
    let Some(Output { file, header, trailer, size, sha256 }) = merged else {
        return find_odd(store, name, plan).await;
    };
    let key = object_key(name, plan.into);
    let (Some(post_apply), true) = (trailer.post_apply, header.file_name() == plan.into) else {
        return Ok(Merged::Impossible(RetentionProblem::NotMergeable { key }));
    };
    let first = recorded.get(&plan.sources[0]);
    let merged_since =
        first.map(|first| first.merged_since.clone().unwrap_or_else(|| first.created.clone()));
    let mut metadata = Metadata::from([
        (SHA256.to_owned(), sha256.clone()),
        (WRITER.to_owned(), writer.to_owned()),
    ]);
    metadata.extend(merged_since.clone().map(|since| (MERGED_SINCE.to_owned(), since)));
    let path = file.path();
    let put = || store.put_file(&key, &path, &metadata, &Condition::IfAbsent);
    match patiently(put).await {
        // An earlier attempt may have stored it: what is there is compared.
        Err(error) if error.class() != ErrorClass::Precondition => return Err(error.into()),
        _ => {}
    }
    if fetch(store, &key).await?.sha256 != sha256 {
        return Ok(Merged::Impossible(RetentionProblem::OtherObject { key }));
    }
    let entry = describe_file(plan.into, &header, post_apply, size, sha256);
    Ok(Merged::Stored(FileEntry { merged_since, ..entry }))
}

/// A merged file on the local disk.
struct Output {
    file: ScratchFile,
    header: Header,
    trailer: Trailer,
    size: u64,
    sha256: String,
}

/// A source that has other bytes than were stored, and its place.
type OddSource = (usize, RetentionProblem);

/// Fetches and merges files; nothing if they do not fit together, or one of them is damaged.
async fn merge_sources(
    store: &dyn ObjectStore,
    name: &str,
    plan: &Merge,
    recorded: &BTreeMap<FileName, FileEntry>,
) -> Result<Result<Option<Output>, OddSource>, HistoryError> {
    let keys: Vec<String> = plan.sources.iter().map(|file| object_key(name, *file)).collect();
    let fetches = keys.clone().into_iter().map(|key| async move { fetch(store, &key).await });
    let mut fetches = futures_util::stream::iter(fetches).buffered(AHEAD).enumerate();
    let (mut files, mut layer) = (Vec::new(), Vec::new());
    while let Some((index, fetched)) = fetches.next().await {
        let Fetched { file, sha256, expected } = fetched?;
        let recorded = recorded.get(&plan.sources[index]).map(|entry| &entry.sha256);
        let known = [expected.as_ref(), recorded.filter(|sha256| !sha256.is_empty())];
        if known.into_iter().flatten().any(|known| *known != sha256) {
            let key = keys[index].clone();
            return Ok(Err((index, RetentionProblem::WrongSha256 { key })));
        }
        files.push(file);
        if files.len() == WIDTH && index + 1 < keys.len() {
            let Some(output) = merge_files(std::mem::take(&mut files)).await? else {
                return Ok(Ok(None));
            };
            layer.push(output.file.into_file());
        }
    }
    layer.append(&mut files);
    while layer.len() > WIDTH {
        let mut rest = layer.into_iter();
        layer = Vec::new();
        loop {
            let chunk: Vec<File> = rest.by_ref().take(WIDTH).collect();
            if chunk.is_empty() {
                break;
            }
            let Some(output) = merge_files(chunk).await? else { return Ok(Ok(None)) };
            layer.push(output.file.into_file());
        }
    }
    Ok(Ok(merge_files(layer).await?))
}

/// Merges files on the local disk; nothing if that is not possible.
async fn merge_files(files: Vec<File>) -> Result<Option<Output>, HistoryError> {
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
            Err(_) => return Ok(None),
        };
        let sha256 = writer.finish().map_err(failed)?;
        let (trailer, size) = (summary.trailer, summary.size);
        Ok(Some(Output { file: out, header, trailer, size, sha256 }))
    };
    blocking(work).await
}

/// Looks for the source that is damaged or does not continue the one before it.
async fn find_odd(
    store: &dyn ObjectStore,
    name: &str,
    plan: &Merge,
) -> Result<Merged, HistoryError> {
    let mut before: Option<Trailer> = None;
    for (index, source) in plan.sources.iter().enumerate() {
        let key = object_key(name, *source);
        let file = fetch(store, &key).await?.file;
        let (header, trailer) = match verify(file).await {
            Ok((header, _)) if header.file_name() != *source => {
                let problem = RetentionProblem::NotLtx { key };
                return Ok(Merged::Odd { index, begins: false, problem });
            }
            Ok(ends) => ends,
            Err(source) => {
                let problem = RetentionProblem::Damaged { key, source: source.into() };
                return Ok(Merged::Odd { index, begins: false, problem });
            }
        };
        if let Some(before) = before
            && header.pre_apply != before.post_apply
        {
            let problem = RetentionProblem::BrokenChain { key };
            return Ok(Merged::Odd { index, begins: true, problem });
        }
        before = Some(trailer);
    }
    let key = object_key(name, plan.into);
    Ok(Merged::Impossible(RetentionProblem::NotMergeable { key }))
}

/// Reads a file to its end.
pub(crate) async fn verify(file: File) -> Result<(Header, Trailer), walrust_ltx::Error> {
    let work = move || {
        let mut decoder = Decoder::new(BufReader::new(file), Mode::Strict)?;
        let header = decoder.header().clone();
        let mut page = vec![0; header.page_size.bytes()];
        while decoder.next_page(&mut page)?.is_some() {}
        Ok((header, decoder.finish()?))
    };
    blocking(work).await
}
