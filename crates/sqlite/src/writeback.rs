//! Brings a large file to the disk while more of it is being written.
//!
//! Invariant: no error of the disk is lost. The kernel reports each one once, to the sync that asks
//! first; one that was reported here is returned by [`Writeback::finish`]. A crash leaves what a
//! crash without it leaves: whoever writes still syncs the file at the end.

use std::fs::File;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// Bytes that are written before they are brought to the disk.
const INTERVAL: usize = 32 << 20;

/// Bytes on their way to the disk. A file below [`INTERVAL`] needs no thread for them.
#[derive(Debug, Default)]
pub(crate) struct Writeback {
    /// Bytes that no sync was asked for.
    waiting: usize,
    thread: Option<SyncThread>,
}

#[derive(Debug)]
struct SyncThread {
    requests: SyncSender<()>,
    ended: JoinHandle<io::Result<()>>,
}

impl Writeback {
    /// So many bytes were written to `file`, always the same one.
    ///
    /// # Errors
    /// If there is no thread or descriptor to be had.
    pub(crate) fn wrote(&mut self, file: &File, bytes: usize) -> io::Result<()> {
        self.waiting += bytes;
        if self.waiting < INTERVAL {
            return Ok(());
        }
        self.waiting = 0;
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => SyncThread::start(file.try_clone()?)?,
        };
        // One that is busy has been asked already, and one that failed tells at the end.
        let _ = thread.requests.try_send(());
        self.thread = Some(thread);
        Ok(())
    }

    /// Waits for what is on its way. What was written last may not be on the disk.
    ///
    /// # Errors
    /// If the disk reported one meanwhile.
    pub(crate) fn finish(self) -> io::Result<()> {
        let Some(SyncThread { requests, ended }) = self.thread else { return Ok(()) };
        drop(requests);
        ended.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl SyncThread {
    fn start(file: File) -> io::Result<Self> {
        let (requests, asked) = sync_channel(1);
        let work = move || asked.into_iter().try_for_each(|()| file.sync_data());
        let ended = thread::Builder::new().name("writeback".to_owned()).spawn(work)?;
        Ok(Self { requests, ended })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_sync_is_told_at_the_end() {
        // The kernel syncs no devices of this kind.
        let device = File::options().write(true).open("/dev/null").unwrap();
        let mut writeback = Writeback::default();
        for _ in 0..3 {
            writeback.wrote(&device, INTERVAL).unwrap();
        }
        assert_eq!(writeback.finish().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_small_file_needs_no_thread() {
        let device = File::options().write(true).open("/dev/null").unwrap();
        let mut writeback = Writeback::default();
        writeback.wrote(&device, INTERVAL - 1).unwrap();
        writeback.finish().unwrap();
    }
}
