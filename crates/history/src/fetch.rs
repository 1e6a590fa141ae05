//! Files on their way from storage, in order, in pieces.
//!
//! Invariant: pieces arrive in the order of the files and of their bytes, and all pieces of a file
//! are of one object. A piece that breaks off is asked for again alone. At most [`PIECE`] bytes for
//! each request that is allowed at once are in memory, and two pieces more.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use walrust_engine::StoredFile;
use walrust_storage::{ObjectMeta, ObjectStore, StorageError};

use crate::patiently;

/// Requests of a restore at once, unless it is told otherwise.
pub const DEFAULT_PARALLELISM: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not zero");

/// Bytes of a piece. A file up to this size is one.
const PIECE: u64 = 1 << 20;

/// A piece of a file.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    /// What storage says of the object.
    pub(crate) meta: Arc<ObjectMeta>,
    /// Whether it is the last one of its file.
    pub(crate) is_last: bool,
}

/// A piece that is being fetched.
pub(crate) type Fetching = AbortOnDropHandle<Result<Piece, StorageError>>;

/// Fetches files. Each piece is given out as soon as its request is sent, and no more requests are
/// sent while `parallelism` of them have not been taken.
pub(crate) fn fetch(
    store: Arc<dyn ObjectStore>,
    files: Vec<StoredFile>,
    parallelism: NonZeroUsize,
) -> mpsc::Receiver<Result<Fetching, StorageError>> {
    // One waits to be given out, and the receiver works on another.
    let (sender, receiver) = mpsc::channel(parallelism.get());
    tokio::spawn(async move {
        for file in files {
            let pieces = match pieces(&store, file).await {
                Ok(pieces) => pieces,
                Err(error) => {
                    // If the receiver is gone, nobody wants to know.
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            };
            for request in pieces {
                let Ok(place) = sender.reserve().await else { return };
                let piece = request.send(Arc::clone(&store));
                place.send(Ok(AbortOnDropHandle::new(tokio::spawn(piece))));
            }
        }
    });
    receiver
}

/// What is to be asked for.
struct Request {
    key: String,
    /// The part of an object that was described; else all of it.
    part: Option<(Range<u64>, Arc<ObjectMeta>)>,
    is_last: bool,
}

async fn pieces(
    store: &Arc<dyn ObjectStore>,
    file: StoredFile,
) -> Result<impl Iterator<Item = Request>, StorageError> {
    let meta = match file.size > PIECE {
        true => Some(Arc::new(patiently(|| store.head(&file.key)).await?)),
        false => None,
    };
    let size = meta.as_ref().map_or(0, |meta| meta.size);
    let starts = (0..size.max(1)).step_by(usize::try_from(PIECE).expect("a mebibyte"));
    Ok(starts.map(move |start| {
        let end = size.min(start + PIECE);
        let part = meta.as_ref().map(|meta| (start..end, Arc::clone(meta)));
        Request { key: file.key.clone(), part, is_last: end == size }
    }))
}

impl Request {
    async fn send(self, store: Arc<dyn ObjectStore>) -> Result<Piece, StorageError> {
        let Self { key, part, is_last } = self;
        let Some((range, meta)) = part else {
            let (bytes, meta) = patiently(async || {
                let object = store.get(&key).await?;
                let meta = Arc::new(object.meta.clone());
                Ok((object.bytes().await?, meta))
            })
            .await?;
            return Ok(Piece { bytes, meta, is_last });
        };
        let bytes = patiently(|| store.get_part(&key, range.clone(), &meta.etag)).await?;
        Ok(Piece { bytes, meta, is_last })
    }
}
