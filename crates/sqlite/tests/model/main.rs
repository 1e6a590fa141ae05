//! A model-based test of the capture: random sequences of everything that applications, SQLite,
//! storage and crashes can do, checked after each step against the states that the database was in.
//!
//! What is tested is what production runs, with real SQLite files underneath and the application in
//! a process of its own. What holds after each step:
//!
//! * a file that is stored leads, page for page, to a state in which the database was, behind those
//!   stored before it; names are never used for other bytes; a file made of frames has one TXID for
//!   each commit, and one that heals has only the pages that changed;
//! * after a sync the captured state is that of the database, and while the pin was held since the
//!   last one, nothing was healed and no commit was passed over;
//! * nothing but our checkpoints touches the files of the database, and these leave its content;
//! * nothing panics, and no operation fails.
//!
//! At the end the database is restored from the bucket and equal to its source.
//!
//! In the tests with races the application also writes while the capture is at work: what they find
//! may need several runs to be found again. All other sequences are repeatable.
//!
//! `WALRUST_MODEL_CASES` is the number of sequences of each test, `WALRUST_MODEL_SEED` the seed of
//! the first; each sequence has a seed of its own. `WALRUST_MODEL_SHRINKS` limits the attempts to
//! shorten one that fails. A failure says how to run its sequence alone,
//! and shows the shortest one that fails in the same way.

use std::env;
use std::fmt::Write as _;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, strategy::Sequential};
use walrust_sqlite::WalPin;

mod application;
mod bucket;
mod history;
mod image;
mod local_state;
mod rolling_checksum;
mod scene;
mod step;

use scene::Scene;
use step::{Reference, Step};

/// Sequences of each test.
const CASES: u64 = 500;
/// Steps of a sequence.
const STEPS: std::ops::Range<usize> = 10..50;
/// Attempts to shorten a sequence that fails.
const SHRINKS: u64 = 400;

struct Model;

impl StateMachineTest for Model {
    type SystemUnderTest = Option<Scene>;
    type Reference = Reference;

    fn init_test(reference: &Reference) -> Option<Scene> {
        Some(Scene::new(&reference.setup))
    }

    fn apply(mut scene: Option<Scene>, reference: &Reference, step: Step) -> Option<Scene> {
        let tested = scene.as_mut().expect("the sequence goes on");
        tested.apply(&step, reference.is_writing());
        scene
    }

    fn teardown(scene: Option<Scene>, reference: Reference) {
        scene.expect("the sequence goes on").finish(&reference);
    }
}

fn number(variable: &str, default: u64) -> u64 {
    let Ok(text) = env::var(variable) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{variable}: {text} is not a number"))
}

/// Runs sequences under one kind of pin.
fn run(test: &str, pin: WalPin, races: bool, seed: u64) {
    let first = number("WALRUST_MODEL_SEED", seed);
    for seed in first..first + number("WALRUST_MODEL_CASES", CASES) {
        run_sequence(test, pin, races, seed);
    }
}

fn run_sequence(test: &str, pin: WalPin, races: bool, seed: u64) {
    let shrinks = number("WALRUST_MODEL_SHRINKS", SHRINKS);
    let config = Config {
        failure_persistence: None,
        max_shrink_iters: u32::try_from(shrinks).unwrap_or(u32::MAX),
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config.clone(), rng);
    let sequences = Sequential::new(
        STEPS.into(),
        move || Reference::with_pin(pin, races),
        Reference::preconditions,
        Reference::transitions,
        <Reference as ReferenceStateMachine>::apply,
    );
    let tree = sequences.new_tree(&mut runner).expect("a sequence");
    let outcome = runner.run_one(tree, |(reference, steps, seen)| {
        Model::test_sequential(config.clone(), reference, steps, seen);
        Ok(())
    });
    let Err(error) = outcome else { return };
    let TestError::Fail(reason, (reference, steps, _)) = error else { panic!("{error}") };
    let mut report = format!("{reason}\n{:?}\n", reference.setup);
    for step in steps {
        writeln!(report, "    {step:?}").expect("a String takes all text");
    }
    panic!(
        "{report}replay: WALRUST_MODEL_SEED={seed} WALRUST_MODEL_CASES=1 \
         cargo nextest run -p walrust-sqlite --test model {test}"
    );
}

#[test]
fn detached_pin() {
    run("detached_pin", WalPin::Detached, false, 0);
}

#[test]
fn detached_pin_again() {
    run("detached_pin_again", WalPin::Detached, false, 1_000_000);
}

#[test]
fn connection_pin() {
    run("connection_pin", WalPin::Connection, false, 2_000_000);
}

#[test]
fn no_pin() {
    run("no_pin", WalPin::None, false, 3_000_000);
}

#[test]
fn detached_pin_in_races() {
    run("detached_pin_in_races", WalPin::Detached, true, 4_000_000);
}

#[test]
fn connection_pin_in_races() {
    run("connection_pin_in_races", WalPin::Connection, true, 5_000_000);
}
