//! What is wrong with an LTX file, and where.

use std::io;

use crate::{Checksum, Pgno, Txid};

/// A failure to read or write an LTX file.
///
/// Everything but [`Error::Io`] means that the bytes are not those of a valid file, or that the
/// caller asked for a file that would not be valid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file ends too early.
    #[error("the file ends at byte {offset}, inside {part}")]
    Truncated {
        /// Where it ends, in bytes from its start.
        offset: u64,
        /// What was being read.
        part: &'static str,
    },
    /// Something follows the trailer.
    #[error("there are bytes where the file must end")]
    TrailingBytes,
    /// The file does not begin with `LTX1`.
    #[error("not an LTX file: it does not begin with LTX1")]
    BadMagic,
    /// The file has the format of an older version.
    #[error(
        "LTX version {version}, as {writers} wrote it, is not supported; \
         restore it with the program that wrote it"
    )]
    OldVersion {
        /// The version.
        version: u32,
        /// Programs that wrote it.
        writers: &'static str,
    },
    /// A header flag is unknown.
    #[error("unknown header flags {flags:#010x}")]
    BadFlags {
        /// All flags of the header.
        flags: u32,
    },
    /// The page size is not one of SQLite's.
    #[error("{size} is not a page size: it must be a power of two from 512 to 65536")]
    BadPageSize {
        /// The size.
        size: u32,
    },
    /// A TXID is zero, or the range is empty.
    #[error("TXIDs {min:016x}-{max:016x} are not a range from 1 on")]
    BadTxidRange {
        /// First TXID.
        min: u64,
        /// Last TXID.
        max: u64,
    },
    /// The WAL fields contradict each other.
    #[error("the WAL fields of the header contradict each other: {what}")]
    BadWalFields {
        /// What does not fit.
        what: &'static str,
    },
    /// A checksum that must be there is not, or the other way round, or bit 63 is not set.
    #[error("{field} is {found:016x}, but {rule}")]
    BadChecksumField {
        /// Which field.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What it must be.
        rule: &'static str,
    },
    /// A page header has unknown flags, or page number 0.
    #[error("page {pgno} at byte {offset} has flags {flags:#06x}")]
    BadPageHeader {
        /// The page number.
        pgno: Pgno,
        /// Its flags.
        flags: u16,
        /// Where its frame begins.
        offset: u64,
    },
    /// A page is out of place: not ascending, beyond the end, the lock page, or missing.
    #[error("page {pgno} after page {previous}: {why}")]
    PageOutOfPlace {
        /// The page number; one more than the last page if pages are missing at the end.
        pgno: Pgno,
        /// The page before it; 0 if it is the first.
        previous: Pgno,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// A compressed page is larger than any compressor makes it.
    #[error("page {pgno} claims {size} compressed bytes, more than a page can have")]
    PayloadTooLarge {
        /// The page number.
        pgno: Pgno,
        /// Its claim in bytes.
        size: u32,
    },
    /// A compressed page does not decompress to a page.
    #[error("page {pgno} does not decompress to a page: {why}")]
    BadPayload {
        /// The page number.
        pgno: Pgno,
        /// What the decompressor says.
        why: String,
    },
    /// A page given to the encoder, or the buffer given for one, does not have the page size.
    #[error("{found} bytes were given for a page, the page size is {expected}")]
    WrongPageLength {
        /// Bytes given.
        found: usize,
        /// The page size.
        expected: usize,
    },
    /// A file was to be finished, or continued, that was not read or written to the end of its
    /// pages without error.
    #[error("the pages of the file were not all read or written")]
    Unfinished,
    /// The page index does not describe the pages before it.
    #[error("the page index is wrong: {what}")]
    BadIndex {
        /// What does not fit.
        what: &'static str,
    },
    /// The bytes are not those that were written.
    #[error("the file checksum is {stored:016x}, its bytes give {computed}")]
    FileChecksum {
        /// As stored in the trailer.
        stored: u64,
        /// Of the bytes read.
        computed: Checksum,
    },
    /// The post-apply checksum of a snapshot is not that of its pages.
    #[error("the post-apply checksum is {stored}, the pages give {computed}")]
    PostApply {
        /// As stored in, or meant for, the trailer.
        stored: Checksum,
        /// Of the pages.
        computed: Checksum,
    },
    /// There is nothing to merge.
    #[error("there are no files to merge")]
    NothingToMerge,
    /// Files to be merged do not follow each other.
    #[error("the file with TXIDs {min}-{max} does not continue TXID {after}")]
    NotContiguous {
        /// Last TXID of the files before.
        after: Txid,
        /// First TXID of the file.
        min: Txid,
        /// Last TXID of the file.
        max: Txid,
    },
    /// A file to be merged does not begin with the state that the one before it leaves.
    #[error(
        "the file with TXIDs {min}-{max} is for a database with checksum {expected}, not {found}"
    )]
    BrokenChain {
        /// First TXID of the file.
        min: Txid,
        /// Last TXID of the file.
        max: Txid,
        /// Pre-apply checksum of the file.
        expected: Checksum,
        /// Post-apply checksum of the file before.
        found: Checksum,
    },
    /// The database grew between files to be merged, and none of them has all the pages.
    #[error("page {pgno} came into the database with files that do not have it")]
    MissingGrowth {
        /// The first page that is missing.
        pgno: Pgno,
    },
    /// Files to be merged have different page sizes.
    #[error("files with page sizes {first} and {other} cannot be merged")]
    MixedPageSizes {
        /// Of the first file.
        first: u32,
        /// Of another.
        other: u32,
    },
    /// A text is not a TXID, a checksum or a file name.
    #[error("{text:?} is not {what}")]
    Parse {
        /// The text.
        text: String,
        /// What it was to be.
        what: &'static str,
    },
}

impl Error {
    /// Whether reading or writing failed, rather than the bytes being wrong.
    #[must_use]
    pub fn is_io(&self) -> bool {
        matches!(self, Self::Io(_))
    }

    /// Whether a file, or a set of files to be merged, breaks a rule of the format.
    ///
    /// Reading the same bytes again fails again. Neither this nor [`is_io`](Self::is_io) are calls
    /// in the wrong order, buffers of the wrong length, and texts that do not parse.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        !matches!(
            self,
            Self::Io(_)
                | Self::OldVersion { .. }
                | Self::WrongPageLength { .. }
                | Self::Unfinished
                | Self::NothingToMerge
                | Self::Parse { .. }
        )
    }
}

/// Parses exactly 16 lower-case hex digits.
pub(crate) fn parse_hex16(text: &str, what: &'static str) -> Result<u64, Error> {
    let valid = text.len() == 16
        && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
    let error = || Error::Parse { text: text.to_owned(), what };
    if !valid {
        return Err(error());
    }
    u64::from_str_radix(text, 16).map_err(|_| error())
}
