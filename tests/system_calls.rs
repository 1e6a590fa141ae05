//! What the daemon does to the application's files, as the kernel sees it.
//!
//! Every system call of every thread is traced with ptrace. Invariant: no call of ours writes to the
//! database or its WAL, or gives them another name, size or mode; what reaches the database file are
//! whole pages that SQLite writes while it holds the checkpoint lock, and what reaches the WAL is a
//! truncation.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rusqlite::Connection;
use walrust_testkit::{TestDatabase, assert_same_database, sidecar, wait_for};

use crate::storage::Storage;
use crate::traced::{memory, seize, stopped, text};
use crate::walrust::{PATIENCE, QUICK, Walrust};

/// The byte of the `-shm` file that a checkpoint holds exclusively.
const SHM_CHECKPOINT: u64 = 121;

/// A call that changes a file.
#[derive(Clone, Debug)]
struct Call {
    name: &'static str,
    path: PathBuf,
    offset: u64,
    length: u64,
    /// The process held the checkpoint lock of the wal-index.
    checkpointing: bool,
}

/// A traced process.
struct Traced {
    id: Pid,
    tracer: JoinHandle<Vec<Call>>,
}

impl Traced {
    /// Starts a command under the eyes of a thread, which ends with it.
    fn start(command: &Command) -> Self {
        let mut shell = stopped(command);
        let (sender, id) = channel();
        let tracer = std::thread::spawn(move || {
            let leader = seize(&mut shell);
            sender.send(leader).expect("the test waits for it");
            Tracer::default().run(leader)
        });
        Self { id: wait(&id), tracer }
    }

    /// Ends the process with SIGTERM; the calls it has made.
    fn stop(self) -> Vec<Call> {
        kill(self.id, Signal::SIGTERM).expect("the process runs");
        self.tracer.join().expect("the tracer does not panic")
    }
}

fn wait<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(PATIENCE).expect("the tracer starts")
}

#[derive(Default)]
struct Tracer {
    calls: Vec<Call>,
    /// Locks that are being asked for, by thread: whether on the checkpoint byte it is taken.
    asked: BTreeMap<i32, bool>,
    checkpointing: bool,
}

impl Tracer {
    fn run(mut self, leader: Pid) -> Vec<Call> {
        loop {
            let status = waitpid(None, Some(WaitPidFlag::__WALL)).expect("there are threads left");
            let (thread, signal) = match status {
                WaitStatus::PtraceSyscall(thread) => {
                    self.look_at(thread);
                    (thread, None)
                }
                WaitStatus::PtraceEvent(thread, ..) => (thread, None),
                WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
                WaitStatus::Exited(process, code) if process == leader => {
                    assert_eq!(code, 0, "the daemon failed");
                    return self.calls;
                }
                WaitStatus::Signaled(process, signal, _) if process == leader => {
                    panic!("the daemon was ended by {signal}");
                }
                _ => continue,
            };
            // A thread that was ended meanwhile is reported next.
            let _ = ptrace::syscall(thread, signal);
        }
    }

    fn look_at(&mut self, thread: Pid) {
        let Ok(registers) = ptrace::getregs(thread) else { return };
        let result = registers.rax.cast_signed();
        let enters = result == -i64::from(libc::ENOSYS);
        if !enters {
            if let Some(taken) = self.asked.remove(&thread.as_raw())
                && result == 0
            {
                self.checkpointing = taken;
            }
            return;
        }
        let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8];
        let number = registers.orig_rax.cast_signed();
        if number == libc::SYS_fcntl {
            return self.look_at_lock(thread, arguments);
        }
        self.calls.extend(changing_call(thread, number, arguments).map(
            |(name, path, offset, length)| Call {
                name,
                path,
                offset,
                length,
                checkpointing: self.checkpointing,
            },
        ));
    }

    /// `fcntl(fd, F_SETLK, &flock)` on the checkpoint byte.
    fn look_at_lock(&mut self, thread: Pid, [_, command, lock, ..]: [u64; 5]) {
        if command != u64::from(libc::F_SETLK.cast_unsigned()) {
            return;
        }
        let bytes = memory(thread, lock, 24);
        let kind = i16::from_ne_bytes([bytes[0], bytes[1]]);
        let number = |at: usize| u64::from_ne_bytes(*bytes[at..].first_chunk().expect("24 bytes"));
        let (start, length) = (number(8), number(16));
        if (start..start + length).contains(&SHM_CHECKPOINT) {
            self.asked.insert(thread.as_raw(), i32::from(kind) == libc::F_WRLCK);
        }
    }
}

