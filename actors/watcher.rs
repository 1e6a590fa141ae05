//! WatcherActor: tells databases that their WAL may have changed.
//!
//! # Messages in / out
//! In: [`WatcherMsg::Watch`], [`WatcherMsg::Unwatch`] from the root, [`WatcherMsg::ThreadPanicked`]
//! from the thread. Out: `RootMsg::WalChanged`, since
//! a database may rest without an actor.
//!
//! # State
//! The actor owns one thread, the [`sweep`]. It looks at every database and its WAL once a second,
//! which is the truth, and inotify on the directories wakes it early, which is a hint.
//!
//! # Crash
//! The thread ends with the actor, and the actor with the thread. The root starts a new one and names all databases again, whose
//! first look counts as a change.
//!
//! # Back-pressure
//! At most one `WalChanged` per database is queued: the database clears the flag when it takes the
//! message, the sweep sends only when it is clear.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::crash_point::crash_point;
use crate::root::RootMsg;
use crate::watcher::sweep::{Command, SweepThread};

mod sweep;

/// Whether a `WalChanged` is queued for a database; clones are the same flag.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notified(Arc<AtomicBool>);

impl Notified {
    /// Sets the flag; whether it was clear.
    fn set(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Clears the flag, before the database looks at its WAL.
    pub(crate) fn clear(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Whether there is news that the database has not taken.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A database to watch.
#[derive(Clone, Debug)]
pub(crate) struct WatchTarget {
    /// Name of the database.
    pub(crate) name: String,
    /// Path of the database, perhaps through symbolic links.
    pub(crate) database: PathBuf,
    /// Who tells the database.
    pub(crate) root: ActorRef<RootMsg>,
    /// Whether it was told already.
    pub(crate) notified: Notified,
}

impl WatchTarget {
    fn notify(&self) {
        if self.notified.set() && self.root.cast(RootMsg::WalChanged(self.name.clone())).is_err() {
            tracing::trace!(db = self.name, "the root is gone");
        }
    }
}

/// What the watcher is asked to do.
#[derive(Debug)]
pub(crate) enum WatcherMsg {
    /// Watch a database; replaces an earlier target under this name.
    Watch {
        /// Name of the database.
        name: String,
        /// What to watch.
        target: WatchTarget,
    },
    /// Forget a database.
    Unwatch {
        /// Name of the database.
        name: String,
    },
    /// The thread panicked: nobody looks at anything any more.
    ThreadPanicked,
}

impl WatcherMsg {
    /// Its name, for crash points.
    fn name(&self) -> &'static str {
        match self {
            Self::Watch { .. } => "watch",
            Self::Unwatch { .. } => "unwatch",
            Self::ThreadPanicked => "thread_panicked",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct WatcherActor;

impl Actor for WatcherActor {
    type Msg = WatcherMsg;
    type State = SweepThread;
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<WatcherMsg>,
        (): (),
    ) -> Result<SweepThread, ActorProcessingErr> {
        Ok(SweepThread::start(myself)?)
    }

    async fn handle(
        &self,
        _myself: ActorRef<WatcherMsg>,
        message: WatcherMsg,
        thread: &mut SweepThread,
    ) -> Result<(), ActorProcessingErr> {
        crash_point("watcher", message.name())?;
        match message {
            WatcherMsg::Watch { name, target } => thread.send(Command::Watch(name, target))?,
            WatcherMsg::Unwatch { name } => thread.send(Command::Unwatch(name))?,
            WatcherMsg::ThreadPanicked => return Err("the thread of the watcher panicked".into()),
        }
        Ok(())
    }
}
