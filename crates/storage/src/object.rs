//! An object that is being read.
//!
//! Invariant: the body gives all bytes of the object or an error. Servers and proxies close
//! connections in the middle of a body, and some files shrink while they are read; both must not
//! look like a shorter object.

use std::fmt;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::{ObjectMeta, StorageError};

/// An object that is being read.
pub struct Object {
    /// What the store knows about it.
    pub meta: ObjectMeta,
    /// Its bytes. Errors carry a [`StorageError`], which `io::Error::downcast` brings back.
    pub body: Pin<Box<dyn AsyncRead + Send + Unpin>>,
}

impl Object {
    pub(crate) fn new(
        meta: ObjectMeta,
        body: impl AsyncRead + Send + Unpin + 'static,
        to_error: impl Fn(io::Error) -> StorageError + Send + Unpin + 'static,
    ) -> Self {
        let body = WholeBody { missing: meta.size, body, to_error };
        Self { meta, body: Box::pin(body) }
    }

    /// Reads the whole body into memory.
    ///
    /// # Errors
    /// If the body breaks off.
    pub async fn bytes(mut self) -> Result<Bytes, StorageError> {
        // A size is what a server says: it is no reason to reserve gigabytes at once.
        let capacity = usize::try_from(self.meta.size).unwrap_or(usize::MAX).min(1 << 20);
        let mut bytes = Vec::with_capacity(capacity);
        match self.body.read_to_end(&mut bytes).await {
            Ok(_) => Ok(bytes.into()),
            Err(error) => Err(error.downcast().unwrap_or_else(|error| {
                StorageError::from_io("get", String::new(), &self.meta.key, error)
            })),
        }
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("meta", &self.meta).finish_non_exhaustive()
    }
}

/// Passes a body on and fails if it is longer or shorter than announced.
struct WholeBody<R, F> {
    body: R,
    /// Bytes that the store has announced and not given yet.
    missing: u64,
    to_error: F,
}

impl<R, F> WholeBody<R, F>
where
    F: Fn(io::Error) -> StorageError,
{
    fn fail(&self, error: io::Error) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::Error::new(error.kind(), (self.to_error)(error))))
    }
}

impl<R, F> AsyncRead for WholeBody<R, F>
where
    R: AsyncRead + Unpin,
    F: Fn(io::Error) -> StorageError + Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.body).poll_read(context, buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => this.fail(error),
            Poll::Ready(Ok(())) => {
                let length = (buffer.filled().len() - before) as u64;
                match this.missing.checked_sub(length) {
                    None => this.fail(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the body is longer than announced",
                    )),
                    Some(missing) if length == 0 && missing > 0 => this.fail(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("the body broke off, {missing} bytes are missing"),
                    )),
                    Some(missing) => {
                        this.missing = missing;
                        Poll::Ready(Ok(()))
                    }
                }
            }
        }
    }
}

/// Why a range cannot be read.
pub(crate) fn past_the_end(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}..{} are wanted, but the object has {size}", range.start, range.end)
}
