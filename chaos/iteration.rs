//! One iteration: a daemon with its databases, what happens to them, and the reckoning.
//!
//! Invariant: when faults are over and writers have ended, a daemon that ends with exit code 0 has
//! everything in storage; whatever a restore brings forth before or after is a state that existed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use walrust_testkit::Prng;

use crate::bucket::Bucket;
use crate::daemon::{Daemon, Program};
use crate::database::{Database, checkpoint, stay_reading};
use crate::fault::{Fault, Faults};
use crate::oracle::{self, Claim};
use crate::proxy::Proxy;
use crate::schedule::{Action, Schedule};
use crate::weather::Weather;

/// How long a daemon may take to end while it is in trouble.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What an iteration came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Commits that its writers made.
    pub(crate) commits: u64,
    /// Restored databases that were checked.
    pub(crate) restores: u64,
    /// How often its daemons gave each warning, or reason for one: which guards were needed.
    pub(crate) warnings: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds what another iteration came to.
    pub(crate) fn add(&mut self, other: Self) {
        self.commits += other.commits;
        self.restores += other.restores;
        for (warning, count) in other.warnings {
            *self.warnings.entry(warning).or_default() += count;
        }
    }
}

/// Runs a schedule in an empty directory, storing under a prefix of the bucket.
///
/// # Errors
/// A sentence about what went wrong. Where a writer or a command misbehaves it panics instead.
pub(crate) fn run(
    schedule: &Schedule,
    bucket: &Bucket,
    prefix: &str,
    directory: &Path,
    faults: &Arc<Faults>,
) -> Result<Tally, String> {
    let mut scene = Scene::new(schedule, bucket, prefix, directory, faults);
    for event in &schedule.events {
        thread::sleep(event.after);
        scene.revive()?;
        scene.act(&event.action)?;
    }
    scene.settle()?;
    scene.reckon(schedule)
}

struct Scene {
    directory: PathBuf,
    databases: Vec<Database>,
    faults: Arc<Faults>,
    weather: Arc<Weather>,
    proxy: Proxy,
    /// Where storage is without faults.
    endpoint: String,
    program: Program,
    daemon: Option<Daemon>,
    readers: Vec<JoinHandle<()>>,
    restores: usize,
    /// How often the daemon did not end within [`STOP_PATIENCE`].
    slow_ends: u64,
}

impl Scene {
    fn new(
        schedule: &Schedule,
        bucket: &Bucket,
        prefix: &str,
        directory: &Path,
        faults: &Arc<Faults>,
    ) -> Self {
        fs::create_dir(directory.join("restored")).expect("the directory is writable");
        let databases = schedule.databases.iter().enumerate();
        let databases = databases.map(|(index, plan)| Database::new(directory, index, plan));
        let databases: Vec<_> = databases.collect();
        fs::write(directory.join("walrust.toml"), configuration(schedule, &databases))
            .expect("the directory is writable");
        let weather =
            Arc::new(Weather::new(schedule.weather, schedule.percent, Arc::clone(faults)));
        let mut scene = Self {
            directory: directory.to_owned(),
            databases,
            faults: Arc::clone(faults),
            proxy: Proxy::start(bucket.server().endpoint(), &weather),
            weather,
            endpoint: bucket.server().endpoint().to_owned(),
            program: Program::new(directory, &bucket.url(prefix), bucket.server()),
            daemon: None,
            readers: Vec::new(),
            restores: 0,
            slow_ends: 0,
        };
        scene.start();
        scene
    }

    fn start(&mut self) {
        let config = self.directory.join("walrust.toml");
        self.daemon = Some(self.program.watch(&self.proxy.endpoint(), &config));
    }

    /// A daemon that was refused by storage when it started is started again, as a service manager
    /// does; any other end that nobody asked for is a failure.
    fn revive(&mut self) -> Result<(), String> {
        match self.daemon.as_mut().and_then(Daemon::ended) {
            None => Ok(()),
            Some(status) if status.code() == Some(4) => {
                self.start();
                Ok(())
            }
            Some(status) => Err(format!("the daemon ended by itself: {status}")),
        }
    }

