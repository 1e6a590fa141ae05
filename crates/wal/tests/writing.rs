//! What this crate writes is byte for byte what SQLite writes.

use walrust_wal::{
    FrameHeader, FrameWriter, WalHeader, WalIndexBlock, WalIndexHeader, frame_offset, frame_size,
};

use crate::live_database::{LiveDatabase, PAGE_SIZES};
use crate::snapshot::Snapshot;

/// Headers of all frames of a WAL, with their pages.
fn frames(snapshot: &Snapshot) -> Vec<(FrameHeader, &[u8])> {
    let page_size = snapshot.header().page_size;
    let frames = snapshot.wal[WalHeader::SIZE..].chunks_exact(frame_size(page_size) as usize);
    frames
        .map(|frame| {
            let (header, page) = frame.split_first_chunk().expect("a frame begins with its header");
            (FrameHeader::parse(header), page)
        })
        .collect()
}

#[test]
fn a_wal() {
    for page_size in PAGE_SIZES {
        let database = LiveDatabase::with_tables(page_size);
        database.insert(30, 900);
        let snapshot = database.snapshot();
        let header = snapshot.header();
        let written = WalHeader::new(page_size, header.checkpoint_sequence, header.salts);
        assert_eq!(written, header);
        let mut wal = written.to_bytes().to_vec();
        let mut writer = FrameWriter::start(&written);
        for (frame, page) in frames(&snapshot) {
            wal.extend_from_slice(&writer.next(frame.pgno, frame.commit, page));
            wal.extend_from_slice(page);
            assert_eq!(writer.running(), frame.checksum);
        }
        assert!(wal == snapshot.wal, "pages of {page_size} bytes");
        assert_eq!(wal.len() as u64, frame_offset(page_size, frames(&snapshot).len() as u32));
    }
}

#[test]
fn the_header_of_a_wal_index() {
    for page_size in PAGE_SIZES {
        let database = LiveDatabase::with_tables(page_size);
        let bytes = database.wal_index().unwrap().header.to_bytes();
        let shm = database.shm();
        assert_eq!(shm[..WalIndexHeader::SIZE], bytes);
        assert_eq!(shm[WalIndexHeader::SIZE..2 * WalIndexHeader::SIZE], bytes);
    }
}

#[test]
fn the_blocks_of_a_wal_index() {
    let database = LiveDatabase::with_tables(512);
    // Three blocks, the last in part.
    while database.wal_index().unwrap().header.mx_frame < 9000 {
        database.insert(200, 2000);
    }
    let pages: Vec<u32> =
        frames(&database.snapshot()).iter().map(|(frame, _)| frame.pgno).collect();
    let shm = database.shm();
    let mut block = WalIndexBlock::of_frame(1);
    let mut compared = 0;
    while block.first_frame() as usize <= pages.len() {
        let last = (block.last_frame() as usize).min(pages.len());
        let bytes = block.bytes(&pages[block.first_frame() as usize - 1..last]);
        let offset = block.offset() as usize;
        assert!(shm[offset..offset + bytes.len()] == bytes, "{block:?}");
        compared += 1;
        block = block.next();
    }
    assert!(compared >= 3, "{compared} blocks");
}
