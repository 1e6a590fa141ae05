//! The header of an LTX file: 100 bytes, all numbers big-endian.
//!
//! Invariant: a [`Header`] that was read, or that an encoder accepted, obeys every rule of the
//! format; [`Header::validate`] lists them.

use crate::{Checksum, Error, FileName, PageSize, Txid};

const MAGIC: &[u8; 4] = b"LTX1";
/// Header flag: the file carries no rolling checksums.
const NO_CHECKSUM: u32 = 2;
/// Header flag of version 1: the whole body is one LZ4 frame.
const VERSION_1_LZ4: u32 = 1;

/// The header of an LTX file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether the file carries rolling checksums of the database (`NoChecksum` is not set).
    pub tracking: bool,
    /// Page size of the database.
    pub page_size: PageSize,
    /// Size of the database in pages after the file; 0 if the database was deleted.
    pub commit: u32,
    /// First transaction in the file.
    pub min_txid: Txid,
    /// Last transaction in the file.
    pub max_txid: Txid,
    /// Time of the last transaction, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Rolling checksum of the database before the file; none for snapshots and without tracking.
    pub pre_apply: Option<Checksum>,
    /// Where the file's frames begin in the WAL they come from, in bytes; 0 if from none.
    pub wal_offset: i64,
    /// Bytes of that WAL that the file covers.
    pub wal_size: i64,
    /// First salt of that WAL.
    pub wal_salt1: u32,
    /// Second salt of that WAL.
    pub wal_salt2: u32,
    /// The node that made the file; 0 if unset.
    pub node_id: u64,
}

impl Header {
    /// Size of a header in bytes.
    pub const SIZE: usize = 100;

    /// The header of a file without rolling checksums, WAL fields, node and time.
    #[must_use]
    pub fn new(page_size: PageSize, commit: u32, min_txid: Txid, max_txid: Txid) -> Self {
        Self {
            tracking: false,
            page_size,
            commit,
            min_txid,
            max_txid,
            timestamp_ms: 0,
            pre_apply: None,
            wal_offset: 0,
            wal_size: 0,
            wal_salt1: 0,
            wal_salt2: 0,
            node_id: 0,
        }
    }

    /// The name that the file must have.
    #[must_use]
    pub fn file_name(&self) -> FileName {
        FileName { min: self.min_txid, max: self.max_txid }
    }

    /// Whether the file holds a whole database: it begins with TXID 1.
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        self.min_txid == Txid::FIRST
    }

    /// Checks the rules that the types do not express.
    ///
    /// # Errors
    /// If the range of TXIDs is empty, WAL fields contradict each other, or a pre-apply checksum
    /// is missing or out of place.
    pub fn validate(&self) -> Result<(), Error> {
        let (min, max) = (self.min_txid.get(), self.max_txid.get());
        if min > max {
            return Err(Error::BadTxidRange { min, max });
        }
        if self.wal_offset < 0 || self.wal_size < 0 {
            return Err(Error::BadWalFields { what: "an offset or a size is negative" });
        }
        if self.wal_offset == 0 && (self.wal_salt1 != 0 || self.wal_salt2 != 0) {
            return Err(Error::BadWalFields { what: "there are salts but no offset" });
        }
        if self.wal_offset == 0 && self.wal_size != 0 {
            return Err(Error::BadWalFields { what: "there is a size but no offset" });
        }
        let rule = match (self.pre_apply, self.is_snapshot(), self.tracking) {
            (Some(_), true, _) => "a snapshot has none",
            (Some(_), false, false) => "a file without tracking has none",
            (None, false, true) => "a file with tracking has one",
            _ => return Ok(()),
        };
        let found = self.pre_apply.map_or(0, Checksum::raw);
        Err(Error::BadChecksumField { field: "the pre-apply checksum", found, rule })
    }

    /// The header as it is stored. Reserved bytes are zero.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let mut put = |offset: usize, value: &[u8]| {
            bytes[offset..offset + value.len()].copy_from_slice(value);
        };
        put(0, MAGIC);
        put(4, &if self.tracking { 0 } else { NO_CHECKSUM }.to_be_bytes());
        put(8, &self.page_size.get().to_be_bytes());
        put(12, &self.commit.to_be_bytes());
        put(16, &self.min_txid.get().to_be_bytes());
        put(24, &self.max_txid.get().to_be_bytes());
        put(32, &self.timestamp_ms.to_be_bytes());
        put(40, &self.pre_apply.map_or(0, Checksum::raw).to_be_bytes());
        put(48, &self.wal_offset.to_be_bytes());
        put(56, &self.wal_size.to_be_bytes());
        put(64, &self.wal_salt1.to_be_bytes());
        put(68, &self.wal_salt2.to_be_bytes());
        put(72, &self.node_id.to_be_bytes());
        bytes
    }

    /// Reads a header and checks every rule. Reserved bytes are ignored.
    ///
    /// # Errors
    /// If it is not the header of a valid file of version 3.
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Result<Self, Error> {
        if !bytes.starts_with(MAGIC) {
            return Err(Error::BadMagic);
        }
        let flags = u32_at(bytes, 4);
        if flags & VERSION_1_LZ4 != 0 && flags & !(VERSION_1_LZ4 | NO_CHECKSUM) == 0 {
            return Err(Error::OldVersion { version: 1, writers: "LiteFS" });
        }
        if flags & !NO_CHECKSUM != 0 {
            return Err(Error::BadFlags { flags });
        }
        let (min, max) = (u64_at(bytes, 16), u64_at(bytes, 24));
        let (Some(min_txid), Some(max_txid)) = (Txid::new(min), Txid::new(max)) else {
            return Err(Error::BadTxidRange { min, max });
        };
        let header = Self {
            tracking: flags & NO_CHECKSUM == 0,
            page_size: PageSize::try_from(u32_at(bytes, 8))?,
            commit: u32_at(bytes, 12),
            min_txid,
            max_txid,
            timestamp_ms: i64_at(bytes, 32),
            pre_apply: checksum_field(u64_at(bytes, 40), "the pre-apply checksum")?,
            wal_offset: i64_at(bytes, 48),
            wal_size: i64_at(bytes, 56),
            wal_salt1: u32_at(bytes, 64),
            wal_salt2: u32_at(bytes, 68),
            node_id: u64_at(bytes, 72),
        };
        header.validate()?;
        Ok(header)
    }
}

/// An optional checksum as it is stored: 0 for none.
pub(crate) fn checksum_field(raw: u64, field: &'static str) -> Result<Option<Checksum>, Error> {
    match (raw, Checksum::from_raw(raw)) {
        (0, _) => Ok(None),
        (_, Some(checksum)) => Ok(Some(checksum)),
        (found, None) => {
            Err(Error::BadChecksumField { field, found, rule: "a checksum has bit 63 set" })
        }
    }
}

fn array_at<const N: usize>(bytes: &[u8; Header::SIZE], offset: usize) -> [u8; N] {
    let field = bytes[offset..].first_chunk();
    *field.expect("all offsets are constants inside the header")
}

fn u32_at(bytes: &[u8; Header::SIZE], offset: usize) -> u32 {
    u32::from_be_bytes(array_at(bytes, offset))
}

fn u64_at(bytes: &[u8; Header::SIZE], offset: usize) -> u64 {
    u64::from_be_bytes(array_at(bytes, offset))
}

fn i64_at(bytes: &[u8; Header::SIZE], offset: usize) -> i64 {
    i64::from_be_bytes(array_at(bytes, offset))
}