    fn act(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Restart { kill, away, meanwhile, forget } => {
                let daemon = self.daemon.take().expect("a daemon runs between events");
                if *kill {
                    self.faults.count(Fault::DaemonKilled);
                    daemon.kill();
                } else {
                    self.faults.count(Fault::DaemonTerminated);
                    // In bad weather it may take long, and say that something was not shipped.
                    if daemon.terminate_or_kill(STOP_PATIENCE) {
                        self.faults.count(Fault::DaemonKilled);
                        self.slow_ends += 1;
                    }
                }
                self.during(*away, meanwhile)?;
                if let Some(database) = forget {
                    self.faults.count(Fault::StateDeleted);
                    self.databases[*database].forget();
                }
                self.start();
            }
            Action::Pause { length, meanwhile } => {
                self.faults.count(Fault::DaemonPaused);
                self.daemon.as_ref().expect("a daemon runs between events").pause();
                self.during(*length, meanwhile)?;
                self.daemon.as_ref().expect("a daemon runs between events").go_on();
            }
            Action::Checkpoint { database, mode } => {
                self.faults.count(*mode);
                checkpoint(&self.databases[*database].path, *mode);
            }
            Action::Reader { database, length } => {
                self.faults.count(Fault::LongReader);
                let (path, length) = (self.databases[*database].path.clone(), *length);
                self.readers.push(thread::spawn(move || stay_reading(&path, length)));
            }
            Action::ShortWriter { database, seed, commits } => {
                self.faults.count(Fault::ShortWriter);
                self.databases[*database].visit(*seed, *commits);
            }
            Action::KillWriter { database, seed } => {
                if self.databases[*database].replace_writer(*seed) {
                    self.faults.count(Fault::WriterKilled);
                }
            }
            Action::Storm { fault, length } => self.weather.storm(*fault, *length),
            Action::Restore { database } => self.restore_in_this_weather(*database)?,
        }
        Ok(())
    }

    /// Lets others act for at least so long.
    fn during(&mut self, length: Duration, meanwhile: &[Action]) -> Result<(), String> {
        let begun = Instant::now();
        for action in meanwhile {
            self.act(action)?;
        }
        thread::sleep(length.saturating_sub(begun.elapsed()));
        Ok(())
    }

    /// A restore may fail when storage does, but then it leaves nothing behind.
    fn restore_in_this_weather(&mut self, database: usize) -> Result<(), String> {
        let endpoint = self.proxy.endpoint();
        let (code, claim, stderr) = self.restore(database, &endpoint, None);
        match code {
            Some(0) => self.databases[database].claims.push(claim),
            Some(4 | 6) if !claim.path.exists() => {}
            _ => return Err(format!("{} under load: {code:?}: {stderr}", claim.what)),
        }
        Ok(())
    }

    fn restore(
        &mut self,
        database: usize,
        endpoint: &str,
        txid: Option<&str>,
    ) -> (Option<i32>, Claim, String) {
        self.restores += 1;
        let name = &self.databases[database].name;
        let path = self.directory.join(format!("restored/{}-{name}.db", self.restores));
        let output = path.display().to_string();
        let mut arguments = vec!["restore", name, "-o", &output, "--integrity-check", "full"];
        arguments.extend(txid.iter().flat_map(|txid| ["--txid", txid]));
        let (code, _, stderr) = self.program.run(endpoint, &arguments);
        let number = txid.map(|txid| u64::from_str_radix(txid, 16).expect("a TXID is hex"));
        let what =
            format!("restore {} of {name} at TXID {}", self.restores, txid.unwrap_or("newest"));
        (code, Claim { what, path, txid: number, complete: false }, stderr)
    }

    /// Ends all faults and all writers, then the daemon.
    fn settle(&mut self) -> Result<(), String> {
        self.weather.calm();
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader does not panic");
        }
        for database in &mut self.databases {
            database.stop_writers();
        }
        // What the faults have done to a daemon may outlast them, but not a new start.
        if !self.finish()?.success() {
            self.start();
            let status = self.finish()?;
            if !status.success() {
                let log = self.program.logged();
                let words = log.rsplit("\"}\n").next().unwrap_or_default();
                return Err(format!("a daemon without any fault cannot ship: {status}: {words}"));
            }
        }
        Ok(())
    }

    /// The warnings of all daemons; a panic among them is a failure.
    fn warnings(&self) -> Result<BTreeMap<String, u64>, String> {
        let log = self.program.logged();
        if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
            return Err(format!("the daemon panicked: {line}"));
        }
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut warnings = BTreeMap::new();
        if self.slow_ends > 0 {
            warnings.insert(format!("no end within {STOP_PATIENCE:?} of SIGTERM"), self.slow_ends);
        }
        for line in lines.filter(|line| line["level"] == "WARN" || line["level"] == "ERROR") {
            let message = line["message"].as_str().unwrap_or_default().to_owned();
            *warnings.entry(message).or_default() += 1;
        }
        Ok(warnings)
    }

    /// Ends the daemon once it replicates.
    fn finish(&mut self) -> Result<ExitStatus, String> {
        self.revive()?;
        while !self.daemon.as_mut().expect("it was revived").wait_until_ready() {
            self.revive()?;
        }
        Ok(self.daemon.take().expect("it is ready").terminate())
    }

    /// Restores the newest state and some others, and has all checked.
    fn reckon(mut self, schedule: &Schedule) -> Result<Tally, String> {
        let mut prng = Prng::new(schedule.weather);
        let mut tally = Tally { warnings: self.warnings()?, ..Tally::default() };
        self.check_for_remains()?;
        for index in 0..self.databases.len() {
            let newest = self.restored(index, None)?;
            let newest = Claim { complete: true, ..newest };
            let txids = self.txids(index)?;
            self.databases[index].claims.push(newest.clone());
            for _ in 0..schedule.restores {
                let txid = &txids[prng.below(txids.len() as u64) as usize];
                let claim = self.restored(index, Some(txid))?;
                self.databases[index].claims.push(claim);
            }
            let database = &self.databases[index];
            tally.restores += database.claims.len() as u64;
            tally.commits +=
                oracle::check(&database.path, &database.acknowledged, &database.claims)?;
            oracle::check_pages(&database.path, &newest.path);
        }
        Ok(tally)
    }

    /// Restores leave their outputs and nothing else, also those that failed.
    fn check_for_remains(&self) -> Result<(), String> {
        let entries = fs::read_dir(self.directory.join("restored")).expect("it was made");
        let mut found: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        let claims = self.databases.iter().flat_map(|database| &database.claims);
        let expected: Vec<_> = claims.map(|claim| &claim.path).collect();
        found.retain(|path| !expected.contains(&path));
        if found.is_empty() { Ok(()) } else { Err(format!("a restore has left {found:?}")) }
    }

    fn restored(&mut self, database: usize, txid: Option<&str>) -> Result<Claim, String> {
        let endpoint = self.endpoint.clone();
        match self.restore(database, &endpoint, txid) {
            (Some(0), claim, _) => Ok(claim),
            (code, claim, stderr) => Err(format!("{}: {code:?}: {stderr}", claim.what)),
        }
    }

    /// The TXIDs at which files of a database end, those that it has left behind not included.
    fn txids(&self, database: usize) -> Result<Vec<String>, String> {
        let name = &self.databases[database].name;
        let (code, stdout, stderr) = self.program.run(&self.endpoint, &["list", name, "--json"]);
        let listing: Value = serde_json::from_str(&stdout)
            .map_err(|error| format!("list {name}: {code:?}: {error}: {stderr}"))?;
        let files = listing["files"].as_array().ok_or("list --json has no files")?;
        let files = files.iter().filter(|file| file["abandoned"] == false);
        let txids = files.filter_map(|file| file["max_txid"].as_str().map(str::to_owned));
        Ok(txids.collect())
    }
}

fn configuration(schedule: &Schedule, databases: &[Database]) -> String {
    let mut text = format!(
        "[sync]\nwal_sync_interval = \"20ms\"\ncheckpoint_interval = \"{}ms\"\n\
         min_checkpoint_page_count = {}\n\
         [retry]\nbase_delay_ms = 5\nmax_delay_ms = 100\ncircuit_breaker_cooldown_ms = 200\n",
        schedule.checkpoint_interval.as_millis(),
        schedule.min_checkpoint_pages,
    );
    for database in databases {
        text += &format!("[[databases]]\npath = {:?}\n", database.path);
    }
    text
}
