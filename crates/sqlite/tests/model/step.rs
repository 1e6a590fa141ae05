//! What can happen, and which of it can happen next.

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;
use walrust_engine::CheckpointKind;
use walrust_sqlite::WalPin;

use crate::local_state::{Damage, Part};

/// How a database was made and is used.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) pin: WalPin,
    pub(crate) page_size: u32,
    /// `PRAGMA auto_vacuum`: none, full, incremental.
    pub(crate) auto_vacuum: u8,
    /// `PRAGMA wal_autocheckpoint` of the application.
    pub(crate) autocheckpoint: u32,
    /// Pages in the cache of the application: with few of them, frames of open transactions spill
    /// into the WAL.
    pub(crate) cache: u32,
    /// Whether the application also writes while the replicator is at work. Such a sequence may go
    /// another way when it is repeated.
    pub(crate) races: bool,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The application writes, in the open transaction or in one of its own.
    Write(Write),
    Begin,
    Commit,
    Rollback,
    Vacuum,
    IncrementalVacuum,
    /// Another connection of the application begins a read transaction.
    BeginRead,
    EndRead,
    /// A third connection runs a checkpoint.
    ForeignCheckpoint(Mode),
    /// The application closes all connections.
    Close,
    /// The application is killed.
    Kill,
    /// Application and replicator end with the machine, and the WAL loses its last commits, except
    /// for some; SQLite allows that with `synchronous = NORMAL`.
    PowerLoss {
        kept: u8,
    },

    /// The capture is opened and finds its place in the bucket.
    Open,
    /// The replicator is killed between two operations.
    Crash,
    /// The replicator is killed in the middle of an operation: of what it writes to local state
    /// only the first parts arrive.
    CrashWithin(Operation, u8),
    /// While no replicator runs, a part of local state is damaged.
    Tear(Part, Damage),
    /// While no replicator runs, local state is deleted.
    Forget,
    Sync,
    Settle,
    Snapshot,
    /// The oldest file that waits goes to storage.
    Upload(Reply),
    /// A snapshot beside the history goes to storage.
    UploadSnapshot,
    /// Everything is staged, uploaded and confirmed.
    Ship,
    Checkpoint(CheckpointKind),
    /// The application commits some transactions while the replicator is at work.
    Race {
        transactions: u8,
        during: During,
    },
}

/// What the replicator does during a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum During {
    Sync,
    Snapshot,
    Settle,
    Checkpoint(CheckpointKind),
}

/// What a transaction writes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Write {
    Insert {
        rows: u16,
    },
    Update {
        modulus: u8,
    },
    Delete {
        modulus: u8,
    },
    Blob {
        bytes: u16,
    },
    /// What is inserted is deleted in the same transaction: the database grows by pages that are
    /// never written.
    Churn {
        bytes: u16,
    },
}

/// The modes of `PRAGMA wal_checkpoint`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    Passive,
    Full,
    Restart,
    Truncate,
}

/// What becomes of an upload.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// Stored and confirmed.
    Ok,
    /// Not stored.
    Failed,
    /// Stored, but nobody hears of it.
    Lost,
}

/// What writes to local state while nothing else changes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Sync,
    Confirm,
}

/// Decides what can happen next. Everything else is known only to what is tested.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub(crate) setup: Setup,
    writing: bool,
    reading: bool,
    capturing: bool,
}

impl Reference {
    pub(crate) fn is_writing(&self) -> bool {
        self.writing
    }

    /// The states of databases with one kind of pin.
    pub(crate) fn with_pin(pin: WalPin, races: bool) -> BoxedStrategy<Self> {
        let page_size = prop_oneof![Just(512_u32), Just(4096)];
        let autocheckpoint = prop_oneof![2 => Just(0_u32), 1 => Just(4), 1 => Just(1000)];
        let cache = prop_oneof![Just(2000_u32), Just(4)];
        (page_size, 0..3_u8, autocheckpoint, cache)
            .prop_map(move |(page_size, auto_vacuum, autocheckpoint, cache)| Self {
                setup: Setup { pin, page_size, auto_vacuum, autocheckpoint, cache, races },
                writing: false,
                reading: false,
                capturing: false,
            })
            .boxed()
    }
}

