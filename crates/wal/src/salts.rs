//! The pair of numbers that tells one generation of a WAL from the next.

use std::fmt;

/// The salts of a generation of a WAL, as the numbers in its header.
///
/// Every restart of the WAL adds 1 to the first and draws the second at random; every frame
/// carries the salts of its generation, so frames left over from an older one are recognised
/// (sqlite.org/fileformat2.html, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Salts(
    /// Salt-1: counts restarts, wrapping.
    pub u32,
    /// Salt-2: random.
    pub u32,
);

impl fmt::Display for Salts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:08x}", self.0, self.1)
    }
}
