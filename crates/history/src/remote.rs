//! What the bucket holds of a database: its newest state, its newest snapshot.

use std::time::SystemTime;

use walrust_engine::{Layout, StoredFile, Tree};
use walrust_ltx::{PageSize, Txid};
use walrust_sqlite::Head;
use walrust_storage::{ObjectStore, StorageError};

use crate::read_ends;

/// The files of a database in the bucket.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The newest state; `None` if there are no files.
    pub head: Option<Head>,
    /// TXID of the newest snapshot.
    pub last_snapshot: Option<Txid>,
    /// When it was stored, by the clock of the store.
    pub last_snapshot_at: Option<SystemTime>,
    /// All files.
    pub tree: Tree,
}

/// Why it is not known what the bucket holds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The name belongs to another program.
    #[error(
        "{name} in {url} holds files of another program ({layout} layout); \
         give this database another prefix"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// The storage.
        url: String,
        /// The layout of its files.
        layout: Layout,
    },
}

/// Lists a database and reads the ends of its newest file.
///
/// # Errors
/// If storage fails, or the name holds files of another program.
pub async fn look_up(store: &dyn ObjectStore, name: &str) -> Result<Remote, RemoteError> {
    let listing = store.list(&format!("{name}/"), None).await?;
    let tree = Tree::read(name, listing.iter().map(|entry| (entry.key.as_str(), entry.size)));
    if tree.layout != Layout::Walrust {
        let (name, url) = (name.to_owned(), store.url());
        return Err(RemoteError::NameTaken { name, url, layout: tree.layout });
    }
    let snapshots = tree.files.iter().filter(|file| file.name.is_snapshot());
    let newest_snapshot = snapshots.max_by_key(|file| file.name.max);
    let last_snapshot = newest_snapshot.map(|file| file.name.max);
    let last_snapshot_at = newest_snapshot
        .and_then(|file| listing.iter().find(|entry| entry.key == file.key)?.modified);
    // Of a snapshot and an incremental with the same end either tells the head.
    let newest = tree.files.iter().max_by_key(|file| file.name.max);
    let head = match newest {
        Some(file) => Some(head_of(store, file).await?),
        None => None,
    };
    Ok(Remote { head, last_snapshot, last_snapshot_at, tree })
}

async fn head_of(store: &dyn ObjectStore, file: &StoredFile) -> Result<Head, StorageError> {
    Ok(match read_ends(store, file).await? {
        Some(ends) => Head::of_file(&ends.header, ends.post_apply),
        None => {
            tracing::warn!(key = %file.key, "the newest file is damaged; a snapshot follows it");
            Head {
                txid: file.name.max,
                checksum: None,
                page_size: PageSize::ALL[0],
                page_count: 0,
                timestamp_ms: i64::MIN,
                wal: None,
            }
        }
    })
}
