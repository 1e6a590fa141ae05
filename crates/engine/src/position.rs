//! Where a database and its history stand.
//!
//! A position is written only after storage has confirmed every file up to it, so a crash can
//! make it too old, never too new.

use serde::{Deserialize, Serialize};
use walrust_ltx::{Checksum, PageSize, Txid};
use walrust_wal::{Salts, WalChecksum};

/// The last state of a database that storage has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The TXID of that state.
    pub txid: Txid,
    /// Rolling checksum of the database in that state.
    pub checksum: Checksum,
    /// Page size of the database.
    pub page_size: PageSize,
    /// Size of the database in pages.
    pub page_count: u32,
    /// Timestamp of the last LTX file, milliseconds since the Unix epoch. The next one is never
    /// earlier, whatever the clock does, so that the history has an order in time.
    pub timestamp_ms: i64,
    /// Where that state ends in the WAL.
    pub wal: WalPosition,
}

/// A commit boundary in one generation of a WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalPosition {
    /// Salts of the generation; every restart of the WAL changes them.
    #[serde(with = "salts")]
    pub salts: Salts,
    /// Frames of the generation up to the boundary.
    pub frames: u32,
    /// Running checksum after the last of these frames, or that of the WAL header if there are none.
    #[serde(with = "wal_checksum")]
    pub checksum: WalChecksum,
}

impl WalPosition {
    /// No place in any WAL is known. A database without a WAL has the same salts, so only what was
    /// seen in this run may be compared with it.
    pub const UNKNOWN: Self =
        Self { salts: Salts(0, 0), frames: 0, checksum: WalChecksum { s1: 0, s2: 0 } };
}

mod salts {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use walrust_wal::Salts;

    pub(super) fn serialize<S: Serializer>(salts: &Salts, out: S) -> Result<S::Ok, S::Error> {
        [salts.0, salts.1].serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Salts, D::Error> {
        let [salt1, salt2] = <[u32; 2]>::deserialize(input)?;
        Ok(Salts(salt1, salt2))
    }
}

mod wal_checksum {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use walrust_wal::WalChecksum;

    pub(super) fn serialize<S: Serializer>(sum: &WalChecksum, out: S) -> Result<S::Ok, S::Error> {
        [sum.s1, sum.s2].serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<WalChecksum, D::Error> {
        let [s1, s2] = <[u32; 2]>::deserialize(input)?;
        Ok(WalChecksum { s1, s2 })
    }
}
