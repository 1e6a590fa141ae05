//! A buffered input that knows how far it has been read.

use std::io::{self, BufReader, Read};

use crate::Error;

/// Buffered input with a position.
#[derive(Debug)]
pub(crate) struct Input<R> {
    input: BufReader<R>,
    offset: u64,
}

impl<R: Read> Input<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input: BufReader::with_capacity(64 * 1024, input), offset: 0 }
    }

    /// Bytes read so far.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Fills the buffer; an input that ends before is truncated inside `part`.
    pub(crate) fn fill(&mut self, buffer: &mut [u8], part: &'static str) -> Result<(), Error> {
        self.read_exact(buffer).map_err(|error| self.explain(error, part))
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

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.offset += length as u64;
        Ok(length)
    }
}
