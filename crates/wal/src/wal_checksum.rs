//! The running checksum of a WAL (sqlite.org/fileformat2.html, section 4.2).
//!
//! Invariant: the checksum of a frame covers the WAL header and every frame before it, so a frame
//! that fits proves the whole prefix. It guards against torn and stale frames, not against an
//! attacker: anyone can compute it.

/// The byte order in which a checksum takes its input as 32-bit words.
///
/// It is that of the machine which created the WAL. Only the words of the checksum depend on it:
/// the fields of the WAL are big-endian always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Little-endian words: magic number `0x377f0682`.
    Little,
    /// Big-endian words: magic number `0x377f0683`.
    Big,
}

impl ByteOrder {
    /// The byte order of this machine, which the wal-index always uses.
    pub(crate) const NATIVE: Self =
        if cfg!(target_endian = "big") { Self::Big } else { Self::Little };
}

/// A state of the running checksum; the default is that before the first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WalChecksum {
    /// First sum.
    pub s1: u32,
    /// Second sum.
    pub s2: u32,
}

impl WalChecksum {
    /// The state after `bytes`.
    ///
    /// # Panics
    /// If the length of `bytes` is not a multiple of 8: headers and pages always are.
    #[must_use]
    pub fn update(self, order: ByteOrder, bytes: &[u8]) -> Self {
        // One loop for each order keeps the choice out of the loop.
        match order {
            ByteOrder::Little => self.run(bytes, u32::from_le_bytes),
            ByteOrder::Big => self.run(bytes, u32::from_be_bytes),
        }
    }

    #[inline(always)]
    fn run(self, bytes: &[u8], word: impl Fn([u8; 4]) -> u32) -> Self {
        let (pairs, rest) = bytes.as_chunks::<8>();
        assert!(rest.is_empty(), "a WAL checksum takes multiples of 8 bytes, not {}", bytes.len());
        let Self { mut s1, mut s2 } = self;
        for &[a, b, c, d, e, f, g, h] in pairs {
            s1 = s1.wrapping_add(word([a, b, c, d])).wrapping_add(s2);
            s2 = s2.wrapping_add(word([e, f, g, h])).wrapping_add(s1);
        }
        Self { s1, s2 }
    }
}