/// What a call that is being entered changes: its name, the file, and where.
fn changing_call(
    thread: Pid,
    number: i64,
    [first, second, third, fourth, _]: [u64; 5],
) -> Option<(&'static str, PathBuf, u64, u64)> {
    let by_descriptor = |name, descriptor, offset, length| {
        fs::read_link(format!("/proc/{thread}/fd/{descriptor}"))
            .ok()
            .map(|path| (name, path, offset, length))
    };
    let by_name = |name, address| Some((name, PathBuf::from(text(thread, address)), 0, 0));
    let created_or_cut = |name, address, flags: u64| {
        let changes = (libc::O_TRUNC | libc::O_CREAT).cast_unsigned();
        (flags & u64::from(changes) != 0).then(|| by_name(name, address)).flatten()
    };
    match number {
        libc::SYS_write => by_descriptor("write", first, 0, third),
        libc::SYS_pwrite64 => by_descriptor("pwrite64", first, fourth, third),
        libc::SYS_writev => by_descriptor("writev", first, 0, third),
        libc::SYS_pwritev | libc::SYS_pwritev2 => by_descriptor("pwritev", first, fourth, third),
        libc::SYS_ftruncate => by_descriptor("ftruncate", first, second, 0),
        libc::SYS_fallocate => by_descriptor("fallocate", first, third, fourth),
        libc::SYS_sendfile => by_descriptor("sendfile", first, 0, fourth),
        libc::SYS_copy_file_range | libc::SYS_splice => by_descriptor("copy", third, 0, 0),
        libc::SYS_fchmod => by_descriptor("fchmod", first, 0, 0),
        libc::SYS_fchown => by_descriptor("fchown", first, 0, 0),
        libc::SYS_fsetxattr => by_descriptor("fsetxattr", first, 0, 0),
        libc::SYS_mmap => {
            // A shared writable map of the file is as good as a write.
            let (writable, shared) = (libc::PROT_WRITE.cast_unsigned(), libc::MAP_SHARED);
            let writes =
                third & u64::from(writable) != 0 && fourth & u64::from(shared.cast_unsigned()) != 0;
            let registers = ptrace::getregs(thread).ok()?;
            writes.then(|| by_descriptor("mmap", registers.r8, registers.r9, second)).flatten()
        }
        libc::SYS_open => created_or_cut("open", first, second),
        libc::SYS_openat => created_or_cut("openat", second, third),
        libc::SYS_truncate => by_name("truncate", first),
        libc::SYS_unlink => by_name("unlink", first),
        libc::SYS_unlinkat => by_name("unlinkat", second),
        libc::SYS_rename => by_name("rename", first),
        libc::SYS_renameat | libc::SYS_renameat2 => by_name("renameat", second),
        libc::SYS_chmod => by_name("chmod", first),
        libc::SYS_fchmodat => by_name("fchmodat", second),
        _ => None,
    }
}

/// The calls that changed the database, its WAL, or their names.
fn on_files_of<'a>(database: &Path, calls: &'a [Call]) -> Vec<&'a Call> {
    let files = [database.to_owned(), sidecar(database, "-wal"), sidecar(database, "-shm")];
    calls.iter().filter(|call| files.contains(&call.path)).collect()
}

