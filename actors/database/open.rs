//! Opens a database: pins its WAL, then finds out from the bucket where to continue.

use std::path::PathBuf;
use std::sync::Arc;

use walrust_engine::{Layout, StoredFile, Tree};
use walrust_ltx::Txid;
use walrust_sqlite::{Capture, DatabaseError, Head, Reconciliation, WalStatus};
use walrust_storage::{ObjectStore, StorageError};

use super::DatabaseArguments;
use super::job::Held;
use crate::blocking::{GatePass, JobPanicked};
use crate::manifest_update::read_ends;

/// How an attempt to open ended.
#[derive(Debug)]
pub(crate) enum OpenOutcome {
    /// The database can be replicated.
    Opened(Opened),
    /// It cannot at the moment.
    Failed(OpenError),
}

/// An open database.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(super) held: Held,
    pub(super) reconciliation: Reconciliation,
    pub(super) wal: WalStatus,
    /// TXID of the newest snapshot in the bucket.
    pub(super) last_snapshot: Option<Txid>,
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(
        "{name} in {url} holds files of another program ({layout} layout); \
         give this database another prefix"
    )]
    NameTaken { name: String, url: String, layout: Layout },
    #[error(transparent)]
    Panicked(#[from] JobPanicked),
}

/// The newest files of a database in the bucket.
struct Remote {
    head: Option<Head>,
    last_snapshot: Option<Txid>,
}

pub(super) async fn open(arguments: DatabaseArguments) -> OpenOutcome {
    match try_open(arguments).await {
        Ok(opened) => OpenOutcome::Opened(opened),
        Err(error) => OpenOutcome::Failed(error),
    }
}

async fn try_open(arguments: DatabaseArguments) -> Result<Opened, OpenError> {
    let pass = arguments.gate.enter().await;
    let path = arguments.settings.path.clone();
    // The pin comes first, so that nothing vanishes while the bucket is asked.
    let held = arguments.pool.run(move || open_capture(path, pass)).await??;
    let remote = look_up(&arguments.store, &arguments.settings.name).await?;
    let Remote { head, last_snapshot } = remote;
    let reconcile = move || {
        let mut held = held;
        let reconciliation = held.capture.reconcile(head.as_ref())?;
        let wal = held.capture.wal_status()?;
        Ok::<_, DatabaseError>((held, reconciliation, wal))
    };
    let (held, reconciliation, wal) = arguments.pool.run(reconcile).await??;
    Ok(Opened { held, reconciliation, wal, last_snapshot })
}

fn open_capture(path: PathBuf, pass: GatePass) -> Result<Held, DatabaseError> {
    Ok(Held { capture: Capture::open(&path)?, _pass: pass })
}

async fn look_up(store: &Arc<dyn ObjectStore>, name: &str) -> Result<Remote, OpenError> {
    let listing = store.list(&format!("{name}/"), None).await?;
    let tree = Tree::read(name, listing.iter().map(|entry| (entry.key.as_str(), entry.size)));
    if tree.layout != Layout::Walrust {
        let (name, url) = (name.to_owned(), store.url());
        return Err(OpenError::NameTaken { name, url, layout: tree.layout });
    }
    let snapshots = tree.files.iter().filter(|file| file.name.is_snapshot());
    let last_snapshot = snapshots.map(|file| file.name.max).max();
    // Of a snapshot and an incremental with the same end either tells the head.
    let newest = tree.files.iter().max_by_key(|file| file.name.max);
    let head = match newest {
        Some(file) => Some(head_of(store.as_ref(), file).await?),
        None => None,
    };
    Ok(Remote { head, last_snapshot })
}

async fn head_of(store: &dyn ObjectStore, file: &StoredFile) -> Result<Head, OpenError> {
    let ends = read_ends(store, file).await?;
    Ok(match ends {
        Some(ends) => Head {
            txid: file.name.max,
            checksum: ends.post_apply,
            page_size: ends.header.page_size,
            page_count: ends.header.commit,
            timestamp_ms: ends.header.timestamp_ms,
        },
        None => {
            tracing::warn!(key = %file.key, "the newest file is damaged; a snapshot goes behind it");
            Head {
                txid: file.name.max,
                checksum: None,
                page_size: walrust_ltx::PageSize::ALL[0],
                page_count: 0,
                timestamp_ms: i64::MIN,
            }
        }
    })
}
