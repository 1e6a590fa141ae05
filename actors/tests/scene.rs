//! Databases, a store and a tree between them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use walrust_actors::{
    DatabasePhase, DatabaseSettings, DatabaseStatus, NotShipped, Replicator, Settings,
    UploadLimits, UploaderStatus,
};
use walrust_engine::manifest::Manifest;
use walrust_engine::{BreakerSettings, CheckpointSettings, RestoreTarget, RetryPolicy, Tree};
use walrust_ltx::Mode;
use walrust_sqlite::{IntegrityCheck, Restore};
use walrust_storage::{Condition, Metadata, ObjectStore};
use walrust_testkit::{TestDatabase, Workload, assert_same_database};

use crate::fault_store::FaultStore;

/// How long anything may take before a test has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Scene {
    pub(crate) store: Arc<FaultStore>,
    pub(crate) databases: Vec<(String, TestDatabase, Workload)>,
    pub(crate) sync_interval: Duration,
    pub(crate) checkpoint: CheckpointSettings,
    pub(crate) limits: UploadLimits,
    pub(crate) breaker: BreakerSettings,
}

impl Scene {
    /// A scene with databases named `a`, `b`, ...
    pub(crate) fn new(databases: u8) -> Self {
        let databases = (0..databases).map(|index| {
            let name = char::from(b'a' + index).to_string();
            let database = TestDatabase::with_history(4096, u64::from(index), 20);
            database.run("CREATE TABLE extra (x)");
            (name, database, Workload::new(100 + u64::from(index)))
        });
        Self {
            store: Arc::new(FaultStore::default()),
            databases: databases.collect(),
            sync_interval: Duration::from_millis(10),
            checkpoint: CheckpointSettings::default(),
            limits: UploadLimits { concurrency: 4, ..UploadLimits::default() },
            breaker: BreakerSettings {
                cooldown: Duration::from_millis(200),
                ..BreakerSettings::default()
            },
        }
    }

    /// Another host that has copies of the same databases, no local state, and the same store.
    pub(crate) fn copied(&self) -> Self {
        let copy = |(name, database, workload): &(String, TestDatabase, Workload)| {
            (name.clone(), database.copied(), workload.clone())
        };
        Self {
            store: Arc::clone(&self.store),
            databases: self.databases.iter().map(copy).collect(),
            sync_interval: self.sync_interval,
            checkpoint: self.checkpoint,
            limits: self.limits,
            breaker: self.breaker,
        }
    }

    pub(crate) async fn start(&self) -> Replicator {
        self.start_with(self.settings()).await
    }

    pub(crate) async fn start_with(&self, settings: Settings) -> Replicator {
        let store: Arc<dyn ObjectStore> = self.store.clone();
        Replicator::start(settings, store).await.unwrap()
    }

    pub(crate) fn settings(&self) -> Settings {
        let databases = self.databases.iter().map(|(name, database, _)| DatabaseSettings {
            sync_interval: self.sync_interval,
            checkpoint: self.checkpoint,
            ..DatabaseSettings::new(name.clone(), database.path().to_owned())
        });
        Settings {
            retry: RetryPolicy {
                base_delay: Duration::from_millis(5),
                max_delay: Duration::from_millis(50),
                ..RetryPolicy::default()
            },
            limits: self.limits,
            breaker: self.breaker,
            // Short enough that databases rest between the steps of a test.
            rest_after: Duration::from_millis(20),
            ..Settings::new(databases.collect(), "test".to_owned())
        }
    }

    /// Some commits in every database.
    pub(crate) fn write(&mut self, steps: u32) {
        for (_, database, workload) in &mut self.databases {
            for _ in 0..steps {
                database.step(workload);
            }
        }
    }

    /// Exactly one commit in one database.
    pub(crate) fn commit(&self, index: usize) {
        self.databases[index].1.run("INSERT INTO extra VALUES (randomblob(100))");
    }

    /// Restores every database and compares it with its source.
    pub(crate) async fn assert_restorable(&self) {
        for (name, database, _) in &self.databases {
            let directory = tempfile::tempdir().unwrap();
            let output = directory.path().join("restored.db");
            self.restore(name, &output).await;
            assert_same_database(database.path(), &output);
        }
    }

