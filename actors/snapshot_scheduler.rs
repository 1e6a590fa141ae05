//! SnapshotSchedulerActor: tells databases when a snapshot is due.
//!
//! # Messages in / out
//! In: what happens to databases, from their actors. Out: `RootMsg::SnapshotDue`,
//! since a database may rest without an actor.
//!
//! # State
//! One `walrust_engine::SnapshotSchedule` for each database, and one timer for the earliest of
//! them. Databases that are due beyond the bound of snapshots at once wait in line.
//!
//! # Crash
//! Everything here is gone. The root starts a new scheduler and tells the databases, which report
//! again. A snapshot that runs at that moment goes on beside the bound.
//!
//! # Back-pressure
//! A database has at most one scheduled snapshot. A message of it costs the time of its own entry.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use walrust_engine::{LastSnapshot, SnapshotSchedule, SnapshotSettings};
use walrust_ltx::Txid;

use crate::crash_point::crash_point;
use crate::root::RootMsg;

/// What a new incarnation gets.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotSchedulerArguments {
    /// Snapshots at once.
    pub(crate) at_once: usize,
    /// Who tells databases that their snapshots are due.
    pub(crate) root: ActorRef<RootMsg>,
}

/// A database that is replicated.
#[derive(Debug)]
pub(crate) struct Scheduled {
    pub(crate) settings: SnapshotSettings,
    /// Number of the incarnation of its actor.
    pub(crate) incarnation: u64,
    /// The newest snapshot in the bucket.
    pub(crate) last: Option<LastSnapshot>,
    /// What storage has.
    pub(crate) txid: Option<Txid>,
}

/// What the actor is told.
#[derive(Debug)]
pub(crate) enum SnapshotSchedulerMsg {
    /// A database is replicated, or has other settings.
    Replicated {
        /// Its name.
        database: String,
        /// What is known of it.
        scheduled: Box<Scheduled>,
    },
    /// Storage has a database up to a TXID.
    Confirmed {
        /// Its name.
        database: String,
        /// The TXID.
        txid: Txid,
    },
    /// A snapshot of a database is in storage.
    Taken {
        /// Its name.
        database: String,
        /// Its TXID.
        txid: Txid,
    },
    /// A snapshot that was due ended; `Taken` has come before if storage has it.
    Ended {
        /// Its name.
        database: String,
        /// Whether storage has it.
        taken: bool,
    },
    /// The database is not replicated any more.
    Forget {
        /// Its name.
        database: String,
    },
    /// The time has come to look whether something is due.
    Due {
        /// Only the timer that was armed last counts.
        epoch: u64,
    },
}

