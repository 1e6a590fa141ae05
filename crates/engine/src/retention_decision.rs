//! What is to become of one file of a history, and why.

use std::fmt;

use walrust_ltx::{FileName, Txid};

use crate::bucket::Bucket;

/// What is to become of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It stays, for these reasons.
    Keep(Vec<KeepReason>),
    /// It becomes part of a larger file, and goes.
    Merge {
        /// The larger file.
        into: FileName,
    },
    /// It goes.
    Remove(RemoveReason),
}

/// Why a file stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepReason {
    /// The newest snapshot.
    Latest,
    /// The newest snapshot of a bucket.
    NewestOf(Bucket),
    /// Two snapshots stay in any case.
    SecondSnapshot,
    /// Without this snapshot a restore point is lost.
    BaseOf(Txid),
    /// The finest window: every state stays.
    InsideWindow,
    /// The finest window: what gives no state stays as well, until somebody has looked at it.
    Stranded,
    /// It leads to the newest state.
    Head,
    /// It leads from a kept snapshot towards the next.
    Chain,
    /// It is part of another chain than the one that is kept.
    OtherChain,
    /// Perhaps a file leads to it that cannot be read; or there is no snapshot at all.
    Unreachable,
    /// The manifest does not know it yet.
    NotIndexed,
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest snapshot"),
            Self::NewestOf(bucket) => write!(f, "{} of {bucket}", bucket.tier),
            Self::SecondSnapshot => f.write_str("two snapshots stay in any case"),
            Self::BaseOf(txid) => write!(f, "needed by restore point {txid}"),
            Self::InsideWindow => f.write_str("inside the finest window"),
            Self::Stranded => f.write_str("inside the finest window, though no file leads to it"),
            Self::Head => f.write_str("leads to the newest state"),
            Self::Chain => f.write_str("leads from one kept snapshot to the next"),
            Self::OtherChain => f.write_str("part of a second chain, left alone"),
            Self::Unreachable => f.write_str("no file that can be read leads to it, left alone"),
            Self::NotIndexed => f.write_str("not in the manifest yet, left alone"),
        }
    }
}

/// Why a file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveReason {
    /// A snapshot that is not the newest of any bucket that a tier covers.
    NoTier,
    /// An incremental before the oldest snapshot that is kept.
    BeforeOldest(Txid),
    /// An incremental of a chain whose snapshots go or are gone.
    BaseExpired,
    /// All its TXIDs are in a larger file.
    PartOf(FileName),
}

impl fmt::Display for RemoveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTier => f.write_str("expired: no tier keeps it"),
            Self::BeforeOldest(txid) => {
                write!(f, "expired: before the oldest kept snapshot, TXID {txid}")
            }
            Self::BaseExpired => f.write_str("expired: no snapshot that is kept leads to it"),
            Self::PartOf(name) => write!(f, "part of {name}"),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep(reasons) => {
                let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
                f.write_str(&reasons.join(", "))
            }
            Self::Merge { into } => write!(f, "merged into {into}"),
            Self::Remove(reason) => reason.fmt(f),
        }
    }
}
