//! The trailer of an LTX file: the last 16 bytes.

use crate::header::checksum_field;
use crate::{Checksum, Error, Header};

/// The trailer of an LTX file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Rolling checksum of the database after the file; none without tracking.
    pub post_apply: Option<Checksum>,
    /// Checksum of the file itself.
    pub file_checksum: Checksum,
}

impl Trailer {
    /// Size of a trailer in bytes.
    pub const SIZE: usize = 16;
}

/// Whether a post-apply checksum fits its file.
pub(crate) fn check_post_apply(header: &Header, post_apply: Option<Checksum>) -> Result<(), Error> {
    let rule = match post_apply {
        Some(_) if !header.tracking => "a file without tracking has none",
        None if header.tracking => "a file with tracking has one",
        Some(checksum) if header.commit == 0 && checksum != Checksum::EMPTY => {
            "that of a deleted database is 8000000000000000"
        }
        None if header.commit == 0 => "a deleted database needs tracking",
        _ => return Ok(()),
    };
    let found = post_apply.map_or(0, Checksum::raw);
    Err(Error::BadChecksumField { field: "the post-apply checksum", found, rule })
}

/// The post-apply checksum as it is stored.
pub(crate) fn post_apply_field(raw: u64) -> Result<Option<Checksum>, Error> {
    checksum_field(raw, "the post-apply checksum")
}
