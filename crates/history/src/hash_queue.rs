//! The way of a restore's bytes to the thread that hashes them.
//!
//! Invariant: each file that was read to its end is compared with every hash that was recorded of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use walrust_engine::StoredFile;
use walrust_ltx::FileName;
use walrust_sqlite::{RestoreError, hex};

/// Batches that wait to be hashed.
const UNHASHED: usize = 2;
/// What makes a batch full: bytes, or files and pieces. Small files come by the thousands, and to wake
/// a thread for each of them takes longer than to hash it.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_LENGTH: usize = 128;

/// What the thread that hashes is told.
pub(crate) enum Unhashed {
    Bytes(Bytes),
    /// The file has ended; the hash that storage keeps beside it.
    End(Option<String>),
}

/// The way to the thread that hashes.
pub(crate) struct HashQueue {
    sender: SyncSender<Vec<Unhashed>>,
    batch: Vec<Unhashed>,
    /// Bytes in the batch.
    bytes: usize,
}

impl HashQueue {
    /// A queue, and its end for [`compare_hashes`].
    pub(crate) fn new() -> (Self, Receiver<Vec<Unhashed>>) {
        let (sender, unhashed) = sync_channel(UNHASHED);
        (Self { sender, batch: Vec::new(), bytes: 0 }, unhashed)
    }

    /// Gives bytes to the thread. An error if it has ended, which it does early only with one of its
    /// own.
    pub(crate) fn bytes(&mut self, bytes: Bytes) -> io::Result<()> {
        self.bytes += bytes.len();
        self.batch.push(Unhashed::Bytes(bytes));
        if self.bytes < BATCH_BYTES && self.batch.len() < BATCH_LENGTH {
            return Ok(());
        }
        self.bytes = 0;
        let sent = self.sender.send(std::mem::take(&mut self.batch));
        sent.map_err(|_| io::Error::other("a file has another hash"))
    }

    pub(crate) fn end_file(&mut self, sha256: Option<String>) {
        self.batch.push(Unhashed::End(sha256));
    }

    pub(crate) fn finish(self) {
        // Whoever waits for the thread gets to know why it has ended.
        let _ = self.sender.send(self.batch);
    }
}

/// Compares the hash of each file with those that were recorded when it was stored.
pub(crate) fn compare_hashes(
    files: &[StoredFile],
    recorded: &BTreeMap<FileName, String>,
    unhashed: &Receiver<Vec<Unhashed>>,
) -> Result<(), RestoreError> {
    let mut files = files.iter();
    let mut hasher = Sha256::new();
    for next in unhashed.iter().flatten() {
        let beside = match next {
            Unhashed::Bytes(bytes) => {
                hasher.update(&bytes);
                continue;
            }
            Unhashed::End(beside) => beside,
        };
        let file = files.next().expect("each file ends once");
        let found = hex(&std::mem::take(&mut hasher).finalize());
        for expected in beside.iter().chain(recorded.get(&file.name)) {
            if *expected != found {
                let (file, expected) = (file.key.clone(), expected.clone());
                return Err(RestoreError::WrongSha256 { file, expected, found });
            }
        }
    }
    Ok(())
}