    pub(crate) async fn restore(&self, name: &str, output: &std::path::Path) {
        let tree = self.tree(name).await;
        let plan = walrust_engine::plan_restore(&tree, RestoreTarget::Latest).unwrap();
        let mut restore = Restore::begin(output, false, Mode::Strict).unwrap();
        for (file, _) in &plan.files {
            let bytes = self.store.get(&file.key).await.unwrap().bytes().await.unwrap();
            restore.apply(&file.key, file.name, bytes.as_ref()).unwrap();
        }
        restore.finish(IntegrityCheck::Full).unwrap();
    }

    pub(crate) async fn tree(&self, name: &str) -> Tree {
        let listing = self.store.list(&format!("{name}/"), None).await.unwrap();
        Tree::read(name, listing.iter().map(|entry| (entry.key.as_str(), entry.size)))
    }

    /// The `manifest.json` of a database. The first one comes a moment after the first snapshot, which
    /// is all that a status tells of: it is waited for.
    pub(crate) async fn manifest(&self, name: &str) -> Manifest {
        let began = Instant::now();
        loop {
            match self.try_manifest(name).await {
                Ok(manifest) => return manifest,
                Err(problem) => assert!(began.elapsed() < PATIENCE, "{problem}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The `manifest.json` of a database, or why there is none.
    pub(crate) async fn try_manifest(&self, name: &str) -> Result<Manifest, String> {
        let object = self.store.get(&format!("{name}/manifest.json")).await;
        let bytes = object.map_err(|error| error.to_string())?.bytes().await;
        let bytes = bytes.map_err(|error| error.to_string())?;
        Manifest::parse(&bytes).map_err(|error| error.to_string())
    }

    /// Flips a bit in the middle of an object.
    pub(crate) async fn damage(&self, key: &str) {
        let mut bytes = self.store.get(key).await.unwrap().bytes().await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.store.put(key, bytes.into(), &Metadata::new(), &Condition::None).await.unwrap();
    }

    /// Deletes every object of a database.
    pub(crate) async fn empty(&self, name: &str) {
        let listing = self.store.list(&format!("{name}/"), None).await.unwrap();
        let keys: Vec<String> = listing.into_iter().map(|entry| entry.key).collect();
        assert!(self.store.delete(&keys).await.unwrap().is_empty());
    }

    pub(crate) fn path(&self, index: usize) -> PathBuf {
        self.databases[index].1.path().to_owned()
    }
}

/// Waits until a database is in a phase.
pub(crate) async fn wait_for_phase(
    replicator: &Replicator,
    name: &str,
    phase: DatabasePhase,
) -> DatabaseStatus {
    wait_for_status(replicator, name, |status| status.phase == phase).await
}

/// The status of a database. On a busy machine a question may stay without an answer.
pub(crate) async fn status_of(replicator: &Replicator, name: &str) -> DatabaseStatus {
    wait_for_status(replicator, name, |_| true).await
}

pub(crate) async fn wait_for_status(
    replicator: &Replicator,
    name: &str,
    wanted: impl Fn(&DatabaseStatus) -> bool,
) -> DatabaseStatus {
    let began = Instant::now();
    loop {
        let status = replicator.status(name).await;
        if let Ok(status) = &status
            && wanted(status)
        {
            return status.clone();
        }
        assert!(began.elapsed() < PATIENCE, "{name} did not get there: {status:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for something that can be seen from outside.
pub(crate) async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "it never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn wait_for_uploads(
    replicator: &Replicator,
    wanted: impl Fn(&UploaderStatus) -> bool,
) -> UploaderStatus {
    let began = Instant::now();
    loop {
        let status = replicator.uploader_status().await;
        if let Ok(status) = &status
            && wanted(status)
        {
            return *status;
        }
        assert!(began.elapsed() < PATIENCE, "the uploads did not get there: {status:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Ends a tree and expects that everything was shipped.
pub(crate) async fn shut_down(replicator: Replicator) {
    let not_shipped: Vec<NotShipped> = replicator.shut_down(PATIENCE).await.unwrap();
    assert_eq!(not_shipped, []);
}
