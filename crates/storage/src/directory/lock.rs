//! The lock under which objects are compared and replaced.
//!
//! The file `.walrust-lock` in the root stays for good: removing it would let two processes lock
//! two files. The kernel frees the lock when its holder dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

const NAME: &str = ".walrust-lock";
/// The lock is held for a few system calls; a holder that takes longer has been stopped.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// Takes the lock; it is held until the file is dropped.
///
/// # Errors
/// Kind `TimedOut` if another process holds it for ten seconds.
pub(super) fn take(root: &Path) -> io::Result<File> {
    let path = root.join(NAME);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => {
                let text = format!("another process holds {}", path.display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
        }
    }
}