impl SnapshotSchedulerMsg {
    /// Its name, for crash points.
    fn name(&self) -> &'static str {
        match self {
            Self::Replicated { .. } => "replicated",
            Self::Confirmed { .. } => "confirmed",
            Self::Taken { .. } => "taken",
            Self::Ended { .. } => "ended",
            Self::Forget { .. } => "forget",
            Self::Due { .. } => "due",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SnapshotSchedulerActor;

/// The schedules.
#[derive(Debug)]
pub(crate) struct SnapshotSchedulerState {
    myself: ActorRef<SnapshotSchedulerMsg>,
    root: ActorRef<RootMsg>,
    at_once: usize,
    /// Nodes that are large lie scattered among what the openings of databases leave free.
    databases: BTreeMap<String, Box<Entry>>,
    /// When each database that waits for a time is to be looked at.
    looks: BTreeSet<(Instant, String)>,
    /// Databases whose snapshot is due and has to wait for its turn.
    line: VecDeque<String>,
    /// Databases whose snapshot is under way.
    running: HashSet<String>,
    epoch: u64,
    armed: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    schedule: SnapshotSchedule,
    incarnation: u64,
    /// Its place among the looks.
    look: Option<Instant>,
}

impl Actor for SnapshotSchedulerActor {
    type Msg = SnapshotSchedulerMsg;
    type State = SnapshotSchedulerState;
    type Arguments = SnapshotSchedulerArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<SnapshotSchedulerMsg>,
        arguments: SnapshotSchedulerArguments,
    ) -> Result<SnapshotSchedulerState, ActorProcessingErr> {
        Ok(SnapshotSchedulerState {
            myself,
            root: arguments.root,
            at_once: arguments.at_once.max(1),
            databases: BTreeMap::new(),
            looks: BTreeSet::new(),
            line: VecDeque::new(),
            running: HashSet::new(),
            epoch: 0,
            armed: None,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<SnapshotSchedulerMsg>,
        message: SnapshotSchedulerMsg,
        state: &mut SnapshotSchedulerState,
    ) -> Result<(), ActorProcessingErr> {
        crash_point("snapshots", message.name())?;
        let now = Instant::now();
        match message {
            SnapshotSchedulerMsg::Replicated { database, scheduled } => {
                state.replicated(database, *scheduled, now);
            }
            SnapshotSchedulerMsg::Confirmed { database, txid } => {
                state.change(&database, now, |schedule| schedule.confirmed(txid.get(), now));
            }
            SnapshotSchedulerMsg::Taken { database, txid } => {
                state.change(&database, now, |schedule| schedule.taken(txid.get(), now));
            }
            SnapshotSchedulerMsg::Ended { database, taken } => state.ended(&database, taken, now),
            SnapshotSchedulerMsg::Forget { database } => state.forget(&database),
            SnapshotSchedulerMsg::Due { epoch } => state.due(epoch, now),
        }
        state.begin_next();
        state.arm(now);
        Ok(())
    }
}

impl SnapshotSchedulerState {
    fn replicated(&mut self, database: String, scheduled: Scheduled, now: Instant) {
        let Scheduled { settings, incarnation, last, txid } = scheduled;
        let known = self.databases.get_mut(&database).filter(|it| it.incarnation == incarnation);
        if let Some(entry) = known {
            entry.schedule.set(settings);
        } else {
            self.forget(&database);
            let txid = txid.map_or(0, Txid::get);
            let schedule = SnapshotSchedule::new(settings, last, txid, now, fastrand::f64());
            let entry = Box::new(Entry { schedule, incarnation, look: None });
            self.databases.insert(database.clone(), entry);
        }
        self.change(&database, now, |_| ());
    }

    /// Changes the schedule of a database, and finds out when it is to be looked at next.
    fn change(&mut self, database: &str, now: Instant, change: impl FnOnce(&mut SnapshotSchedule)) {
        let Some(entry) = self.databases.get_mut(database) else { return };
        change(&mut entry.schedule);
        if let Some(look) = entry.look.take() {
            self.looks.remove(&(look, database.to_owned()));
        }
        if self.running.contains(database) || self.line.iter().any(|it| it == database) {
            return;
        }
        if let Some(reason) = entry.schedule.due(now) {
            tracing::debug!(db = database, %reason, "a snapshot is due");
            self.line.push_back(database.to_owned());
        } else if let Some(look) = entry.schedule.next_look(now) {
            entry.look = Some(look);
            self.looks.insert((look, database.to_owned()));
        }
    }

    fn ended(&mut self, database: &str, taken: bool, now: Instant) {
        self.running.remove(database);
        self.change(database, now, |schedule| {
            if !taken {
                schedule.failed(now);
            }
        });
    }

    fn forget(&mut self, database: &str) {
        self.running.remove(database);
        self.line.retain(|it| it != database);
        if let Some(look) = self.databases.remove(database).and_then(|entry| entry.look) {
            self.looks.remove(&(look, database.to_owned()));
        }
    }

    fn due(&mut self, epoch: u64, now: Instant) {
        if epoch != self.epoch {
            return;
        }
        self.armed = None;
        while let Some((at, _)) = self.looks.first()
            && *at <= now
            && let Some((_, database)) = self.looks.pop_first()
        {
            if let Some(entry) = self.databases.get_mut(&database) {
                entry.look = None;
            }
            self.change(&database, now, |_| ());
        }
    }

    /// Begins the snapshots that are due, as many as may run at once.
    fn begin_next(&mut self) {
        while self.running.len() < self.at_once
            && let Some(database) = self.line.pop_front()
        {
            if self.databases.contains_key(&database)
                && self.root.cast(RootMsg::SnapshotDue(database.clone())).is_ok()
            {
                self.running.insert(database);
            }
        }
    }

    fn arm(&mut self, now: Instant) {
        let Some((at, _)) = self.looks.first() else { return };
        if self.armed.is_some_and(|armed| armed <= *at) {
            return;
        }
        self.armed = Some(*at);
        self.epoch += 1;
        let epoch = self.epoch;
        let wait = at.saturating_duration_since(now);
        self.myself.send_after(wait, move || SnapshotSchedulerMsg::Due { epoch });
    }
}
