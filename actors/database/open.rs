//! Opens a database: pins its WAL, then finds out from the bucket where to continue.

use std::path::PathBuf;

use walrust_ltx::Txid;
use walrust_sqlite::{Capture, DatabaseError, Reconciliation, WalStatus};

use super::DatabaseArguments;
use super::job::Held;
use crate::blocking::{GatePass, JobPanicked};
use crate::remote::{Remote, RemoteError, look_up};

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
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Panicked(#[from] JobPanicked),
}

pub(super) async fn open(arguments: DatabaseArguments) -> OpenOutcome {
    match try_open(arguments).await {
        Ok(opened) => OpenOutcome::Opened(Box::new(opened)),
        Err(error) => OpenOutcome::Failed(error),
    }
}

async fn try_open(arguments: DatabaseArguments) -> Result<Opened, OpenError> {
    let pass = arguments.gate.enter().await;
    let path = arguments.settings.path.clone();
    // The pin comes first, so that nothing vanishes while the bucket is asked.
    let held = arguments.pool.run(move || open_capture(path, pass)).await??;
    let Remote { head, last_snapshot } =
        look_up(arguments.store.as_ref(), &arguments.settings.name).await?;
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
