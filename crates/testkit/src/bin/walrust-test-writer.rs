//! Writes to a database from a process of its own and tells of each commit on stdout.
//!
//! `walrust-test-writer <path> <seed> (--commits N | --until-stdin-closes)
//! [--commits-per-second N] [--page-size N] [--vacuums] [--checkpoints]
//! [--ledger]`

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::ErrorCode;
use walrust_testkit::{Step, Workload, connect};

struct Arguments {
    path: PathBuf,
    seed: u64,
    /// `None`: until stdin closes.
    commits: Option<u64>,
    commits_per_second: Option<u32>,
    page_size: u32,
    vacuums: bool,
    checkpoints: bool,
    ledger: bool,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let path = arguments.next().ok_or("the path of the database is missing")?.into();
        let seed = number("seed", arguments.next())?;
        let mut parsed = Self {
            path,
            seed,
            commits: None,
            commits_per_second: None,
            page_size: 4096,
            vacuums: false,
            checkpoints: false,
            ledger: false,
        };
        let mut has_end = false;
        while let Some(option) = arguments.next() {
            match option.to_str() {
                Some("--commits") => {
                    parsed.commits = Some(number("--commits", arguments.next())?);
                    has_end = true;
                }
                Some("--until-stdin-closes") => has_end = true,
                Some("--commits-per-second") => {
                    let rate: u32 = number("--commits-per-second", arguments.next())?;
                    parsed.commits_per_second = Some(rate.max(1));
                }
                Some("--page-size") => parsed.page_size = number("--page-size", arguments.next())?,
                Some("--vacuums") => parsed.vacuums = true,
                Some("--checkpoints") => parsed.checkpoints = true,
                Some("--ledger") => parsed.ledger = true,
                _ => return Err(format!("unknown option {}", option.display())),
            }
        }
        if has_end { Ok(parsed) } else { Err("give --commits or --until-stdin-closes".to_owned()) }
    }
}

fn number<N: std::str::FromStr>(name: &str, value: Option<OsString>) -> Result<N, String> {
    let value = value.ok_or_else(|| format!("{name} needs a value"))?;
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| format!("{name}: {} is not a number", value.display()))
}

fn main() -> ExitCode {
    let fail = |error: &dyn Display| {
        eprintln!("walrust-test-writer: {error}");
        ExitCode::FAILURE
    };
    match Arguments::parse(env::args_os().skip(1)) {
        Ok(arguments) => match write(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Err(error) => fail(&error),
    }
}

fn write(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let stopped = Arc::new(AtomicBool::new(false));
    if arguments.commits.is_none() {
        let stopped = Arc::clone(&stopped);
        thread::spawn(move || {
            // Whether stdin ends or fails, the parent is gone.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            stopped.store(true, Ordering::Relaxed);
        });
    }
    let mut connection = connect(&arguments.path, arguments.page_size);
    Workload::create_schema(&connection)?;
    let mut workload = Workload::new(arguments.seed);
    if arguments.vacuums {
        workload = workload.with_vacuums();
    }
    if arguments.checkpoints {
        workload = workload.with_checkpoints();
    }
    if arguments.ledger {
        Workload::create_ledger(&connection)?;
        workload = workload.with_ledger();
    }
    let start = Instant::now();
    let mut commits = 0;
    while arguments.commits != Some(commits) && !stopped.load(Ordering::Relaxed) {
        match workload.step(&mut connection) {
            Ok(Step::Unchanged) => continue,
            Ok(Step::Committed) => commits += 1,
            // Other writers and checkpoints may hold the lock for longer than the busy timeout.
            Err(error) if is_busy(&error) => continue,
            Err(error) => return Err(error.into()),
        }
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "committed {commits}")?;
        stdout.flush()?;
        if let Some(rate) = arguments.commits_per_second {
            let due = Duration::from_secs_f64(commits as f64 / f64::from(rate));
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
    connection.close().map_err(|(_, error)| error.into())
}

fn is_busy(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
