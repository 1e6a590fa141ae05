//! Names of LTX files.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Txid};

/// The name of an LTX file: `<min>-<max>.ltx`, each 16 lower-case hex digits.
///
/// Names sort as their TXIDs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName {
    /// First TXID of the file.
    pub min: Txid,
    /// Last TXID of the file; not before `min`.
    pub max: Txid,
}

impl FileName {
    /// Whether the file holds a whole database: it begins with TXID 1.
    #[must_use]
    pub fn is_snapshot(self) -> bool {
        self.min == Txid::FIRST
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}.ltx", self.min, self.max)
    }
}

impl FromStr for FileName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = || Error::Parse { text: text.to_owned(), what: "the name of an LTX file" };
        let range = text.strip_suffix(".ltx").ok_or_else(error)?;
        let (min, max) = range.split_once('-').ok_or_else(error)?;
        let (min, max) = (min.parse().map_err(|_| error())?, max.parse().map_err(|_| error())?);
        if min > max {
            return Err(error());
        }
        Ok(Self { min, max })
    }
}
