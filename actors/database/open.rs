//! Opens a database: pins its WAL, then finds out from the bucket where to continue.

use std::fs::File;
use std::io::{BufReader, Seek};
use std::time::SystemTime;

use tokio::io::AsyncWriteExt;
use walrust_engine::{RestoreTarget, StoredFile, WalFill, plan_restore};
use walrust_ltx::Txid;
use walrust_sqlite::{
    Capture, CaptureOptions, DatabaseError, Head, HeadTable, Reconciliation, StagedFile, kept_name,
};
use walrust_storage::{ObjectStore, StorageError};

use super::DatabaseArguments;
use super::job::Held;
use crate::blocking::{GatePass, JobPanicked};
use crate::manifest_update::{Writer, claim};
use crate::remote::{Remote, RemoteError, look_up};
use crate::settings::DatabaseSettings;

/// How an attempt to open ended.
#[derive(Debug)]
pub(crate) enum OpenOutcome {
    /// The database can be replicated.
    Opened(Box<Opened>),
    /// It cannot at the moment.
    Failed(OpenError),
}

/// An open database.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(super) held: Held,
    /// TXID of the snapshot that begins a new chain, if one has to.
    pub(super) new_chain: Option<Txid>,
    /// What an earlier run staged and storage does not have.
    pub(super) staged: Vec<StagedFile>,
    pub(super) wal: WalFill,
    /// TXID of the newest snapshot in the bucket.
    pub(super) last_snapshot: Option<Txid>,
    /// When it was stored.
    pub(super) last_snapshot_at: Option<SystemTime>,
    /// How this process signs the manifest.
    pub(super) writer: Writer,
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("cannot keep a file of the bucket for comparison: {0}")]
    Fetch(std::io::Error),
    #[error(transparent)]
    Panicked(#[from] JobPanicked),
}

impl OpenError {
    /// Whether the database or its WAL is damaged.
    pub(super) fn is_corruption(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_corruption())
    }
}

pub(super) async fn open(arguments: DatabaseArguments) -> OpenOutcome {
    match try_open(arguments).await {
        Ok(opened) => OpenOutcome::Opened(Box::new(opened)),
        Err(error) => OpenOutcome::Failed(error),
    }
}

async fn try_open(arguments: DatabaseArguments) -> Result<Opened, OpenError> {
    let pass = arguments.gate.enter().await;
    let settings = arguments.settings.clone();
    // The pin comes first, so that nothing vanishes while the bucket is asked.
    let held = arguments.pool.run(move || open_capture(&settings, pass)).await??;
    let _turn = arguments.openings.acquire().await;
    let (store, name) = (arguments.store.as_ref(), &arguments.settings.name);
    let remote = look_up(store, name).await?;
    let writer = claim(store, name, held.capture.writer_id(), &arguments.host).await?;
    let (held, new_chain) = reconcile(&arguments, held, &remote).await?;
    let finish = move || {
        let wal = held.capture.wal_fill()?;
        Ok::<_, DatabaseError>((held, wal))
    };
    let (held, wal) = arguments.pool.run(finish).await??;
    let staged = held.capture.staged();
    let Remote { last_snapshot, last_snapshot_at, .. } = remote;
    Ok(Opened { held, new_chain, staged, wal, last_snapshot, last_snapshot_at, writer })
}

fn open_capture(settings: &DatabaseSettings, pass: GatePass) -> Result<Held, DatabaseError> {
    let options = CaptureOptions {
        wal_pin: settings.wal_pin,
        state_directory: settings.state_directory.clone(),
    };
    let capture = Capture::open(&settings.path, &options)?;
    keep_name(settings);
    Ok(Held { capture, pass })
}

