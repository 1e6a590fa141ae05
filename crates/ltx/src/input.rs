//! An input that knows how far it has been read.

use std::io::{self, BufRead, Read};

use crate::Error;

/// Buffered input with a position.
#[derive(Debug)]
pub(crate) struct Input<R> {
    input: R,
    offset: u64,
}

impl<R: BufRead> Input<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, offset: 0 }
    }

    /// Bytes read so far.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads an array; an input that ends before is truncated inside `part`.
    pub(crate) fn array<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes).map_err(|error| self.explain(error, part))?;
        Ok(bytes)
    }

    /// Whether nothing is left.
    pub(crate) fn is_at_end(&mut self) -> Result<bool, Error> {
        Ok(self.buffered()?.is_empty())
    }

    /// What can be had without another copy, up to the end of the input's buffer; nothing at the end.
    pub(crate) fn buffered(&mut self) -> io::Result<&[u8]> {
        loop {
            match self.input.fill_buf() {
                // Whoever asks again at the end may be told something else.
                Ok([]) => return Ok(&[]),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.input.fill_buf()
    }

    /// So many of the buffered bytes were used.
    pub(crate) fn consume(&mut self, length: usize) {
        self.input.consume(length);
        self.offset += length as u64;
    }

    /// An end of the input inside `part` is a fault of the file, any other failure one of reading.
    pub(crate) fn explain(&self, error: io::Error, part: &'static str) -> Error {
        // A source that notices by itself that bytes are missing attaches its own error.
        if error.kind() == io::ErrorKind::UnexpectedEof && error.get_ref().is_none() {
            return Error::Truncated { offset: self.offset, part };
        }
        Error::Io(error)
    }
}

impl<R: BufRead> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.offset += length as u64;
        Ok(length)
    }
}
