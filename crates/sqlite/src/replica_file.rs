//! The file of a read replica: made from a database in storage, and moved on while it is read.
//!
//! # Readers
//!
//! Every state is one transaction in the WAL of the replica, written as SQLite would write it (see
//! `wal_writer.rs`). So readers in other processes, of any SQLite, keep the state in which their
//! transaction began and see the next one after it; nobody waits for anybody. A replica only ever
//! becomes another state of its history as a whole, never an older one.
//!
//! # Crashes
//!
//! What changes the replica lies complete in the state directory until the change is recorded
//! (`replica_directory.rs`), and is applied again after a crash.
//!
//! # Other writers
//!
//! A replica that somebody else has written to is never written to again: the wal-index counts
//! transactions, and at the start every page is compared with its checksum. What was written may be
//! all that somebody has. Nor is a file replaced that somebody else has made under the name meanwhile.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use walrust_ltx::{Checksum, FileName};

use crate::output::{check_output, directory_of};
use crate::page_checksums::NewPageChecksums;
use crate::replica_connection::{OpenReplica, lock_alone};
use crate::replica_directory::{ReplicaDirectory, ReplicaState, exists};
use crate::replica_incoming::Incoming;
use crate::restore::Restored;
use crate::set_aside::SetAside;
use crate::staging::hex;
use crate::{DatabaseError, ReplicaError, RestoreError};

/// The file of a read replica.
#[derive(Debug)]
pub struct Replica {
    path: PathBuf,
    source: String,
    /// `None` until the replica was made.
    state: Option<ReplicaState>,
    /// `None` before that, and after a failure: then everything is looked at again.
    open: Option<OpenReplica>,
    directory: ReplicaDirectory,
}

/// What a replica became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaChange {
    /// The new state.
    pub state: ReplicaState,
    /// Pages that were written.
    pub pages: u32,
    /// Where it came from.
    pub kind: ChangeKind,
}

/// What brought a replica into a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// A whole database, where no replica was.
    Created,
    /// One file of the history.
    Applied,
    /// A whole database in the place of the last state.
    Rebuilt,
}

impl Replica {
    /// Opens the replica at `path` of `source`, or a place for one where no file is.
    /// [`resume`](Self::resume) comes next.
    ///
    /// # Errors
    /// If there is a file that is not a replica of `source`, or another process follows into it.
    pub fn open(path: &Path, source: &str) -> Result<Self, ReplicaError> {
        let path = place_of(path)?;
        if !ReplicaDirectory::exists(&path)? {
            check_output(&path, false).map_err(|error| match error {
                RestoreError::OutputExists { path } => ReplicaError::NotOurs { path },
                error => error.into(),
            })?;
        }
        let directory = ReplicaDirectory::open(&path)?;
        let state = directory.load()?;
        if let Some(state) = state.as_ref().filter(|state| state.source != source) {
            return Err(ReplicaError::OtherSource {
                path,
                state: directory.path().to_owned(),
                found: state.source.clone(),
                expected: source.to_owned(),
            });
        }
        Ok(Self { path, source: source.to_owned(), state, open: None, directory })
    }

    /// The state that the replica is in; `None` before it was made.
    #[must_use]
    pub fn state(&self) -> Option<&ReplicaState> {
        self.state.as_ref()
    }

    /// Finishes what a failure or a crash has interrupted, and returns what the replica became by
    /// that. A replica that was not open is compared with its page checksums first.
    ///
    /// # Errors
    /// If somebody else has written to the replica, or it cannot be read or written.
    pub fn resume(&mut self) -> Result<Option<ReplicaChange>, ReplicaError> {
        if let Some(next) = self.directory.load_incoming()? {
            // It may be the file of the replica under another name: that is not opened again.
            let is_done = self.state.as_ref() == Some(&next) && exists(&self.path)?;
            let is_whole = exists(&self.directory.incoming_database())?;
            if is_whole && !is_done && next.source == self.source {
                return self.become_waiting(next).map(Some);
            }
            self.directory.clear_incoming()?;
        }
        if self.open.is_some() {
            return Ok(None);
        }
        let Some(state) = self.state.clone() else { return Ok(None) };
        if !exists(&self.path)? {
            // Somebody removed it: it is made anew.
            self.state = None;
            return Ok(None);
        }
        let waiting = self.waiting_file(&state)?;
        self.connect(&state, waiting.as_ref())?;
        match waiting {
            Some(waiting) => self.apply(&waiting).map(Some),
            None => Ok(None),
        }
    }

