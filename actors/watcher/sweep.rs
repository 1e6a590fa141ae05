//! The thread that looks at every database and its WAL once a second, and earlier when inotify says
//! so.
//!
//! The database file is looked at because it may be replaced, or overwritten in place.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use ractor::ActorRef;

use super::{WatchTarget, WatcherMsg};
use crate::crash_point::job_point;

/// How often everything is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long hints are left alone after one was taken. The kernel merges what a busy writer causes
/// meanwhile, instead of waking this thread with each of its writes.
const HINT_PAUSE: Duration = Duration::from_millis(25);

/// A file changed so recently may change again without a new time stamp.
const TIMESTAMP_GRAIN: Duration = Duration::from_secs(2);

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Watch(String, WatchTarget),
    Unwatch(String),
}

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct SweepThread {
    /// `None` only while it is being dropped.
    commands: Option<Sender<Command>>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl SweepThread {
    pub(super) fn start(actor: ActorRef<WatcherMsg>) -> io::Result<Self> {
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let (commands, received) = channel();
        let sweep = Sweep::new(received, Arc::clone(&wake));
        let thread = std::thread::Builder::new().name("watcher".to_owned());
        let thread = thread.spawn(move || {
            let _alarm = Alarm(actor);
            sweep.run();
        })?;
        Ok(Self { commands: Some(commands), wake, thread: Some(thread) })
    }

    pub(super) fn send(&self, command: Command) -> io::Result<()> {
        let sent = self.commands.as_ref().is_some_and(|commands| commands.send(command).is_ok());
        if !sent {
            return Err(io::Error::other("the thread of the watcher has ended"));
        }
        self.wake.write(1)?;
        Ok(())
    }
}

impl Drop for SweepThread {
    fn drop(&mut self) {
        self.commands = None;
        if self.wake.write(1).is_ok()
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the watcher panicked");
        }
    }
}

/// Tells the actor if the thread panics: without it no commit would be noticed, and nothing would say
/// so.
struct Alarm(ActorRef<WatcherMsg>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() && self.0.cast(WatcherMsg::ThreadPanicked).is_err() {
            tracing::debug!("the watcher is gone before its thread");
        }
    }
}

struct Sweep {
    commands: Receiver<Command>,
    wake: Arc<EventFd>,
    inotify: Option<Inotify>,
    /// With thousands of them a hash table, which doubles, would stand half empty, and nodes that are
    /// large lie scattered among what the openings of databases leave free.
    databases: BTreeMap<String, Box<Watched>>,
    /// The databases of each watched directory, by the file names of their WALs.
    directories: HashMap<WatchDescriptor, BTreeMap<OsString, String>>,
}

struct Watched {
    target: WatchTarget,
    /// Where SQLite keeps the WAL: beside the file that symbolic links lead to.
    wal_path: PathBuf,
    /// The database and its WAL at the last sweep.
    seen: Option<[Option<Seen>; 2]>,
}

/// What a file looked like at the last sweep.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    modified: SystemTime,
    /// The file was so young that another change need not have shown.
    young: bool,
}

