//! Reads files that are on their way from storage, on a thread that may wait.
//!
//! Invariant: what is read is what arrived, in order, and a failure of storage is kept for the caller
//! as the failure that it is: a reader in between can only say that reading failed.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use walrust_storage::{ObjectMeta, StorageError};

use crate::fetch::{Fetching, Piece};

/// The bytes of one file after another. Each part is shown to `observe` before it is read.
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

impl<O: FnMut(&Bytes) -> io::Result<()>> BufRead for PieceReader<O> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        loop {
            match &mut self.piece {
                Some(piece) if piece.bytes.front().is_some_and(Bytes::is_empty) => {
                    piece.bytes.pop_front();
                    continue;
                }
                Some(piece) if piece.is_last || !piece.bytes.is_empty() => break,
                _ => {}
            }
            let piece = match self.next_piece() {
                Some(Ok(piece)) => piece,
                Some(Err(error)) => {
                    self.failure = Some(error);
                    return Err(io::Error::other("storage failed"));
                }
                None => return Err(io::Error::other("the program ends")),
            };
            piece.bytes.iter().try_for_each(&mut self.observe)?;
            self.piece = Some(piece);
        }
        let part = self.piece.as_ref().and_then(|piece| piece.bytes.front());
        Ok(part.map_or(&[], |part| part))
    }

    fn consume(&mut self, length: usize) {
        if let Some(part) = self.piece.as_mut().and_then(|piece| piece.bytes.front_mut()) {
            part.advance(length);
        }
    }
}

impl<O: FnMut(&Bytes) -> io::Result<()>> Read for PieceReader<O> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}
