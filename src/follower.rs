//! Follows the configuration file and the patterns in it while the daemon runs.
//!
//! Invariants: a change is applied whole or not at all: everything that it needs (the file, the names,
//! another store) is made before the tree hears of it. A file that is not valid changes nothing, is
//! logged once with its line, and is shown by `walrust status`. Databases that are too many for the
//! process change nothing either: those that run go on, and the change is applied when it fits. A file that is still being written is
//! left alone until it has been the same for one look.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::Signal;
use walrust_actors::{Applied, DatabaseSettings, Settings};
use walrust_storage::ObjectStore;

use crate::Error;
use crate::config::{self, Config, DatabaseSection};
use crate::control::Served;
use crate::pattern::is_pattern;
use crate::problems::Problems;
use crate::resolver::{LeftOut, Resolution, Resolver};
use crate::runtime::check_descriptors;
use crate::settings::{self, Typed};
use crate::storage_source::StorageSource;
use crate::tenant::fingerprint;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Looks between two looks at all files that patterns may match.
const LOOKS_PER_SWEEP: u32 = 2;
/// The longest time between two looks at the local state of deleted databases.
const ORPHANS: Duration = Duration::from_secs(60 * 60);

/// Where the settings come from.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The configuration file, if there is one.
    pub(crate) file: Option<PathBuf>,
    /// What was typed; it stays as it is.
    pub(crate) typed: Typed,
    /// What was typed of the storage.
    pub(crate) storage: StorageSource,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Follower {
    origin: Origin,
    /// The configuration that is in force.
    config: Config,
    /// The databases and names that were found; `None` while a look is under way.
    resolver: Option<Resolver>,
    databases: Vec<DatabaseSettings>,
    /// The entries of the configuration and what was typed; `None` until a sweep needs them.
    sections: Option<Arc<Vec<DatabaseSection>>>,
    /// Which databases the last sweep has found.
    fingerprint: Option<u64>,
    /// The file that was read last, and the one of the last look.
    read: Option<Stamp>,
    seen: Option<Stamp>,
    /// That file was not applied since its databases are too many for the process; they may become
    /// fewer.
    did_not_fit: bool,
    problems: Problems,
    /// When the local state of deleted databases is looked at next.
    next_orphans: Instant,
}

/// What a file looks like: another stamp is another content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: Option<SystemTime>,
}

impl Follower {
    /// A follower of what is in force.
    pub(crate) fn new(
        origin: Origin,
        config: Config,
        resolver: Resolver,
        settings: Settings,
    ) -> Self {
        let seen = origin.file.as_deref().and_then(stamp);
        let databases = settings.databases;
        Self {
            origin,
            config,
            resolver: Some(resolver),
            databases,
            sections: None,
            fingerprint: None,
            read: seen,
            seen,
            did_not_fit: false,
            problems: Problems::default(),
            next_orphans: Instant::now(),
        }
    }

    /// Follows for as long as it runs. SIGHUP has the file read at once.
    pub(crate) async fn follow(&mut self, served: &Served, hangup: &mut Signal) {
        for look in 1_u32.. {
            let forced = tokio::select! {
                () = tokio::time::sleep(LOOK) => false,
                _ = hangup.recv() => true,
            };
            let sweeps = look.is_multiple_of(LOOKS_PER_SWEEP);
            let reads = forced || self.file_changed() || sweeps && self.did_not_fit;
            if reads {
                self.read = self.seen;
                let outcome = self.read_again(served).await;
                self.did_not_fit = matches!(outcome, Err(Error::DescriptorLimit { .. }));
                let file = outcome.err().map(|error| error.to_string());
                // Whoever reads the file looks at what patterns match as well.
                let databases = self.problems.databases.clone().filter(|_| file.is_some());
                self.report(served, Problems { file, databases, ..self.problems.clone() });
            }
            let is_current = reads && self.problems.file.is_none();
            let looks = self.has_patterns() || !self.problems.left_out.is_empty();
            if sweeps && !is_current && looks {
                let outcome = self.sweep(served).await;
                let databases = outcome.err().map(|error| error.to_string());
                self.report(served, Problems { databases, ..self.problems.clone() });
            }
            // What was found is what is replicated, so that nobody works on a state that goes.
            let is_applied = self.problems.databases.is_none() && !self.did_not_fit;
            if is_applied && self.next_orphans <= Instant::now() && self.has_patterns() {
                self.remove_orphans().await;
            }
        }
    }

    /// Whether the file is another one than was read last, and has been so for one look.
    fn file_changed(&mut self) -> bool {
        let Some(file) = &self.origin.file else { return false };
        let now = stamp(file);
        let settled = now.is_some() && now == self.seen;
        self.seen = now;
        settled && now != self.read
    }

    async fn read_again(&mut self, served: &Served) -> Result<(), Error> {
        let config = match &self.origin.file {
            Some(file) => config::read(file)?,
            None => Config::default(),
        };
        let Resolution { settings, left_out } = self.resolve(&config).await?;
        let store = if config.s3 == self.config.s3 {
            None
        } else {
            let store = self.origin.storage.open(&config).await?;
            // Credentials and bucket are checked before anything is moved there.
            store.list("walrust/", None).await?;
            Some(store)
        };
        if config.control != self.config.control {
            tracing::warn!("[control] is only read at startup; restart walrust to apply it");
        }
        self.apply(settings, store, served).await?;
        self.config = config;
        (self.sections, self.fingerprint) = (None, None);
        self.leave_out(served, &left_out);
        Ok(())
    }

