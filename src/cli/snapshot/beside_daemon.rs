//! A snapshot of a database that a daemon replicates which cannot be asked.
//!
//! Invariant: what is stored is what the daemon itself would store: the state that storage has as its
//! head, under the name, with the metadata and the entry in the manifest that the daemon would give it;
//! and only while the name belongs to the daemon, in a format that this program knows.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use walrust_engine::manifest::{Manifest, Writer};
use walrust_engine::{ErrorClass, StoredFile, manifest_key, object_key};
use walrust_history::{
    HistoryError, ManifestObject, SHA256, WRITER, check_file, describe, edit_manifest, look_up,
    patiently, read_manifest,
};
use walrust_ltx::{FileName, Txid};
use walrust_sqlite::{StagedFile, replicating_writer, stage_head_snapshot};
use walrust_storage::{Condition, Metadata, ObjectStore};

use crate::Error;
use crate::config::Config;

/// How long the daemon may take to ship the newest commit, and how often that is looked at.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(250);

/// What an attempt came to.
enum Attempt {
    /// Storage has a snapshot of the state of the database.
    Stored(Txid),
    /// Storage has nothing under the name.
    NoFiles,
    /// The database is not in the state of the head, which has this TXID.
    Behind(Txid),
}

/// See the module.
pub(super) struct BesideDaemon<'a> {
    pub(super) store: &'a Arc<dyn ObjectStore>,
    /// Path of the database.
    pub(super) path: &'a Path,
    pub(super) config: &'a Config,
    /// Its name in storage.
    pub(super) name: &'a str,
}

impl BesideDaemon<'_> {
    /// Stores a snapshot of the state that the daemon has shipped, once the database is in it.
    ///
    /// # Errors
    /// If the daemon does not ship what the database has, or the database changes too fast, or the
    /// snapshot cannot be made or stored.
    pub(super) async fn snapshot(&self) -> Result<Txid, Error> {
        let staging = tempfile::tempdir().map_err(|source| Error::Io {
            what: "cannot create a temporary directory".to_owned(),
            source,
        })?;
        let (began, mut first) = (Instant::now(), None);
        loop {
            let waiting = match self.attempt(staging.path()).await {
                Ok(Attempt::Stored(txid)) => return Ok(txid),
                Ok(Attempt::NoFiles) => {
                    let (name, url) = (self.name.to_owned(), self.store.url());
                    Error::NoFilesOfDaemon { name, url }
                }
                Ok(Attempt::Behind(head)) if *first.get_or_insert(head) == head => {
                    Error::DaemonBehind { database: self.path.to_owned(), head }
                }
                Ok(Attempt::Behind(_)) => Error::Busy(self.path.to_owned()),
                Err(Error::Storage(error)) if error.class().is_retryable() => error.into(),
                Err(error) => return Err(error),
            };
            if began.elapsed() > PATIENCE {
                return Err(waiting);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn attempt(&self, staging: &Path) -> Result<Attempt, Error> {
        let state = self.config.state.dir.clone();
        let writer_id = replicating_writer(self.path, state.as_deref())?;
        let manifest = self.manifest(&writer_id).await?;
        let remote = look_up(self.store.as_ref(), self.name).await?;
        let Some(head) = remote.head else { return Ok(Attempt::NoFiles) };
        let (path, directory) = (self.path.to_owned(), staging.to_owned());
        // Also where storage has a snapshot: that the database is in its state is known by this.
        let stage = move || stage_head_snapshot(&path, state.as_deref(), &directory, &head);
        let staged = tokio::task::spawn_blocking(stage).await;
        let staged =
            staged.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let Some(file) = staged else { return Ok(Attempt::Behind(head.txid)) };
        if remote.last_snapshot == Some(head.txid) {
            self.check(head.txid).await?;
        } else {
            self.put(&file, &writer_id).await?;
        }
        // Without a manifest: the first one of the daemon has what was stored before it.
        if let Some(manifest) = manifest {
            self.enter(&manifest, head.txid).await?;
        }
        Ok(Attempt::Stored(head.txid))
    }

    /// Checks the snapshot that the state has. The daemon alone can follow it with another one.
    async fn check(&self, txid: Txid) -> Result<(), Error> {
        let name = FileName { min: Txid::FIRST, max: txid };
        match check_file(self.store, self.name, name).await.map_err(storage_first)? {
            None => Ok(()),
            Some(problem) => {
                let object = format!("{}/{}", self.store.url(), object_key(self.name, name));
                Err(Error::DamagedSnapshot { object, problem })
            }
        }
    }

    /// The manifest, if there is one.
    ///
    /// # Errors
    /// If it does not belong to the daemon, or a newer program wrote it.
    async fn manifest(&self, writer_id: &str) -> Result<Option<Manifest>, Error> {
        let found = read_manifest(self.store.as_ref(), self.name).await.map_err(storage_first)?;
        let Some(ManifestObject { manifest, .. }) = found else { return Ok(None) };
        if manifest.writer.id != writer_id {
            let object = format!("{}/{}", self.store.url(), manifest_key(self.name));
            let Writer { host, epoch, .. } = manifest.writer;
            return Err(HistoryError::Superseded { object, host, epoch }.into());
        }
        Ok(Some(manifest))
    }

    /// Enters the snapshot of a state into the manifest, unless it is there.
    async fn enter(&self, manifest: &Manifest, txid: Txid) -> Result<(), Error> {
        let name = FileName { min: Txid::FIRST, max: txid };
        if manifest.entries_with_retired().any(|entry| entry.file_name() == Some(name)) {
            return Ok(());
        }
        let key = object_key(self.name, name);
        let size = patiently(|| self.store.head(&key)).await?.size;
        let file = StoredFile { key, name, level: 0, size };
        if let Some(entry) = describe(self.store.as_ref(), &file).await? {
            let add = |manifest: &mut Manifest| manifest.add([entry.clone()]);
            edit_manifest(self.store.as_ref(), self.name, &manifest.writer, add)
                .await
                .map_err(storage_first)?;
        }
        Ok(())
    }

    async fn put(&self, file: &StagedFile, writer_id: &str) -> Result<(), Error> {
        let key = object_key(self.name, file.name);
        let metadata = Metadata::from([
            (SHA256.to_owned(), file.sha256.clone()),
            (WRITER.to_owned(), writer_id.to_owned()),
        ]);
        let (store, condition) = (self.store, Condition::IfAbsent);
        let put = || store.put_file(&key, &file.path, &metadata, &condition);
        match patiently(put).await {
            Ok(_) => Ok(()),
            // The answer of an attempt was lost, or the daemon was faster.
            Err(error) if error.class() == ErrorClass::Precondition => {
                let there = patiently(|| store.head(&key)).await?;
                match there.metadata.get(SHA256) == Some(&file.sha256) {
                    true => Ok(()),
                    false => Err(Error::OtherContent(format!("{}/{key}", store.url()))),
                }
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A failure of storage as what it is, so that it is told apart and tried again.
fn storage_first(error: HistoryError) -> Error {
    match error {
        HistoryError::Storage(error) => error.into(),
        error => error.into(),
    }
}
