//! The process: its runtime, its memory allocator, its descriptors.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use walrust_actors::BLOCKING_JOBS;

use crate::Error;

/// Threads of the asynchronous part.
const WORKERS: usize = 2;

/// Makes the runtime that every command uses.
///
/// # Errors
/// If the operating system refuses threads.
pub fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        // One thread stays free for name look-ups and file streaming of the storage client.
        .max_blocking_threads(BLOCKING_JOBS + 1)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()
}

/// Tunes the process before any thread starts.
pub fn prepare_process() {
    tune_allocator();
    raise_descriptor_limit();
}

/// Has glibc, which C libraries such as SQLite allocate from, return large buffers at once and share
/// two arenas among all threads. By default it keeps what a burst of work needed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn tune_allocator() {
    #[allow(unsafe_code, reason = "mallopt has no safe wrapper")]
    // SAFETY: mallopt only sets parameters of the allocator; no other thread runs yet.
    let set = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024) + libc::mallopt(libc::M_ARENA_MAX, 2)
    };
    debug_assert_eq!(set, 2, "glibc knows both parameters");
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn tune_allocator() {}

/// How often memory that a burst of work has left behind is given back.
const TRIM_INTERVAL: Duration = Duration::from_secs(30);

/// Gives memory of C libraries back to the operating system now and then, for as long as it runs: what
/// many databases needed at once while they were opened lies between what they keep.
pub async fn give_memory_back() {
    loop {
        tokio::time::sleep(TRIM_INTERVAL).await;
        trim();
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    #[allow(unsafe_code, reason = "malloc_trim has no safe wrapper")]
    // SAFETY: malloc_trim may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

/// Whether this process may have the descriptors that so many databases need: better one clear sentence
/// than a few hundred databases that cannot be opened, among them some that ran before.
///
/// # Errors
/// If it may not.
pub fn check_descriptors(databases: usize) -> Result<(), Error> {
    let (needed, limit) = (needed_descriptors(databases), descriptor_limit());
    if needed > limit {
        return Err(Error::DescriptorLimit { databases, needed, limit });
    }
    Ok(())
}

/// Descriptors that a process with so many databases needs: two for each that is idle, and some for
/// storage, logs, and databases that are being synced.
fn needed_descriptors(databases: usize) -> u64 {
    2 * databases as u64 + 100
}

/// Descriptors that this process may have.
fn descriptor_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit};
    // If the limit cannot be asked for, a database that meets it says so.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// Each database needs a few descriptors; the soft limit is often 1,024.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