    /// Looks at what patterns match now. Most looks find what the last one found, among perhaps
    /// thousands of databases: then nothing more is done.
    async fn sweep(&mut self, served: &Served) -> Result<(), Error> {
        let sections = self.sections()?;
        let (config, typed) = (self.config.clone(), self.origin.typed.clone());
        // What is left out may have become readable.
        let before = self.fingerprint.filter(|_| self.problems.left_out.is_empty());
        let look = move |resolver: &mut Resolver| {
            let found = resolver.look(&sections)?;
            let now = fingerprint(&found);
            if before == Some(now) {
                return Ok(None);
            }
            Ok::<_, Error>(Some((now, resolver.settings(found, &sections, &config, &typed)?)))
        };
        let Some((now, resolution)) = self.with_resolver(look).await? else { return Ok(()) };
        let Resolution { settings, left_out } = resolution;
        if settings.databases != self.databases {
            self.apply(settings, None, served).await?;
        }
        self.leave_out(served, &left_out);
        self.fingerprint = Some(now);
        Ok(())
    }

    /// The entries of the configuration and what was typed.
    fn sections(&mut self) -> Result<Arc<Vec<DatabaseSection>>, Error> {
        let sections = match &self.sections {
            Some(sections) => Arc::clone(sections),
            None => Arc::new(settings::sections(&self.config, &self.origin.typed)?),
        };
        self.sections = Some(Arc::clone(&sections));
        Ok(sections)
    }

    /// Removes local state of databases that have been deleted for long enough.
    async fn remove_orphans(&mut self) {
        let keep = self.config.state.keep_deleted();
        self.next_orphans = Instant::now() + keep.map_or(ORPHANS, |keep| keep.min(ORPHANS));
        let (Some(keep), Ok(sections)) = (keep, self.sections()) else { return };
        let state = self.config.state.dir.clone();
        let remove = move |resolver: &mut Resolver| {
            resolver.remove_orphans(&sections, state.as_deref(), keep)
        };
        if let Err(error) = self.with_resolver(remove).await {
            tracing::warn!(%error, "cannot clean up the local state of deleted databases");
        }
    }

    async fn resolve(&mut self, config: &Config) -> Result<Resolution, Error> {
        let (config, typed) = (config.clone(), self.origin.typed.clone());
        self.with_resolver(move |resolver| resolver.resolve(&config, &typed)).await
    }

    /// Does what blocks on a thread for it.
    async fn with_resolver<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Resolver) -> T + Send + 'static,
    ) -> T {
        let mut resolver = self.resolver.take().unwrap_or_default();
        let done = tokio::task::spawn_blocking(move || (work(&mut resolver), resolver)).await;
        let (answer, resolver) =
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        self.resolver = Some(resolver);
        answer
    }

    async fn apply(
        &mut self,
        settings: Settings,
        store: Option<Arc<dyn ObjectStore>>,
        served: &Served,
    ) -> Result<(), Error> {
        check_descriptors(settings.databases.len())?;
        let databases = settings.databases.clone();
        let url = store.as_ref().map(|store| store.url());
        let Applied { added, removed, changed } =
            served.replicator.reconfigure(settings, store).await?;
        self.databases = databases;
        if let Some(url) = url {
            tracing::info!(%url, "switching all databases to another storage");
            served.storage.store(Arc::new(url));
        }
        let (added, removed, changed) = (added.len(), removed.len(), changed.len());
        tracing::info!(added, removed, changed, "configuration applied");
        Ok(())
    }

    /// Notes which databases are not replicated.
    pub(crate) fn leave_out(&mut self, served: &Served, left_out: &[LeftOut]) {
        self.report(served, self.problems.clone().with_left_out(left_out));
    }

    /// Shows what is wrong now, and tells what was not wrong before.
    fn report(&mut self, served: &Served, problems: Problems) {
        let before = std::mem::replace(&mut self.problems, problems);
        let now = &self.problems;
        for (error, known) in [(&now.file, &before.file), (&now.databases, &before.databases)] {
            if let Some(error) = error.as_ref().filter(|_| error != known) {
                tracing::error!(error, "configuration not applied");
                reject(served, error);
            }
        }
        for (path, error) in now.left_out.iter().filter(|it| !before.left_out.contains(it)) {
            tracing::error!(path = %path.display(), error, "database not replicated");
            reject(served, error);
        }
        served.problems.store(Arc::new(now.clone()));
    }

    fn has_patterns(&self) -> bool {
        let configured = self.config.databases.iter().map(|section| &section.path);
        configured.chain(&self.origin.typed.databases).any(|path| is_pattern(path))
    }
}

/// Tells receivers of events what is not applied.
fn reject(served: &Served, error: &str) {
    if let Err(error) = served.replicator.config_rejected(error.to_owned()) {
        tracing::debug!(%error, "nobody is left to tell it");
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        inode: (metadata.dev(), metadata.ino()),
        size: metadata.len(),
        modified: metadata.modified().ok(),
    })
}
