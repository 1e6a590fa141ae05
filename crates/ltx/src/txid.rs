//! Transaction identifiers.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::Error;
use crate::error::parse_hex16;

/// The number of a transaction, from 1 on. Its text is 16 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Txid(NonZeroU64);

impl Txid {
    /// The first transaction; a file that begins with it is a snapshot.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// A TXID; `None` for 0.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// The transaction after this one; the last one has itself.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Txid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        const WHAT: &str = "a TXID of 16 lower-case hex digits, from 1 on";
        Self::new(parse_hex16(text, WHAT)?)
            .ok_or_else(|| Error::Parse { text: text.to_owned(), what: WHAT })
    }
}