    /// Records the identifier of the history that the replica was found to be a state of.
    ///
    /// # Errors
    /// If the state cannot be saved.
    pub fn record_lineage(&mut self, lineage: Option<String>) -> Result<(), ReplicaError> {
        let Some(state) = self.state.as_mut().filter(|state| state.lineage != lineage) else {
            return Ok(());
        };
        state.lineage = lineage;
        self.directory.save(state)
    }

    /// Where a whole database is to be restored to before [`become_restored`](Self::become_restored).
    #[must_use]
    pub fn incoming_database(&self) -> PathBuf {
        self.directory.incoming_database()
    }

    /// Makes the replica what was restored to [`incoming_database`](Self::incoming_database).
    ///
    /// # Errors
    /// If the replica cannot be written. What was restored stays until [`resume`](Self::resume) has
    /// brought it into place.
    pub fn become_restored(
        &mut self,
        restored: &Restored,
        lineage: Option<String>,
    ) -> Result<ReplicaChange, ReplicaError> {
        let next = ReplicaState {
            source: self.source.clone(),
            txid: restored.txid,
            checksum: restored.checksum,
            page_size: restored.page_size,
            page_count: restored.page_count,
            timestamp_ms: restored.timestamp_ms,
            lineage,
        };
        self.directory.save_incoming(&next)?;
        self.become_waiting(next)
    }

    /// Applies the next LTX file of the history. `key` is that of the object, for messages; `sha256`
    /// that of its bytes, hex, as far as it is known.
    ///
    /// # Errors
    /// If the file is damaged or does not continue the replica, which is unchanged then; or if the
    /// replica cannot be written.
    pub fn apply_file(
        &mut self,
        key: &str,
        name: FileName,
        sha256: Option<&str>,
        input: impl Read,
    ) -> Result<ReplicaChange, ReplicaError> {
        self.resume()?;
        let (Some(state), Some(open)) = (&self.state, &self.open) else {
            let what = "there is no replica yet".to_owned();
            return Err(RestoreError::BrokenLink { file: key.to_owned(), what }.into());
        };
        let path = self.directory.incoming_file();
        let temporary = path.with_extension("tmp");
        receive(&temporary, key, sha256, input)?;
        let mut incoming = Incoming::read_file(&temporary, key, state)?;
        incoming.check_name(name)?;
        incoming.check_continues(state, &open.table)?;
        incoming.move_to(&path)?;
        self.directory.sync()?;
        self.apply(&incoming)
    }

    /// The LTX file that a crash kept from being applied, or from being removed.
    fn waiting_file(&self, state: &ReplicaState) -> Result<Option<Incoming>, ReplicaError> {
        let path = self.directory.incoming_file();
        if !exists(&path)? {
            return Ok(None);
        }
        match Incoming::read_file(&path, &path.display().to_string(), state) {
            Ok(waiting) if waiting.state.txid > state.txid => return Ok(Some(waiting)),
            // It was applied already.
            Ok(_) => {}
            // Its bytes went bad on this disk; the comparison tells whether it was applied.
            Err(ReplicaError::File(error)) => {
                tracing::warn!(%error, "a file that waited to be applied is given up");
            }
            Err(error) => return Err(error),
        }
        self.directory.clear_incoming()?;
        Ok(None)
    }