/// Traces a daemon with these arguments while an application commits, and until a checkpoint if there
/// is one to come; the calls on its files.
fn calls_of_a_daemon(
    arguments: &[&str],
    checkpointed: bool,
) -> (PathBuf, tempfile::TempDir, Vec<Call>) {
    let (directory, source) = TestDatabase::with_history(4096, 1, 30).close();
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let path = source.display().to_string();
    let all = [&["watch", path.as_str()], &QUICK[..], arguments].concat();
    let traced = Traced::start(&walrust.command(all));
    wait_for(PATIENCE, "the first file", || !storage.ltx_files("app").is_empty());
    let application = Connection::open(&source).expect("the database opens");
    application.busy_timeout(Duration::from_secs(10)).expect("a setting");
    application.execute_batch("CREATE TABLE traced (x)").expect("a commit");
    let before = source.metadata().expect("the database is there").len();
    for number in 0..100 {
        let insert =
            format!("INSERT INTO traced VALUES (randomblob({}))", 100 + number * 37 % 9000);
        application.execute_batch(&insert).expect("a commit");
    }
    let grown = || source.metadata().is_ok_and(|now| now.len() > before);
    if checkpointed {
        wait_for(PATIENCE, "a checkpoint", grown);
    }
    // While the application is there the WAL is its own affair also at the end.
    let calls = traced.stop();
    drop(application);
    assert_same_database(&source, &walrust.restored("app", &[]));
    let own = calls.iter().filter(|call| call.path.to_string_lossy().contains("-walrust/"));
    assert!(own.count() > 3, "the tracer sees what the daemon writes to its own files");
    let calls = on_files_of(&source, &calls).into_iter().cloned().collect();
    (source, directory, calls)
}

#[test]
fn without_checkpoints_no_call_reaches_the_database_or_its_wal() {
    let never =
        ["--checkpoint-interval=0", "--min-checkpoint-pages=0", "--wal-truncate-threshold=0"];
    let (source, _directory, calls) = calls_of_a_daemon(&never, false);
    let on_database: Vec<_> = calls.iter().filter(|call| call.path == source).collect();
    assert!(on_database.is_empty(), "{:?}", on_database.first());
    let on_wal = calls.iter().find(|call| is_change_of_wal(call, &source));
    assert!(on_wal.is_none(), "the WAL is not ours to change: {on_wal:?}");
    let removed = calls.iter().find(|call| call.name.starts_with("unlink"));
    assert!(removed.is_none(), "nothing is removed: {removed:?}");
}

/// SQLite opens the WAL so that it would create it, and as root gives it the owner of the database,
/// which it has already.
fn is_change_of_wal(call: &Call, database: &Path) -> bool {
    call.path == sidecar(database, "-wal") && !["openat", "fchown"].contains(&call.name)
}

#[test]
fn only_checkpoints_write_to_the_database_and_they_write_whole_pages() {
    let often = ["--checkpoint-interval=1", "--min-checkpoint-pages=5"];
    let (source, _directory, calls) = calls_of_a_daemon(&often, true);
    let on_database: Vec<_> = calls.iter().filter(|call| call.path == source).collect();
    let pages = on_database.iter().filter(|call| call.name == "pwrite64").count();
    assert!(pages > 5, "checkpoints have happened");
    for call in on_database {
        let page = call.name == "pwrite64" && call.length == 4096 && call.offset % 4096 == 0;
        let shrink = call.name == "ftruncate" && call.offset % 4096 == 0;
        assert!(page || shrink, "not a page of a checkpoint: {call:?}");
        assert!(call.checkpointing, "without the checkpoint lock: {call:?}");
    }
    for call in calls.iter().filter(|call| is_change_of_wal(call, &source)) {
        assert!(call.name == "ftruncate" && call.offset == 0, "a write to the WAL: {call:?}");
    }
}
