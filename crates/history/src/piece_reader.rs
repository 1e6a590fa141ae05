//! Reads files that are on their way from storage, on a thread that may wait.
//!
//! Invariant: what is read is what arrived, in order, and a failure of storage is kept for the caller
//! as the failure that it is: a reader in between can only say that reading failed.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use walrust_storage::{ObjectMeta, StorageError};

use crate::fetch::{Fetching, Piece};

/// The bytes of one file after another. Each piece is shown to `observe` before it is read.
pub(crate) struct PieceReader<O> {
    handle: Handle,
    fetching: mpsc::Receiver<Result<Fetching, StorageError>>,
    /// What is left of the piece that is being read.
    piece: Option<Piece>,
    failure: Option<StorageError>,
    observe: O,
}

impl<O: FnMut(&Bytes) -> io::Result<()>> PieceReader<O> {
    /// Reads what a runtime fetches.
    pub(crate) fn new(
        handle: Handle,
        fetching: mpsc::Receiver<Result<Fetching, StorageError>>,
        observe: O,
    ) -> Self {
        Self { handle, fetching, piece: None, failure: None, observe }
    }

    /// Why reading failed, if storage is the reason.
    pub(crate) fn take_failure(&mut self) -> Option<StorageError> {
        self.failure.take()
    }

    /// From now on the next file is read. Returns what storage says of the one that was read.
    pub(crate) fn end_file(&mut self) -> Option<Arc<ObjectMeta>> {
        self.piece.take().map(|piece| piece.meta)
    }

    /// The next piece; `None` if the runtime ends and fetches nothing more.
    fn next_piece(&mut self) -> Option<Result<Piece, StorageError>> {
        let fetching = match self.fetching.blocking_recv()? {
            Ok(fetching) => fetching,
            Err(error) => return Some(Err(error)),
        };
        match self.handle.block_on(fetching) {
            Ok(piece) => Some(piece),
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => None,
            },
        }
    }
}

impl<O: FnMut(&Bytes) -> io::Result<()>> Read for PieceReader<O> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(piece) = &mut self.piece
                && (!piece.bytes.is_empty() || piece.is_last)
            {
                let length = buffer.len().min(piece.bytes.len());
                piece.bytes.copy_to_slice(&mut buffer[..length]);
                return Ok(length);
            }
            let piece = match self.next_piece() {
                Some(Ok(piece)) => piece,
                Some(Err(error)) => {
                    self.failure = Some(error);
                    return Err(io::Error::other("storage failed"));
                }
                None => return Err(io::Error::other("the program ends")),
            };
            (self.observe)(&piece.bytes)?;
            self.piece = Some(piece);
        }
    }
}