    /// Makes the replica the database that waits in the state directory.
    fn become_waiting(&mut self, next: ReplicaState) -> Result<ReplicaChange, ReplicaError> {
        let incoming = Incoming::read_database(&self.directory.incoming_database(), next);
        if let Err(ReplicaError::File(_)) = &incoming {
            // Its bytes went bad on this disk: it is fetched again.
            self.directory.clear_incoming()?;
        }
        let incoming = incoming?;
        let is_there = exists(&self.path)?;
        match self.state.clone().filter(|_| is_there) {
            None => self.place(&incoming, ChangeKind::Created),
            Some(state) if state.page_size == incoming.state.page_size => {
                if self.open.is_none() {
                    self.connect(&state, Some(&incoming))?;
                }
                self.apply(&incoming)
            }
            Some(state) => self.replace(&state, &incoming),
        }
    }

    /// Puts a database where no file is.
    fn place(
        &mut self,
        incoming: &Incoming,
        kind: ChangeKind,
    ) -> Result<ReplicaChange, ReplicaError> {
        if exists(&self.path)? {
            return Err(ReplicaError::NotOurs { path: self.path.clone() });
        }
        let mut table = NewPageChecksums::create(&self.directory.table())?;
        for (pgno, checksum) in incoming.pages() {
            table.push(*pgno, *checksum)?;
        }
        table.finish(incoming.state.page_count)?;
        self.directory.save(&incoming.state)?;
        self.state = Some(incoming.state.clone());
        // Of a replica that was there before. They are removed when the name is known to be ours.
        let aside = SetAside::sidecars_of(&self.path)?;
        match give_name(&self.directory.incoming_database(), &self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.state = None;
                self.directory.forget()?;
                return Err(ReplicaError::NotOurs { path: self.path.clone() });
            }
            named => named.map_err(DatabaseError::io("create", &self.path))?,
        }
        aside.remove();
        let directory = directory_of(&self.path);
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(DatabaseError::io("sync the directory", directory))?;
        self.directory.clear_incoming()?;
        self.connect(&incoming.state, None)?;
        let pages = u32::try_from(incoming.pages().len()).unwrap_or(u32::MAX);
        Ok(ReplicaChange { state: incoming.state.clone(), pages, kind })
    }

    /// Puts a database with another page size in the place of the replica. No WAL can lead from
    /// one to the other, so this waits until no reader has the replica open.
    fn replace(
        &mut self,
        state: &ReplicaState,
        incoming: &Incoming,
    ) -> Result<ReplicaChange, ReplicaError> {
        if self.open.is_none() {
            match self.connect(state, None) {
                // A crash came between the change of the mode and the end.
                Err(ReplicaError::Database(DatabaseError::NotWal { .. })) => {}
                connected => connected?,
            }
        }
        if let Some(open) = self.open.take() {
            self.refuse_change(open.current_change()?, open.change)?;
        }
        let Some(alone) = lock_alone(&self.path)? else {
            self.connect(state, None)?;
            let page_size = incoming.state.page_size.get();
            return Err(ReplicaError::InUse { path: self.path.clone(), page_size });
        };
        let directory = directory_of(&self.path);
        let remove = || {
            fs::remove_file(&self.path)?;
            File::open(directory)?.sync_all()
        };
        remove().map_err(DatabaseError::io("remove", &self.path))?;
        drop(alone);
        self.place(incoming, ChangeKind::Rebuilt)
    }

    /// Opens the file, which is in `state` or, page for page, in that of `waiting`.
    fn connect(
        &mut self,
        state: &ReplicaState,
        waiting: Option<&Incoming>,
    ) -> Result<(), ReplicaError> {
        let open = OpenReplica::open(&self.path, &self.directory.table(), state.page_size)?;
        if let Some(what) = open.compare(state, waiting)? {
            return Err(self.modified(what));
        }
        self.open = Some(open.settled()?);
        Ok(())
    }

    /// Writes what is incoming as one transaction and records it.
    fn apply(&mut self, incoming: &Incoming) -> Result<ReplicaChange, ReplicaError> {
        // After a failure nobody knows how far it came; the file is looked at again then.
        let Some(mut open) = self.open.take() else {
            unreachable!("a replica is opened before anything is applied");
        };
        if !open.is_at(&self.path)? {
            return Err(self.modified("the file was replaced or removed".to_owned()));
        }
        let mut transaction = open.begin()?;
        self.refuse_change(transaction.change(), open.change)?;
        let mut changes = Vec::new();
        incoming.each_page(|pgno, page| {
            let checksum = Checksum::of_page(pgno, page);
            // A transaction needs a page, and every state has the first.
            let stays = !incoming.is_file() && pgno != 1;
            if stays && open.table.get(pgno)? == Some(checksum) {
                return Ok(());
            }
            changes.push((pgno, checksum));
            Ok(transaction.page(pgno, page)?)
        })?;
        let change = transaction.commit(incoming.state.page_count)?;
        open.change = change;
        open.table.apply(&changes, incoming.state.page_count)?;
        self.directory.save(&incoming.state)?;
        self.directory.clear_incoming()?;
        open.checkpoint();
        self.open = Some(open);
        self.state = Some(incoming.state.clone());
        Ok(ReplicaChange {
            state: incoming.state.clone(),
            pages: u32::try_from(changes.len()).unwrap_or(u32::MAX),
            kind: if incoming.is_file() { ChangeKind::Applied } else { ChangeKind::Rebuilt },
        })
    }

    fn refuse_change(&self, found: u32, expected: u32) -> Result<(), ReplicaError> {
        if found == expected {
            return Ok(());
        }
        let count = found.wrapping_sub(expected);
        Err(self.modified(format!("{count} transactions since the last of its history")))
    }

    fn modified(&self, what: String) -> ReplicaError {
        let state = self.directory.path().to_owned();
        ReplicaError::Modified { path: self.path.clone(), state, what }
    }
}

