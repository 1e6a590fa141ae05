//! Reads the frames of a WAL file that are committed and not shipped yet.
//!
//! Invariant: every frame handed on carries the salts of the generation that was asked for and
//! continues its running checksum, and nothing after the last commit of the wal-index is read.

use std::fs::File;

use walrust_wal::{
    Committed, FrameHeader, FrameReader, Salts, WalChecksum, WalHeader, WalScan, frame_offset,
    frame_size,
};

use crate::DatabaseError;
use crate::database_files::{DatabaseFiles, read_up_to};

/// Bytes read at once: large enough that system calls do not count, small enough for many jobs.
const CHUNK: usize = 256 * 1024;

/// What reading a stretch came to.
#[derive(Debug)]
pub(crate) enum WalRead {
    /// All frames were there.
    Complete(Committed),
    /// The WAL no longer holds the generation: it restarted while it was read.
    Restarted,
}

/// The running checksum stored at a commit boundary: that of the last of `frames` frames, or that
/// of the WAL header. `None` if the file does not reach that far.
pub(crate) fn stored_checksum(
    files: &DatabaseFiles,
    page_size: u32,
    frames: u32,
) -> Result<Option<WalChecksum>, DatabaseError> {
    let Some(wal) = files.open_wal()? else { return Ok(None) };
    let io_error = || DatabaseError::io("read the WAL", files.wal_path());
    if frames == 0 {
        return Ok(read_wal_header(files, &wal)?.map(|header| header.checksum));
    }
    let mut bytes = [0; FrameHeader::SIZE];
    let offset = frame_offset(page_size, frames - 1);
    let length = read_up_to(&wal, &mut bytes, offset).map_err(io_error())?;
    Ok((length == bytes.len()).then(|| FrameHeader::parse(&bytes).checksum))
}

/// Reads the frames after the first `from` up to frame number `to`, which must be a commit.
pub(crate) fn read_frames(
    files: &DatabaseFiles,
    wal: &File,
    salts: Salts,
    resume: Option<(u32, WalChecksum)>,
    to: u32,
) -> Result<WalRead, DatabaseError> {
    let header = match read_wal_header(files, wal)? {
        Some(header) if header.salts == salts => header,
        _ => return Ok(WalRead::Restarted),
    };
    let reader = match resume {
        Some((from, checksum)) => FrameReader::resume(&header, from, checksum),
        None => FrameReader::start(&header),
    };
    let mut scan = WalScan::new(reader);
    let frame_size = usize::try_from(frame_size(header.page_size))
        .expect("a frame is at most 64 KiB and 24 bytes");
    let mut chunk = vec![0; (CHUNK / frame_size).max(1) * frame_size];
    while scan.reader().frames() < to {
        let done = scan.reader().frames();
        let length = ((to - done) as usize).saturating_mul(frame_size).min(chunk.len());
        let read = read_up_to(wal, &mut chunk[..length], frame_offset(header.page_size, done))
            .map_err(DatabaseError::io("read the WAL", files.wal_path()))?;
        let whole = read - read % frame_size;
        if whole == 0 {
            return stopped_early(files, salts, to, done);
        }
        for frame in chunk[..whole].chunks_exact(frame_size) {
            let (head, page) = frame.split_first_chunk().expect("a frame begins with its header");
            if scan.push(head, page).is_err() {
                return stopped_early(files, salts, to, scan.reader().frames());
            }
        }
    }
    let committed = scan.into_committed();
    if committed.frames != to {
        return Err(damaged(files, to, committed.frames));
    }
    Ok(WalRead::Complete(committed))
}

/// A frame that does not fit is damage only if the WAL did not restart meanwhile.
fn stopped_early(
    files: &DatabaseFiles,
    salts: Salts,
    promised: u32,
    found: u32,
) -> Result<WalRead, DatabaseError> {
    if files.wal_index()?.header.salts != salts {
        return Ok(WalRead::Restarted);
    }
    Err(damaged(files, promised, found))
}

fn damaged(files: &DatabaseFiles, promised: u32, found: u32) -> DatabaseError {
    DatabaseError::WalDamaged { path: files.wal_path().to_owned(), promised, found }
}

/// The header of the WAL file; `None` if the file is shorter or holds no valid header.
pub(crate) fn read_wal_header(
    files: &DatabaseFiles,
    wal: &File,
) -> Result<Option<WalHeader>, DatabaseError> {
    let mut bytes = [0; WalHeader::SIZE];
    let length = read_up_to(wal, &mut bytes, 0)
        .map_err(DatabaseError::io("read the WAL", files.wal_path()))?;
    Ok(WalHeader::parse(&bytes[..length]).ok())
}
