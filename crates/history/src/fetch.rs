//! Files on their way from storage, in order, in pieces.
//!
//! Invariant: pieces arrive in the order of the files and of their bytes, and all pieces of a file
//! are of one object. A piece that breaks off is asked for again alone. What was asked for and not
//! taken has at most [`AHEAD`] bytes, whatever the number of requests: many small files are fetched at
//! once, or a few large pieces.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;
use walrust_engine::StoredFile;
use walrust_storage::{ObjectMeta, ObjectStore, StorageError};

use crate::patiently;

/// Requests of a restore at once, unless it is told otherwise. Only small files are so many.
pub const DEFAULT_PARALLELISM: NonZeroUsize = NonZeroUsize::new(48).expect("48 is not zero");

/// Bytes of a piece. A file up to this size is one.
const PIECE: u64 = 1 << 20;

/// Bytes that were asked for and not taken, at most.
const AHEAD: u64 = 16 * PIECE;

/// What a file takes of [`AHEAD`] at least: the answer has headers as well.
const LEAST: u64 = 16 << 10;

/// A piece of a file.
#[derive(Debug)]
pub(crate) struct Piece {
    /// In the parts in which they arrived.
    pub(crate) bytes: VecDeque<Bytes>,
    /// What storage says of the object.
    pub(crate) meta: Arc<ObjectMeta>,
    /// Whether it is the last one of its file.
    pub(crate) is_last: bool,
    /// Its part of what may be fetched ahead; goes back when the piece was taken.
    _room: OwnedSemaphorePermit,
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
    let room = Arc::new(Semaphore::new(units(AHEAD) as usize));
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
                let room = Arc::clone(&room).acquire_many_owned(units(request.size)).await;
                let room = room.expect("the semaphore is never closed");
                let Ok(place) = sender.reserve().await else { return };
                let piece = request.send(Arc::clone(&store), room);
                place.send(Ok(AbortOnDropHandle::new(tokio::spawn(piece))));
            }
        }
    });
    receiver
}

/// Bytes as a number of permits.
fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(LEAST)).expect("the most is the number of units that there are")
}

/// What is to be asked for.
struct Request {
    key: String,
    /// Bytes.
    size: u64,
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
    // A file that is fetched as a whole is as long as it was listed, or turns out to be another one.
    let size = meta.as_ref().map_or(file.size, |meta| meta.size);
    let starts = (0..size.max(1)).step_by(usize::try_from(PIECE).expect("a mebibyte"));
    Ok(starts.map(move |start| {
        let end = size.min(start + PIECE);
        let part = meta.as_ref().map(|meta| (start..end, Arc::clone(meta)));
        Request { key: file.key.clone(), size: end - start, part, is_last: end == size }
    }))
}

impl Request {
    async fn send(
        self,
        store: Arc<dyn ObjectStore>,
        room: OwnedSemaphorePermit,
    ) -> Result<Piece, StorageError> {
        let Self { key, part, is_last, .. } = self;
        let Some((range, meta)) = part else {
            let (bytes, meta) = patiently(async || {
                let object = store.get(&key).await?;
                let meta = Arc::new(object.meta.clone());
                Ok((object.bytes().await?, meta))
            })
            .await?;
            return Ok(Piece { bytes: VecDeque::from([bytes]), meta, is_last, _room: room });
        };
        let bytes = patiently(|| store.get_part(&key, range.clone(), &meta.etag)).await?;
        Ok(Piece { bytes: bytes.into(), meta, is_last, _room: room })
    }
}