impl ReferenceStateMachine for Reference {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Self::with_pin(WalPin::Detached, false)
    }

    fn transitions(state: &Self) -> BoxedStrategy<Step> {
        let mut steps: Vec<(u32, BoxedStrategy<Step>)> = Vec::new();
        let mut add = |weight: u32, step: BoxedStrategy<Step>| steps.push((weight, step));
        add(30, write().prop_map(Step::Write).boxed());
        if state.writing {
            add(14, Just(Step::Commit).boxed());
            add(7, Just(Step::Rollback).boxed());
        } else {
            add(6, Just(Step::Begin).boxed());
            add(3, Just(Step::Vacuum).boxed());
            add(2, Just(Step::IncrementalVacuum).boxed());
        }
        match state.reading {
            true => add(6, Just(Step::EndRead).boxed()),
            false => add(3, Just(Step::BeginRead).boxed()),
        }
        add(12, mode().prop_map(Step::ForeignCheckpoint).boxed());
        add(5, Just(Step::Close).boxed());
        add(3, Just(Step::Kill).boxed());
        add(2, (0..6_u8).prop_map(|kept| Step::PowerLoss { kept }).boxed());
        if state.capturing {
            add(12, Just(Step::Sync).boxed());
            add(5, Just(Step::Settle).boxed());
            add(3, Just(Step::Snapshot).boxed());
            add(14, reply().prop_map(Step::Upload).boxed());
            add(2, Just(Step::UploadSnapshot).boxed());
            add(10, Just(Step::Ship).boxed());
            add(14, checkpoint(state).prop_map(Step::Checkpoint).boxed());
            add(4, Just(Step::Crash).boxed());
            if state.setup.races && !state.writing {
                add(40, race().boxed());
            }
            let within = (operation(), 0..7_u8);
            add(4, within.prop_map(|(within, point)| Step::CrashWithin(within, point)).boxed());
        } else {
            add(45, Just(Step::Open).boxed());
            let tear = (Part::any(), Damage::any());
            add(12, tear.prop_map(|(part, damage)| Step::Tear(part, damage)).boxed());
            add(2, Just(Step::Forget).boxed());
        }
        prop::strategy::Union::new_weighted(steps).boxed()
    }

    fn preconditions(state: &Self, step: &Step) -> bool {
        match step {
            Step::Commit | Step::Rollback => state.writing,
            Step::Begin | Step::Vacuum | Step::IncrementalVacuum => !state.writing,
            Step::EndRead => state.reading,
            Step::BeginRead => !state.reading,
            Step::Open | Step::Tear(..) | Step::Forget => !state.capturing,
            Step::Write(_) | Step::ForeignCheckpoint(_) => true,
            Step::Close | Step::Kill | Step::PowerLoss { .. } => true,
            Step::Race { .. } => state.capturing && !state.writing,
            Step::Crash
            | Step::CrashWithin(..)
            | Step::Sync
            | Step::Settle
            | Step::Snapshot
            | Step::Upload(_)
            | Step::UploadSnapshot
            | Step::Ship
            | Step::Checkpoint(_) => state.capturing,
        }
    }

    fn apply(mut state: Self, step: &Step) -> Self {
        match step {
            Step::Begin => state.writing = true,
            Step::Commit | Step::Rollback => state.writing = false,
            Step::BeginRead => state.reading = true,
            Step::EndRead => state.reading = false,
            Step::Close | Step::Kill => (state.writing, state.reading) = (false, false),
            Step::PowerLoss { .. } => {
                (state.writing, state.reading, state.capturing) = (false, false, false);
            }
            Step::Open => state.capturing = true,
            Step::Crash | Step::CrashWithin(..) => state.capturing = false,
            _ => {}
        }
        state
    }
}

fn write() -> BoxedStrategy<Write> {
    prop_oneof![
        8 => (1..12_u16).prop_map(|rows| Write::Insert { rows }),
        1 => (100..400_u16).prop_map(|rows| Write::Insert { rows }),
        6 => (1..9_u8).prop_map(|modulus| Write::Update { modulus }),
        3 => (1..5_u8).prop_map(|modulus| Write::Delete { modulus }),
        2 => (1..30_000_u16).prop_map(|bytes| Write::Blob { bytes }),
        2 => (1..30_000_u16).prop_map(|bytes| Write::Churn { bytes }),
    ]
    .boxed()
}

fn mode() -> BoxedStrategy<Mode> {
    prop_oneof![Just(Mode::Passive), Just(Mode::Full), Just(Mode::Restart), Just(Mode::Truncate)]
        .boxed()
}

fn reply() -> BoxedStrategy<Reply> {
    prop_oneof![6 => Just(Reply::Ok), 1 => Just(Reply::Failed), 2 => Just(Reply::Lost)].boxed()
}

fn operation() -> BoxedStrategy<Operation> {
    prop_oneof![1 => Just(Operation::Sync), 2 => Just(Operation::Confirm)].boxed()
}

/// Barriers wait for an open transaction, which takes time and then comes to nothing.
fn checkpoint(state: &Reference) -> BoxedStrategy<CheckpointKind> {
    let barrier = if state.writing { 1 } else { 12 };
    prop_oneof![
        12 => Just(CheckpointKind::Quiet),
        4 => Just(CheckpointKind::Truncate),
        barrier => any::<bool>().prop_map(|truncate| CheckpointKind::Barrier { truncate }),
        2 => Just(CheckpointKind::GiveUp),
    ]
    .boxed()
}

fn race() -> BoxedStrategy<Step> {
    let during = prop_oneof![
        4 => Just(During::Sync),
        1 => Just(During::Snapshot),
        3 => Just(During::Settle),
        3 => Just(During::Checkpoint(CheckpointKind::Quiet)),
        3 => Just(During::Checkpoint(CheckpointKind::Barrier { truncate: false })),
    ];
    let race = (1..8_u8, during);
    race.prop_map(|(transactions, during)| Step::Race { transactions, during }).boxed()
}
