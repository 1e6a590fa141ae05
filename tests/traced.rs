//! A process that is traced from its first system call on.
//!
//! All requests of a tracer come from one thread: the one that called [`seize`].

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The command, behind a shell that stops itself first: nothing happens before the tracer is there.
pub(crate) fn stopped(command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]);
    shell.arg(command.get_program()).args(command.get_args()).env_clear();
    for (name, value) in command.get_envs() {
        shell.env(name, value.expect("no variable is unset"));
    }
    shell.current_dir(command.get_current_dir().expect("a working directory"));
    shell
}

/// Starts a stopped command and traces it with all its threads and children. It waits for
/// `ptrace::syscall`, and does not outlive the test.
#[track_caller]
pub(crate) fn seize(stopped: &mut Command) -> Pid {
    #[allow(clippy::zombie_processes, reason = "the tracer waits for all processes")]
    let child = stopped.spawn().expect("the shell starts");
    let leader = Pid::from_raw(child.id().cast_signed());
    let status = waitpid(leader, Some(WaitPidFlag::WUNTRACED)).expect("our own child");
    assert!(matches!(status, WaitStatus::Stopped(..)), "{status:?}");
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(leader, options).expect("a process may trace its children");
    leader
}

/// Memory of a stopped thread; what cannot be read is zero.
pub(crate) fn memory(thread: Pid, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    if let Ok(memory) = File::open(format!("/proc/{thread}/mem")) {
        // A short read at the end of a mapping leaves zeros, which end a name.
        let _ = memory.read_at(&mut bytes, address);
    }
    bytes
}

/// A text in the memory of a stopped thread, up to the zero behind it.
pub(crate) fn text(thread: Pid, address: u64) -> String {
    let bytes = memory(thread, address, 512);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
