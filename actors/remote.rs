//! What the bucket holds of a database: its newest state, its newest snapshot.

use std::time::SystemTime;

use walrust_engine::{Layout, StoredFile, Tree};
use walrust_ltx::{Checksum, Header, PageSize, Txid};
use walrust_sqlite::Head;
use walrust_storage::{ObjectStore, StorageError};

/// The metadata key under which every object carries the SHA-256 of its bytes.
pub const SHA256: &str = "sha256";

/// The metadata key under which every LTX file carries the identifier of the local state that it
/// came from: the writer of the manifest.
pub(crate) const WRITER: &str = "writer";

/// The files of a database in the bucket.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The newest state; `None` if there are no files.
    pub head: Option<Head>,
    /// TXID of the newest snapshot.
    pub last_snapshot: Option<Txid>,
    /// When it was stored, by the clock of the store.
    pub(crate) last_snapshot_at: Option<SystemTime>,
    /// All files.
    pub(crate) tree: Tree,
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
            tracing::warn!(key = %file.key, "the newest file is damaged; a snapshot goes behind it");
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

/// Header and post-apply checksum of a stored file.
#[derive(Clone, Debug)]
pub(crate) struct FileEnds {
    /// The header.
    pub(crate) header: Header,
    /// Rolling checksum after the file; `None` if the file does not track checksums.
    pub(crate) post_apply: Option<Checksum>,
}

/// Reads the first and the last bytes of a stored file; `None` if they are not those of an LTX
/// file with the TXIDs of its name.
pub(crate) async fn read_ends(
    store: &dyn ObjectStore,
    file: &StoredFile,
) -> Result<Option<FileEnds>, StorageError> {
    const TRAILER: u64 = 16;
    let header_size = Header::SIZE as u64;
    if file.size < header_size + TRAILER {
        return Ok(None);
    }
    let head = store.get_range(&file.key, 0..header_size).await?;
    let tail = store.get_range(&file.key, file.size - TRAILER..file.size).await?;
    let Some(header) = head.first_chunk().and_then(|bytes| Header::from_bytes(bytes).ok()) else {
        return Ok(None);
    };
    if (header.min_txid, header.max_txid) != (file.name.min, file.name.max) {
        return Ok(None);
    }
    let post_apply =
        tail.first_chunk::<8>().and_then(|bytes| Checksum::from_raw(u64::from_be_bytes(*bytes)));
    Ok(Some(FileEnds { header, post_apply }))
}
