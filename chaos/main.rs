//! Random faults against the real program and a real S3 server, for as long as one likes.
//!
//! An iteration runs one daemon with a few databases and their writers through a schedule of
//! faults, then lets everything come to rest and asks the oracle: is every commit there, and is
//! each state that can be restored one that existed? `make test` runs a few iterations, `make chaos
//! SECONDS=600 SEED=n` as many as fit; `ITERATION=k` begins with a later one.
//!
//! Invariant: what an iteration does follows from seed and iteration, as far as processes can be
//! told what to do when. An iteration that fails is kept: schedule, logs, databases, objects.

mod bucket;
mod daemon;
mod database;
mod fault;
mod iteration;
mod oracle;
mod proxy;
mod report;
mod schedule;
mod weather;

use std::any::Any;
use std::env;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bucket::Bucket;
use crate::fault::Faults;
use crate::iteration::Tally;
use crate::report::{Failure, Report};
use crate::schedule::Schedule;

/// Events of an iteration.
const EVENTS: usize = 60;
/// A run with so many failures has shown enough, and would fill the disk with what it keeps.
const MOST_FAILURES: usize = 10;

/// How long a run takes if nobody says.
const SHORT: Duration = Duration::from_secs(10);

#[test]
fn random_faults_lose_nothing() {
    let seconds = number("CHAOS_SECONDS").map_or(SHORT, Duration::from_secs);
    let seed = number("CHAOS_SEED").unwrap_or(1);
    let report = run(seed, number("CHAOS_ITERATION").unwrap_or(0), seconds);
    let json = format!("{:#}\n", report.json());
    print!("{report}\n{json}");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("chaos-report.json");
    fs::write(&file, json).expect("the target directory is writable");
    assert!(report.failures.is_empty(), "{} iterations failed:\n{report}", report.failures.len());
    let calm = report.faults.iter().filter(|(_, count)| *count == 0).count();
    assert!(calm <= 4, "most kinds of faults come up in a short run: {report}");
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}: {value} is not a number")))
}

/// Runs one iteration after the other until the time is over, at least one.
fn run(seed: u64, first: u64, time: Duration) -> Report {
    let begun = Instant::now();
    let bucket = Bucket::create();
    let faults = Arc::new(Faults::default());
    let mut report = Report::new(seed);
    for number in first.. {
        let schedule = Schedule::new(seed, number, EVENTS);
        match iterate(&schedule, &bucket, &faults) {
            Ok(tally) => report.tally.add(tally),
            Err(failure) => {
                println!("{schedule}\n{}\nkept in {}", failure.reason, failure.kept);
                report.failures.push(failure);
            }
        }
        report.iterations += 1;
        report.elapsed = begun.elapsed();
        if report.elapsed >= time || report.failures.len() >= MOST_FAILURES {
            break;
        }
    }
    report.faults = faults.by_kind();
    report
}

fn iterate(schedule: &Schedule, bucket: &Bucket, faults: &Arc<Faults>) -> Result<Tally, Failure> {
    let prefix = format!("{}-{}", schedule.seed, schedule.iteration);
    let directory = tempfile::Builder::new()
        .prefix(&format!("chaos-{prefix}-"))
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("the target directory is writable");
    let path = directory.path().to_owned();
    let iteration = || iteration::run(schedule, bucket, &prefix, &path, faults);
    // What the test kit finds wrong panics; the next iteration shares nothing with this one.
    let outcome = panic::catch_unwind(AssertUnwindSafe(iteration));
    let outcome = outcome.unwrap_or_else(|panic| Err(words(panic.as_ref())));
    if outcome.is_err() {
        fs::write(path.join("schedule.txt"), schedule.to_string())
            .expect("the directory is writable");
        bucket.download(&prefix, &path.join("bucket"));
        let _ = directory.keep();
    }
    bucket.clear(&prefix);
    outcome.map_err(|reason| Failure {
        iteration: schedule.iteration,
        reason,
        kept: path.display().to_string(),
    })
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}