/// Gives a file another name, which must be free: an application may have made a file of that name
/// meanwhile.
fn give_name(file: &Path, name: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match fs::hard_link(file, name) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {}
        linked => return linked,
    }
    // Some file systems have no links.
    match renameat_with(CWD, file, CWD, name, RenameFlags::NOREPLACE) {
        // And some of those replace whatever there is.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS)
            if matches!(name.try_exists(), Ok(false)) =>
        {
            fs::rename(file, name)
        }
        renamed => Ok(renamed?),
    }
}

/// Where a replica is or will be, without symbolic links; the directories above it are created.
fn place_of(path: &Path) -> Result<PathBuf, ReplicaError> {
    let directory = directory_of(path);
    let place = || match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(directory)?;
            Ok(fs::canonicalize(directory)?.join(path.file_name().unwrap_or_default()))
        }
        found => found,
    };
    Ok(place().map_err(DatabaseError::io("look for the replica", path))?)
}

/// Writes an object to a file that survives a loss of power, and compares its hash.
fn receive(
    path: &Path,
    key: &str,
    sha256: Option<&str>,
    mut input: impl Read,
) -> Result<(), ReplicaError> {
    let io_error = || DatabaseError::io("write", path);
    let mut file = File::create(path).map_err(io_error())?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let source = walrust_ltx::Error::Io(error);
                return Err(RestoreError::Damaged { file: key.to_owned(), source }.into());
            }
        };
        hasher.update(&buffer[..length]);
        file.write_all(&buffer[..length]).map_err(io_error())?;
    }
    file.sync_all().map_err(io_error())?;
    let found = hex(&hasher.finalize());
    match sha256 {
        Some(expected) if expected != found => {
            let (file, expected) = (key.to_owned(), expected.to_owned());
            Err(RestoreError::WrongSha256 { file, expected, found }.into())
        }
        _ => Ok(()),
    }
}
