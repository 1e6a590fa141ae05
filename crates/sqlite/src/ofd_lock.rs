//! Byte-range locks that belong to an open file, not to the process (`F_OFD_SETLK`).
//!
//! SQLite's own locks are POSIX locks: closing any descriptor of a file drops all that the process
//! has on it. Open file description locks conflict with those in both directions, also within one
//! process, and end only when they are given back or the file they were taken through is closed.

use std::fs::File;
use std::io;

/// Takes a shared lock on one byte; `false` if somebody holds it exclusively.
///
/// # Errors
/// If the system or the file system has no such locks; see [`is_unsupported`].
pub(crate) fn try_lock_shared(file: &File, byte: u64) -> io::Result<bool> {
    try_lock(file, byte, LockKind::Shared)
}

/// Takes an exclusive lock on one byte, for which the file must be open for writing; `false` if
/// somebody holds it.
///
/// # Errors
/// As [`try_lock_shared`].
pub(crate) fn try_lock_exclusive(file: &File, byte: u64) -> io::Result<bool> {
    try_lock(file, byte, LockKind::Exclusive)
}

fn try_lock(file: &File, byte: u64, kind: LockKind) -> io::Result<bool> {
    match set(file, byte, kind) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied => Ok(false),
            _ => Err(error),
        },
    }
}

/// Gives a lock back.
pub(crate) fn unlock(file: &File, byte: u64) -> io::Result<()> {
    set(file, byte, LockKind::None)
}

/// Whether an error says that there are no such locks here, rather than that this one failed.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let unsupported = [Errno::EINVAL, Errno::ENOLCK, Errno::ENOSYS, Errno::EOPNOTSUPP];
    error.kind() == io::ErrorKind::Unsupported
        || unsupported.iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

#[derive(Clone, Copy)]
enum LockKind {
    Shared,
    Exclusive,
    None,
}

#[cfg(target_os = "linux")]
fn set(file: &File, byte: u64, kind: LockKind) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    let kind = match kind {
        LockKind::Shared => libc::F_RDLCK,
        LockKind::Exclusive => libc::F_WRLCK,
        LockKind::None => libc::F_UNLCK,
    };
    let whence = libc::SEEK_SET;
    let lock = libc::flock {
        l_type: i16::try_from(kind).expect("lock types are small numbers"),
        l_whence: i16::try_from(whence).expect("SEEK_SET is zero"),
        l_start: i64::try_from(byte).expect("SQLite locks bytes near 1 GiB at most"),
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock))?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn set(_file: &File, _byte: u64, _kind: LockKind) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