impl Sweep {
    fn new(commands: Receiver<Command>, wake: Arc<EventFd>) -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        let inotify = inotify
            .inspect_err(
                |error| tracing::warn!(%error, "no inotify: changes are seen once a second"),
            )
            .ok();
        Self { commands, wake, inotify, databases: BTreeMap::new(), directories: HashMap::new() }
    }

    fn run(mut self) {
        let mut next_sweep = Instant::now();
        loop {
            if !self.take_commands() {
                return;
            }
            if Instant::now() >= next_sweep {
                self.sweep();
                next_sweep = Instant::now() + INTERVAL;
            }
            let listens_again = self.take_hints().then(|| Instant::now() + HINT_PAUSE);
            let until = listens_again.unwrap_or(next_sweep).min(next_sweep);
            self.wait(until.saturating_duration_since(Instant::now()), listens_again.is_none());
        }
    }

    /// Carries out what was asked; `false` when the owner is gone.
    fn take_commands(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Watch(name, target)) => {
                    let wal_path = wal_path_of(&target.database);
                    self.forget_directory_of(&name);
                    self.watch_directory(&name, &wal_path);
                    target.notify();
                    let watched = Box::new(Watched { target, wal_path, seen: None });
                    self.databases.insert(name, watched);
                }
                Ok(Command::Unwatch(name)) => {
                    self.forget_directory_of(&name);
                    self.databases.remove(&name);
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn sweep(&mut self) {
        job_point("watcher::sweep");
        let mut moved = Vec::new();
        for (name, watched) in &mut self.databases {
            let seen = [look(&watched.target.database), look(&watched.wal_path)];
            let same = |before: &[Option<Seen>; 2]| {
                before.iter().zip(&seen).all(|(before, now)| is_unchanged(before, now))
            };
            if !watched.seen.as_ref().is_some_and(same) {
                watched.target.notify();
                let wal_path = wal_path_of(&watched.target.database);
                if wal_path != watched.wal_path {
                    watched.wal_path.clone_from(&wal_path);
                    moved.push((name.clone(), wal_path));
                }
            }
            watched.seen = Some(seen);
        }
        for (name, wal_path) in moved {
            self.forget_directory_of(&name);
            self.watch_directory(&name, &wal_path);
        }
    }

    /// Waits for a command, or for a hint as well.
    fn wait(&self, timeout: Duration, for_hints: bool) {
        let timeout = PollTimeout::try_from(timeout + Duration::from_millis(1))
            .unwrap_or(PollTimeout::from(1000_u16));
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        if let Some(inotify) = self.inotify.as_ref().filter(|_| for_hints) {
            fds.push(PollFd::new(inotify.as_fd(), PollFlags::POLLIN));
        }
        if let Err(error) = poll(&mut fds, timeout)
            && error != Errno::EINTR
        {
            tracing::error!(%error, "cannot wait for changes");
            std::thread::sleep(INTERVAL);
        }
        // Resets the counter; nothing to read is not an error here.
        let _ = self.wake.read();
    }

    /// Passes hints on; whether there were any.
    fn take_hints(&mut self) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let events = match inotify.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN | Errno::EINTR) => return false,
            Err(error) => {
                tracing::warn!(%error, "inotify failed: changes are seen once a second");
                self.inotify = None;
                return false;
            }
        };
        for event in &events {
            let names = self.directories.get(&event.wd);
            let name = event.name.as_ref().and_then(|file| names?.get(file));
            if let Some(watched) = name.and_then(|name| self.databases.get(name)) {
                watched.target.notify();
            }
        }
        !events.is_empty()
    }

    fn watch_directory(&mut self, name: &str, wal_path: &Path) {
        let Some(inotify) = &self.inotify else { return };
        let (Some(directory), Some(file)) = (directory_of(wal_path), wal_path.file_name()) else {
            return;
        };
        let events = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE;
        match inotify.add_watch(&directory, events) {
            Ok(watch) => {
                let names = self.directories.entry(watch).or_default();
                names.insert(file.to_owned(), name.to_owned());
            }
            Err(error) => {
                let directory = directory.display();
                tracing::warn!(%directory, %error, "no inotify here: changes are seen once a second");
            }
        }
    }

    fn forget_directory_of(&mut self, name: &str) {
        let inotify = self.inotify.as_ref();
        self.directories.retain(|watch, names| {
            names.retain(|_, owner| owner != name);
            if names.is_empty()
                && let Some(inotify) = inotify
                && let Err(error) = inotify.rm_watch(*watch)
            {
                tracing::trace!(%error, "the watched directory is gone");
            }
            !names.is_empty()
        });
    }
}

fn look(path: &Path) -> Option<Seen> {
    let metadata = std::fs::metadata(path).ok()?;
    let modified = metadata.modified().ok()?;
    let age = SystemTime::now().duration_since(modified).unwrap_or_default();
    let young = age < TIMESTAMP_GRAIN;
    let (device, inode, size) = (metadata.dev(), metadata.ino(), metadata.len());
    Some(Seen { device, inode, size, modified, young })
}

fn is_unchanged(before: &Option<Seen>, now: &Option<Seen>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => !before.young && before == now,
        (None, None) => true,
        _ => false,
    }
}

fn wal_path_of(database: &Path) -> PathBuf {
    // Of a file that is missing now the path itself is as good as any.
    let resolved = database.canonicalize();
    walrust_sqlite::sidecar(resolved.as_deref().unwrap_or(database), "-wal")
}

fn directory_of(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() })
}
