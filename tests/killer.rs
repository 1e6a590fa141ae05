//! Kills a process right before one of its calls that change files, has that call fail, or does
//! something else before it; or has it fail to look at a file.
//!
//! Invariant: which call it is follows from its number alone, so every moment between two changes
//! has its turn.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::traced::{seize, stopped, text};

/// What happens to the call.
enum Fault<'a> {
    Kill,
    /// Something is done before it. Then it does nothing and returns an error, if there is one.
    Meet(&'a mut dyn FnMut(), Option<i32>),
}

/// How a process ended one of whose calls was met.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) code: i32,
    pub(crate) stderr: String,
    /// The call; `None` if the process has made fewer.
    pub(crate) call: Option<i64>,
}

/// Runs a command and kills it as it enters its `nth` change of a file in its working directory, or
/// of any name, from 0 on; `false` if it has ended before, which must be with success. No other
/// process of the test ends meanwhile.
#[track_caller]
pub(crate) fn killed_at(command: &Command, nth: usize) -> bool {
    let directory = directory_of(command);
    let is_change = |thread| entered_change(thread, &directory);
    let mut shell = stopped(command);
    let (code, _) = run(shell.stdout(Stdio::null()), &is_change, nth, &mut Fault::Kill);
    assert!(code.is_none_or(|code| code == 0), "the process failed: {code:?}");
    code.is_none()
}

/// Runs a command whose `nth` change fails with an error of the system.
#[track_caller]
pub(crate) fn failed_at(command: &Command, nth: usize, errno: i32) -> Met {
    met_at(command, nth, &mut || {}, Some(errno))
}

/// Runs a command before whose `nth` change something happens; with `errno` it fails, too. No process
/// of the test ends meanwhile.
#[track_caller]
pub(crate) fn met_at(
    command: &Command,
    nth: usize,
    action: &mut dyn FnMut(),
    errno: Option<i32>,
) -> Met {
    let directory = directory_of(command);
    meet(command, &|thread| entered_change(thread, &directory), nth, action, errno)
}

/// Runs a command whose `nth` look at a file, by the standard library of Rust, fails with an error of
/// the system.
#[track_caller]
pub(crate) fn failed_look_at(command: &Command, file: &Path, nth: usize, errno: i32) -> Met {
    let is_look = |thread| {
        let registers = entered(thread).filter(|it| it.orig_rax == libc::SYS_statx as u64)?;
        (text(thread, registers.rsi) == file.to_str()?).then_some(libc::SYS_statx)
    };
    meet(command, &is_look, nth, &mut || {}, Some(errno))
}

fn directory_of(command: &Command) -> PathBuf {
    command.get_current_dir().expect("a working directory").to_owned()
}

/// Tells whether a thread enters one of the calls that count, and which.
type Counts<'a> = dyn Fn(Pid) -> Option<i64> + 'a;

#[track_caller]
fn meet(
    command: &Command,
    counts: &Counts<'_>,
    nth: usize,
    action: &mut dyn FnMut(),
    errno: Option<i32>,
) -> Met {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let mut shell = stopped(command);
    shell.stdout(Stdio::null()).stderr(writer);
    let (code, call) = run(&mut shell, counts, nth, &mut Fault::Meet(action, errno));
    // The last one who could write to it.
    drop(shell);
    let mut stderr = String::new();
    reader.read_to_string(&mut stderr).expect("the program prints UTF-8");
    Met { code: code.expect("nobody kills it"), stderr, call }
}

/// The exit code, or `None` if it was killed; and the call that was met.
#[track_caller]
fn run(
    shell: &mut Command,
    counts: &Counts<'_>,
    nth: usize,
    fault: &mut Fault<'_>,
) -> (Option<i32>, Option<i64>) {
    let leader = seize(shell);
    let (mut left, mut met, mut failing) = (nth, None, None);
    loop {
        let status = waitpid(None, Some(WaitPidFlag::__WALL)).expect("there are threads left");
        let (thread, signal) = match status {
            WaitStatus::PtraceSyscall(thread) => {
                if let Some((_, errno)) = failing.take_if(|(failing, _)| *failing == thread) {
                    return_error(thread, errno);
                } else if let Some(call) = counts(thread) {
                    if left == 0 && met.is_none() {
                        met = Some(call);
                        match fault {
                            Fault::Kill => {
                                kill(leader, Signal::SIGKILL).expect("the process runs");
                            }
                            Fault::Meet(action, errno) => {
                                action();
                                if let Some(errno) = errno {
                                    skip_call(thread);
                                    failing = Some((thread, *errno));
                                }
                            }
                        }
                    }
                    left = left.saturating_sub(1);
                }
                (thread, None)
            }
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            WaitStatus::Exited(process, code) if process == leader => return (Some(code), met),
            WaitStatus::Signaled(process, ..) if process == leader => return (None, met),
            _ => continue,
        };
        // A thread that was ended meanwhile is reported next.
        let _ = ptrace::syscall(thread, signal);
    }
}

/// The call that a stopped thread enters, if that changes a file in the directory, or a name.
fn entered_change(thread: Pid, directory: &Path) -> Option<i64> {
    let registers = entered(thread)?;
    let call = registers.orig_rax.cast_signed();
    let changes = match call {
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_ftruncate | libc::SYS_fchmod => {
            let path = fs::read_link(format!("/proc/{thread}/fd/{}", registers.rdi));
            let directory = directory.as_os_str().as_bytes();
            path.is_ok_and(|path| path.as_os_str().as_bytes().starts_with(directory))
        }
        libc::SYS_rename
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_link
        | libc::SYS_linkat
        | libc::SYS_unlink
        | libc::SYS_unlinkat => true,
        _ => false,
    };
    changes.then_some(call)
}

/// The registers of a thread that enters a call.
fn entered(thread: Pid) -> Option<libc::user_regs_struct> {
    let registers = ptrace::getregs(thread).ok()?;
    (registers.rax.cast_signed() == -i64::from(libc::ENOSYS)).then_some(registers)
}

/// Has the kernel do nothing for the call that a thread enters.
fn skip_call(thread: Pid) {
    let mut registers = ptrace::getregs(thread).expect("the thread is stopped");
    registers.orig_rax = u64::MAX;
    ptrace::setregs(thread, registers).expect("the thread is stopped");
}

/// Sets the result of the call that a thread leaves.
fn return_error(thread: Pid, errno: i32) {
    let mut registers = ptrace::getregs(thread).expect("the thread is stopped");
    registers.rax = i64::from(-errno).cast_unsigned();
    ptrace::setregs(thread, registers).expect("the thread is stopped");
}
