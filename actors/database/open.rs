//! Opens a database: pins its WAL, then finds out from the bucket where to continue.

use std::fs::File;
use std::io::{BufReader, Seek};
use std::pin::pin;
use std::time::{Duration, SystemTime};

use ractor::ActorRef;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, Semaphore};
use walrust_engine::{RestorePlanError, RestoreTarget, StoredFile, WalFill, plan_restore};
use walrust_history::{HistoryError, Remote, RemoteError, look_up};
use walrust_ltx::Txid;
use walrust_sqlite::{
    Capture, CaptureOptions, DatabaseError, Head, HeadTable, Reconciliation, StagedFile, kept_name,
};
use walrust_storage::{ObjectStore, StorageError};

use super::job::Held;
use super::{Cause, DatabaseArguments, DatabaseMsg, Refusal};
use crate::blocking::{GatePass, JobPanicked};
use crate::crash_point::job_point;
use crate::manifest_update::{Writer, claim};
use crate::settings::DatabaseSettings;
use crate::uploader::Admission;

/// Bounds what is asked of the store for databases that are being opened: a thousand that start
/// together, or come back together, are no herd.
#[derive(Debug)]
pub(crate) struct Openings {
    /// Databases that look their position up.
    asking: Semaphore,
    /// Databases that fetch files to compare with, which may take long.
    fetching: Semaphore,
}

impl Openings {
    const ASKING: usize = 16;
    const FETCHING: usize = 4;

    pub(crate) fn new() -> Self {
        Self { asking: Semaphore::new(Self::ASKING), fetching: Semaphore::new(Self::FETCHING) }
    }
}

/// How long an opening that is to stop waits for leave to ask storage.
const LAST_MOMENT: Duration = Duration::from_secs(1);

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
    /// Why the files in the bucket do not lead to its newest state, if so.
    pub(super) lost: Option<RestorePlanError>,
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
    /// The manifest is of a higher format.
    #[error(transparent)]
    Manifest(HistoryError),
    #[error("cannot keep a file of the bucket for comparison: {0}")]
    Fetch(std::io::Error),
    #[error(transparent)]
    Panicked(#[from] JobPanicked),
    #[error("stopped before storage had answered")]
    Stopped,
}

impl OpenError {
    /// The error as those see it who ask something of the database.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Database(error) => Refusal::from(error),
            Self::Storage(error) | Self::Remote(RemoteError::Storage(error)) => {
                Refusal::from(error)
            }
            Self::Stopped => Refusal::new(Cause::Storage, self),
            Self::Remote(_) | Self::Manifest(_) | Self::Fetch(_) | Self::Panicked(_) => {
                Refusal::new(Cause::Other, self)
            }
        }
    }

    /// Whether the database or its WAL is damaged.
    pub(super) fn is_corruption(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_corruption())
    }
}

impl From<HistoryError> for OpenError {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Storage(error) => Self::Storage(error),
            error => Self::Manifest(error),
        }
    }
}

/// Tells the actor how an attempt to open ended, also if it panics: an actor that waits for an outcome
/// that never comes would not replicate, and say nothing.
#[derive(Debug)]
pub(super) struct Opening {
    actor: ActorRef<DatabaseMsg>,
    outcome: OpenOutcome,
}

impl Opening {
    pub(super) fn new(actor: ActorRef<DatabaseMsg>) -> Self {
        Self { actor, outcome: OpenOutcome::Failed(OpenError::Panicked(JobPanicked)) }
    }

    pub(super) fn ended(mut self, outcome: OpenOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let panicked = OpenOutcome::Failed(OpenError::Panicked(JobPanicked));
        let outcome = std::mem::replace(&mut self.outcome, panicked);
        // If the actor is gone, the capture is dropped with the message and the gate opens.
        let _ = self.actor.cast(DatabaseMsg::Opened(outcome));
    }
}

