//! Kills a process right before one of its calls that change files of a replica.
//!
//! Invariant: which call it is follows from its number alone, so every moment between two changes
//! has its turn.

use std::fs;
use std::process::{Command, Stdio};

use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::traced::{seize, stopped};

/// Runs a command and kills it as it enters its `nth` change, from 0 on; `false` if it has ended
/// before, which must be with success. No other process of the test ends meanwhile.
#[track_caller]
pub(super) fn killed_at(command: &Command, nth: usize) -> bool {
    let leader = seize(stopped(command).stdout(Stdio::null()));
    let mut left = nth;
    loop {
        let status = waitpid(None, Some(WaitPidFlag::__WALL)).expect("there are threads left");
        let (thread, signal) = match status {
            WaitStatus::PtraceSyscall(thread) => {
                if enters_change(thread) {
                    if left == 0 {
                        kill(leader, Signal::SIGKILL).expect("the process runs");
                    }
                    left = left.saturating_sub(1);
                }
                (thread, None)
            }
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            WaitStatus::Exited(process, code) if process == leader => {
                assert_eq!(code, 0, "the follower failed");
                return false;
            }
            WaitStatus::Signaled(process, ..) if process == leader => return true,
            _ => continue,
        };
        // A thread that was ended meanwhile is reported next.
        let _ = ptrace::syscall(thread, signal);
    }
}

/// Whether a stopped thread enters a call that changes a file of a replica, or a name.
fn enters_change(thread: Pid) -> bool {
    let Ok(registers) = ptrace::getregs(thread) else { return false };
    if registers.rax.cast_signed() != -i64::from(libc::ENOSYS) {
        return false;
    }
    match registers.orig_rax.cast_signed() {
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_ftruncate => {
            let path = fs::read_link(format!("/proc/{thread}/fd/{}", registers.rdi));
            path.is_ok_and(|path| path.to_string_lossy().contains("replica.db"))
        }
        libc::SYS_rename
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_link
        | libc::SYS_linkat
        | libc::SYS_unlink
        | libc::SYS_unlinkat => true,
        _ => false,
    }
}