/// Keeps the name in local state, which there is now: it stays although others come and go.
fn keep_name(settings: &DatabaseSettings) {
    let Some(kept) = &settings.kept_name else { return };
    let Ok(path) = settings.path.canonicalize() else { return };
    let state = settings.state_directory.as_deref();
    if matches!(kept_name(&path, state), Ok(Some(found)) if found == *kept) {
        return;
    }
    if let Err(error) = walrust_sqlite::keep_name(&path, state, kept) {
        // It follows from the path again at the next start.
        tracing::warn!(db = settings.name, %error, "cannot keep the name of a database");
    }
}

/// Finds the place of the bucket's head in the history of the database; the TXID of a new chain if
/// there is none.
async fn reconcile(
    arguments: &DatabaseArguments,
    mut held: Held,
    remote: &Remote,
) -> Result<(Held, Option<Txid>), OpenError> {
    let head = remote.head;
    let compare = move || {
        let outcome = held.capture.reconcile(head.as_ref())?;
        Ok::<_, DatabaseError>((held, outcome))
    };
    let (mut held, outcome) = arguments.pool.run(compare).await??;
    let Reconciliation::Differs { after } = outcome else { return Ok((held, None)) };
    // The files behind the local position are fewer; all of them always do.
    let starts = [after, None];
    for start in starts.into_iter().skip(usize::from(after.is_none())) {
        let Some(head) = head.filter(|head| head.checksum.is_some()) else { break };
        let adopted;
        (held, adopted) = learn(arguments, held, remote, head, start).await?;
        if adopted {
            return Ok((held, None));
        }
    }
    let begin = move || {
        let txid = held.capture.begin_new_chain(head.as_ref())?;
        Ok::<_, DatabaseError>((held, txid))
    };
    let (held, txid) = arguments.pool.run(begin).await??;
    Ok((held, Some(txid)))
}

/// Makes the table of the head's page checksums from the files that lead there; whether it became
/// the position.
async fn learn(
    arguments: &DatabaseArguments,
    held: Held,
    remote: &Remote,
    head: Head,
    after: Option<Txid>,
) -> Result<(Held, bool), OpenError> {
    let Ok(plan) = plan_restore(&remote.tree, RestoreTarget::Latest) else {
        return Ok((held, false));
    };
    let files = plan.files.into_iter().map(|(file, _)| file);
    let files: Vec<_> =
        files.filter(|file| after.is_none_or(|after| file.name.min > after)).collect();
    let begin = move || {
        let table = held.capture.head_table(&head, after)?;
        Ok::<_, DatabaseError>((held, table))
    };
    let (held, mut table) = arguments.pool.run(begin).await??;
    for file in files {
        let applied;
        (table, applied) = apply(arguments, table, file).await?;
        if !applied {
            return Ok((held, false));
        }
    }
    let adopt = move || {
        let mut held = held;
        let adopted = held.capture.adopt_table(table, &head)?;
        Ok::<_, DatabaseError>((held, adopted))
    };
    Ok(arguments.pool.run(adopt).await??)
}

async fn apply(
    arguments: &DatabaseArguments,
    mut table: HeadTable,
    file: StoredFile,
) -> Result<(HeadTable, bool), OpenError> {
    let input = fetch(arguments.store.as_ref(), &file.key).await?;
    let apply = move || {
        let applied = table.apply(file.name, BufReader::new(input))?;
        Ok::<_, DatabaseError>((table, applied))
    };
    Ok(arguments.pool.run(apply).await??)
}

/// Fetches an object into a file without a name.
async fn fetch(store: &dyn ObjectStore, key: &str) -> Result<File, OpenError> {
    let mut object = store.get(key).await?;
    let file = tempfile::tempfile().map_err(OpenError::Fetch)?;
    let mut out = tokio::fs::File::from_std(file);
    tokio::io::copy(&mut object.body, &mut out).await.map_err(OpenError::Fetch)?;
    out.flush().await.map_err(OpenError::Fetch)?;
    let mut file = out.into_std().await;
    file.rewind().map_err(OpenError::Fetch)?;
    Ok(file)
}