/// Opens a database; `stop` ends the wait for a storage that is away.
pub(super) async fn open(arguments: DatabaseArguments, stop: &Notify) -> OpenOutcome {
    match try_open(arguments, stop).await {
        Ok(opened) => OpenOutcome::Opened(Box::new(opened)),
        Err(error) => OpenOutcome::Failed(error),
    }
}

async fn try_open(arguments: DatabaseArguments, stop: &Notify) -> Result<Opened, OpenError> {
    let pass = arguments.gate.enter().await;
    job_point("database::opening");
    // Before anything is held: while storage is away the application's WAL is its own.
    let mut admission = pin!(Admission::of(&arguments.services.uploader, &arguments.settings.name));
    let admission = tokio::select! {
        admission = &mut admission => admission,
        // Unless storage is away the answer is on its way.
        () = stop.notified() => {
            let admission = tokio::time::timeout(LAST_MOMENT, admission).await;
            admission.map_err(|_| OpenError::Stopped)?
        }
    };
    let settings = arguments.settings.clone();
    // The pin comes first, so that nothing vanishes while the bucket is asked.
    let held = arguments.pool.run(move || open_capture(&settings, pass)).await??;
    let staged = held.capture.staged();
    arguments.standing.found_staged(staged.len(), staged.iter().map(|file| file.size).sum());
    let (store, name) = (arguments.store.as_ref(), &arguments.settings.name);
    let turn = arguments.openings.asking.acquire().await;
    let asked = ask(store, name, held.capture.writer_id(), &arguments.host).await;
    admission.ended(match &asked {
        Err(OpenError::Storage(error) | OpenError::Remote(RemoteError::Storage(error))) => {
            Err(error)
        }
        _ => Ok(()),
    });
    let (remote, writer) = asked?;
    drop(turn);
    // What comes after a gap could not be restored.
    let newest = remote.head.map(|_| plan_restore(&remote.tree, RestoreTarget::Latest));
    let lost = newest.and_then(Result::err);
    let (held, new_chain) = match &lost {
        Some(_) => begin_new_chain(&arguments, held, &remote).await?,
        None => reconcile(&arguments, held, &remote).await?,
    };
    let finish = move || {
        let wal = held.capture.wal_fill()?;
        Ok::<_, DatabaseError>((held, wal))
    };
    let (held, wal) = arguments.pool.run(finish).await??;
    let staged = held.capture.staged();
    let Remote { last_snapshot, last_snapshot_at, .. } = remote;
    Ok(Opened { held, new_chain, lost, staged, wal, last_snapshot, last_snapshot_at, writer })
}

/// What the bucket has of a database, and how to sign its manifest.
async fn ask(
    store: &dyn ObjectStore,
    name: &str,
    writer_id: &str,
    host: &str,
) -> Result<(Remote, Writer), OpenError> {
    let remote = look_up(store, name).await?;
    let writer = claim(store, name, writer_id, host).await?;
    Ok((remote, writer))
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
    // The files after the local position are fewer; all of them always do.
    let starts = [after, None];
    for start in starts.into_iter().skip(usize::from(after.is_none())) {
        let Some(head) = head.filter(|head| head.checksum.is_some()) else { break };
        let adopted;
        (held, adopted) = learn(arguments, held, remote, head, start).await?;
        if adopted {
            return Ok((held, None));
        }
    }
    begin_new_chain(arguments, held, remote).await
}

async fn begin_new_chain(
    arguments: &DatabaseArguments,
    mut held: Held,
    remote: &Remote,
) -> Result<(Held, Option<Txid>), OpenError> {
    let head = remote.head;
    let begin = move || {
        let txid = held.capture.begin_new_chain(head.as_ref())?;
        Ok::<_, DatabaseError>((held, Some(txid)))
    };
    Ok(arguments.pool.run(begin).await??)
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
    let _turn = arguments.openings.fetching.acquire().await;
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
    // The file of a large database is large as well.
    Ok(arguments.pool.run_long(apply).await??)
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
