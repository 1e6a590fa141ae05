//! What an iteration does, and when.
//!
//! Invariant: a schedule follows from seed and iteration alone: no clock, no I/O.

use std::fmt;
use std::time::Duration;

use walrust_testkit::Prng;

use crate::fault::Fault;

/// Everything that is random about an iteration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) iteration: u64,
    /// The databases of the one daemon.
    pub(crate) databases: Vec<DatabasePlan>,
    /// Seed of the weather on the way to storage.
    pub(crate) weather: u64,
    /// How many of a hundred requests meet a fault.
    pub(crate) percent: u64,
    /// `checkpoint_interval` of the daemon.
    pub(crate) checkpoint_interval: Duration,
    /// `min_checkpoint_page_count` of the daemon.
    pub(crate) min_checkpoint_pages: u64,
    /// What happens, one after the other.
    pub(crate) events: Vec<Event>,
    /// Which states are restored at the end.
    pub(crate) restores: u64,
}

/// A database and who writes to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DatabasePlan {
    pub(crate) page_size: u32,
    /// SQLite's `PRAGMA auto_vacuum`.
    pub(crate) auto_vacuum: u32,
    /// Seed and pace of the writer that stays; without one only short writers come and go, and the
    /// last of them takes the WAL away when the daemon is not there.
    pub(crate) writer: Option<(u64, u32)>,
}

/// Something that happens a time after what was before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) after: Duration,
    pub(crate) action: Action,
}

/// What happens. Databases are named by their index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The daemon ends, others go on, and it starts again.
    Restart {
        /// By SIGKILL, or by SIGTERM.
        kill: bool,
        /// How long it is away, at least.
        away: Duration,
        /// What others do before it is back; no restarts among it.
        meanwhile: Vec<Action>,
        /// A database whose local state is lost meanwhile.
        forget: Option<usize>,
    },
    /// The daemon stands still while others go on.
    Pause { length: Duration, meanwhile: Vec<Action> },
    /// Somebody runs a checkpoint.
    Checkpoint { database: usize, mode: Fault },
    /// Somebody reads for so long.
    Reader { database: usize, length: Duration },
    /// A process opens, writes and closes.
    ShortWriter { database: usize, seed: u64, commits: u64 },
    /// The writer that stays is killed, and another comes.
    KillWriter { database: usize, seed: u64 },
    /// Every request to storage meets this fault for so long.
    Storm { fault: Fault, length: Duration },
    /// Somebody restores, through the same weather.
    Restore { database: usize },
}

impl Schedule {
    /// The schedule of an iteration, with so many events.
    pub(crate) fn new(seed: u64, iteration: u64, events: usize) -> Self {
        let mut prng = Prng::new(seed ^ iteration.wrapping_mul(0xa24b_aed4_963e_e407));
        let databases: Vec<_> = (0..prng.between(2, 4)).map(|_| database(&mut prng)).collect();
        let count = databases.len();
        Self {
            seed,
            iteration,
            weather: prng.next_u64(),
            percent: prng.below(25),
            checkpoint_interval: millis(&mut prng, 50, 1000),
            min_checkpoint_pages: prng.between(5, 200),
            events: (0..events).map(|_| event(&mut prng, count)).collect(),
            restores: prng.between(1, 4),
            databases,
        }
    }
}

fn database(prng: &mut Prng) -> DatabasePlan {
    let page_sizes = [512, 1024, 4096, 4096, 4096, 8192, 65_536];
    DatabasePlan {
        page_size: page_sizes[prng.below(page_sizes.len() as u64) as usize],
        auto_vacuum: if prng.chance(25) { prng.between(1, 2) as u32 } else { 0 },
        writer: prng.chance(75).then(|| (prng.next_u64(), prng.between(5, 60) as u32)),
    }
}

fn event(prng: &mut Prng, databases: usize) -> Event {
    // Mostly one thing comes upon another; now and then the daemon gets somewhere in between.
    let after = if prng.chance(12) { millis(prng, 150, 800) } else { millis(prng, 1, 40) };
    let action = match prng.below(100) {
        0..=9 => Action::Restart {
            kill: prng.chance(80),
            away: millis(prng, 0, 150),
            meanwhile: meanwhile(prng, databases),
            forget: prng.chance(25).then(|| any(prng, databases)),
        },
        10..=19 => {
            Action::Pause { length: millis(prng, 10, 300), meanwhile: meanwhile(prng, databases) }
        }
        20..=26 => Action::Storm {
            fault: Fault::OF_STORAGE[prng.below(Fault::OF_STORAGE.len() as u64) as usize],
            length: millis(prng, 30, 600),
        },
        27..=30 => Action::Restore { database: any(prng, databases) },
        _ => foreign(prng, databases),
    };
    Event { after, action }
}

fn meanwhile(prng: &mut Prng, databases: usize) -> Vec<Action> {
    (0..prng.below(5)).map(|_| foreign(prng, databases)).collect()
}

/// What others do, whatever the daemon does.
fn foreign(prng: &mut Prng, databases: usize) -> Action {
    let database = any(prng, databases);
    match prng.below(100) {
        0..=44 => Action::Checkpoint { database, mode: Fault::CHECKPOINTS[any(prng, 4)] },
        45..=54 => Action::Reader { database, length: millis(prng, 20, 500) },
        55..=89 => {
            Action::ShortWriter { database, seed: prng.next_u64(), commits: prng.between(1, 4) }
        }
        _ => Action::KillWriter { database, seed: prng.next_u64() },
    }
}

fn any(prng: &mut Prng, count: usize) -> usize {
    prng.below(count as u64) as usize
}

fn millis(prng: &mut Prng, low: u64, high: u64) -> Duration {
    Duration::from_millis(prng.between(low, high))
}

impl fmt::Display for Schedule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, iteration, databases, percent, .. } = self;
        writeln!(out, "seed {seed}, iteration {iteration}, {percent} % of requests in trouble")?;
        writeln!(
            out,
            "checkpoint_interval {:?}, min_checkpoint_page_count {}",
            self.checkpoint_interval, self.min_checkpoint_pages
        )?;
        for (index, database) in databases.iter().enumerate() {
            writeln!(out, "db{index}: {database:?}")?;
        }
        for (index, event) in self.events.iter().enumerate() {
            writeln!(out, "{index:3} +{:?} {:?}", event.after, event.action)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Schedule};

    #[test]
    fn a_seed_gives_the_same_schedule_again() {
        for iteration in 0..20 {
            let schedule = Schedule::new(5, iteration, 60);
            assert_eq!(schedule, Schedule::new(5, iteration, 60));
            assert_ne!(schedule.events, Schedule::new(6, iteration, 60).events);
            assert_ne!(schedule.events, Schedule::new(5, iteration + 1, 60).events);
        }
    }

    #[test]
    fn a_longer_schedule_begins_as_a_shorter_one() {
        let (short, long) = (Schedule::new(5, 1, 20), Schedule::new(5, 1, 60));
        assert_eq!(short.events, long.events[..20]);
        assert_eq!(short.databases, long.databases);
        assert_eq!(short.weather, long.weather);
    }

    #[test]
    fn schedules_are_dense() {
        let events: Vec<_> = (0..50).flat_map(|it| Schedule::new(1, it, 60).events).collect();
        let kills =
            events.iter().filter(|it| matches!(it.action, Action::Restart { kill: true, .. }));
        let kills = kills.count();
        assert!((120..400).contains(&kills), "{kills} kills in 50 iterations");
        let time: u128 = events.iter().map(|event| event.after.as_millis()).sum();
        assert!(time / 50 < 10_000, "{} ms an iteration", time / 50);
    }
}
