//! What is tested: a capture, as production runs it, beside an application and a bucket.
//!
//! After each step the database is compared with what it was: the application's steps make the
//! states that may be restored, and no step of the replicator writes to the database, except that
//! checkpoints move pages from the WAL to the file.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use tempfile::TempDir;
use walrust_engine::CheckpointKind;
use walrust_sqlite::{
    Capture, CaptureOptions, DatabaseError, Reconciliation, SnapshotReader, StagedFile,
    SyncOutcome, WalPin, sidecar, state_path,
};

use crate::application::User;
use crate::bucket::{Bucket, txids_of};
use crate::history::History;
use crate::image::{Files, Image};
use crate::local_state::LocalState;
use crate::step::{During, Operation, Reference, Reply, Setup, Step};

/// A database that is replicated.
#[derive(Debug)]
pub(crate) struct Scene {
    /// Before everything that lies in the directory.
    capture: Option<Capture>,
    user: User,
    setup: Setup,
    history: History,
    bucket: Bucket,
    /// A snapshot beside the history that was begun; its pages are read late, just before its upload.
    snapshot: Option<SnapshotReader>,
    files: Files,
    /// The size of a WAL up to which the database file may have its pages.
    backfilled: Option<([u8; 8], usize)>,
    clock: i64,
    /// Since the last sync the WAL was pinned all the time, so nothing may be healed.
    undisturbed: bool,
    directory: TempDir,
}

impl Scene {
    pub(crate) fn new(setup: &Setup) -> Self {
        let memory = Path::new("/dev/shm");
        let directory = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let directory = directory.expect("a temporary directory");
        let mut user = User::new(directory.path().join("app.db"), setup);
        let files = user.look();
        Self {
            capture: None,
            user,
            setup: setup.clone(),
            history: History::new(Image::of_files(&files, setup.page_size)),
            bucket: Bucket::default(),
            snapshot: None,
            // What made the database is no state that is followed.
            backfilled: files.salts().map(|salts| (salts, files.wal.len())),
            files,
            clock: 1_000,
            undisturbed: false,
            directory,
        }
    }

    fn database(&self) -> PathBuf {
        self.directory.path().join("app.db")
    }

    fn state(&self) -> PathBuf {
        state_path(&self.database(), None)
    }

    /// Takes a step; `writing` tells whether a transaction of the application is open.
    pub(crate) fn apply(&mut self, step: &Step, writing: bool) {
        self.clock += 10;
        match step {
            Step::Write(write) => self.user.write(*write, writing),
            Step::Begin => self.user.begin(),
            Step::Commit => self.user.commit(),
            Step::Rollback => self.user.roll_back(),
            Step::Vacuum => self.user.vacuum(),
            Step::IncrementalVacuum => self.user.incremental_vacuum(),
            Step::BeginRead => self.user.begin_read(),
            Step::EndRead => self.user.end_read(),
            Step::ForeignCheckpoint(mode) => self.user.checkpoint(*mode),
            Step::Close => self.user.close(),
            Step::Kill => self.user.kill(),
            Step::PowerLoss { kept } => return self.lose_power(*kept),
            _ => return self.replicate(step),
        }
        let may_commit = match step {
            Step::Write(_) => !writing,
            Step::Commit | Step::Vacuum | Step::IncrementalVacuum => true,
            _ => false,
        };
        let files = self.user.look();
        self.seen(files);
        let image = Image::of_files(&self.files, self.setup.page_size);
        if image != *self.history.last() {
            assert!(may_commit, "{step:?} changed what the database holds");
            self.history.push(image);
        }
    }

    fn replicate(&mut self, step: &Step) {
        let healable = !self.undisturbed;
        let staged = self.staged();
        match step {
            Step::Open => self.open(),
            Step::Crash => self.crash(),
            Step::CrashWithin(operation, point) => {
                let before = LocalState::read(&self.state());
                match operation {
                    Operation::Sync => self.sync(),
                    Operation::Confirm => self.upload(Reply::Ok),
                }
                self.crash();
                before.undo_from(&self.state(), *point);
            }
            Step::Tear(part, damage) => LocalState::damage(&self.state(), *part, *damage),
            Step::Forget => {
                // Before the first opening there is none.
                let _ = std::fs::remove_dir_all(self.state());
            }
            Step::Sync => self.sync(),
            Step::Settle => self.capture().settle().expect("a lock that fits"),
            Step::Snapshot => self.stage_snapshot(),
            Step::Upload(reply) => self.upload(*reply),
            Step::UploadSnapshot => self.upload_snapshot(),
            Step::Ship => self.ship(),
            Step::Checkpoint(kind) => self.checkpoint(*kind),
            Step::Race { transactions, during } => self.race(*transactions, *during),
            _ => unreachable!("{step:?} is the application's"),
        }
        let new = self.staged().into_iter().filter(|file| !staged.contains(file));
        for file in new.filter(|_| !healable) {
            assert!(file.header.wal_size > 0, "{} was healed without a reason", file.name);
        }
        let files = self.user.look();
        if let Step::Checkpoint(_) | Step::Race { .. } = step {
            let image = Image::of_files(&files, self.setup.page_size);
            assert!(image == *self.history.last(), "{step:?} changed what the database holds");
        } else {
            assert!(files == self.files, "{step:?} wrote to the files of the database");
        }
        self.seen(files);
    }

    fn seen(&mut self, files: Files) {
        if files.database != self.files.database {
            self.backfilled = files.salts().map(|salts| (salts, files.wal.len()));
        }
        self.files = files;
    }

    /// What is not in the database file is lost from some commit on.
    fn lose_power(&mut self, kept: u8) {
        self.crash();
        self.user.kill();
        let wal = sidecar(&self.database(), "-wal");
        let (salts, page_size) = (self.files.salts(), self.setup.page_size);
        let safe = self.backfilled.filter(|(backfilled, _)| Some(*backfilled) == salts);
        let safe = safe.map_or(0, |(_, size)| size);
        let mut ends = self.files.commit_ends(page_size);
        ends.retain(|end| *end >= safe);
        if let Some(end) = ends.get(usize::from(kept)) {
            let file = std::fs::OpenOptions::new().write(true).open(&wal);
            if let Ok(file) = file {
                file.set_len(*end as u64).expect("the WAL can be cut");
            }
        }
        let _ = std::fs::remove_file(sidecar(&self.database(), "-shm"));
        self.files = self.user.look();
        self.history.lose_behind(&Image::of_files(&self.files, page_size));
    }

    /// The application writes while the replicator is at work.
    fn race(&mut self, transactions: u8, during: During) {
        let (clock, before) = (self.clock, self.history.last().checksum);
        self.user.begin_race(transactions);
        let capture = self.capture.as_mut().expect("the reference knows that it is open");
        let outcome = match during {
            During::Sync => capture.sync(clock).map(|_| ()),
            During::Snapshot => capture.begin_snapshot(clock).map(|begun| {
                self.snapshot = begun.reader;
            }),
            During::Settle => capture.settle(),
            During::Checkpoint(kind) => capture.checkpoint(kind, clock).map(|_| ()),
        };
        for state in self.user.end_race(self.setup.page_size) {
            self.history.push(state);
        }
        match outcome {
            Ok(()) => {}
            // Without a pin others may restart the WAL as often as they like.
            Err(DatabaseError::Unstable { .. }) if self.setup.pin == WalPin::None => return,
            Err(error) => panic!("{during:?} in a race: {error}"),
        }
        if let During::Sync | During::Snapshot = during {
            let captured = self.capture().captured().expect("a captured state").checksum;
            let commits = self.history.commits_between(before, captured);
            assert!(commits.is_some_and(|commits| commits >= 0), "all before the race is captured");
            self.undisturbed = self.setup.pin != WalPin::None;
        }
    }

    fn capture(&mut self) -> &mut Capture {
        self.capture.as_mut().expect("the reference knows that it is open")
    }

    fn staged(&self) -> Vec<StagedFile> {
        self.capture.as_ref().map(Capture::staged).unwrap_or_default()
    }

    /// Opens the capture and finds its place in the bucket, as the database actor does.
    fn open(&mut self) {
        let options = CaptureOptions { wal_pin: self.setup.pin, state_directory: None };
        let mut capture = Capture::open(&self.database(), &options).expect("a database");
        let head = self.bucket.head();
        let outcome = capture.reconcile(head.as_ref()).expect("a place in the bucket");
        if let Reconciliation::Differs { after } = outcome
            && !self.learn(&mut capture, after)
            && (after.is_none() || !self.learn(&mut capture, None))
        {
            capture.begin_new_chain(head.as_ref()).expect("a later TXID");
        }
        self.capture = Some(capture);
    }

    fn learn(&self, capture: &mut Capture, after: Option<walrust_ltx::Txid>) -> bool {
        let Some(head) = self.bucket.head() else { return false };
        let mut table = capture.head_table(&head, after).expect("a table");
        for (name, bytes) in self.bucket.chain(after) {
            if !table.apply(name, bytes).expect("a table that can be written") {
                return false;
            }
        }
        capture.adopt_table(table, &head).expect("a position that can be saved")
    }

    fn crash(&mut self) {
        (self.capture, self.snapshot, self.undisturbed) = (None, None, false);
    }

    fn sync(&mut self) {
        let (clock, undisturbed) = (self.clock, self.undisturbed);
        let before = self.capture().captured().cloned();
        let outcome = self.capture().sync(clock).expect("a sync");
        if let SyncOutcome::Staged { healed: Some(reason), .. } = &outcome {
            assert!(!undisturbed, "healed without a reason: {reason}");
        }
        if undisturbed {
            let before = before.expect("there was a sync").checksum;
            let commits = self.history.commits_between(before, self.history.last().checksum);
            let txids = match &outcome {
                SyncOutcome::UpToDate => 0,
                SyncOutcome::Staged { file, .. } => txids_of(file.name),
            };
            let commits = commits.expect("nothing was lost");
            assert_eq!(txids, commits, "one TXID for each commit since the last sync");
        }
        self.check_captured();
        self.undisturbed = self.setup.pin != WalPin::None;
    }

    /// What is captured is what the database holds.
    fn check_captured(&mut self) {
        let captured = self.capture().captured().expect("a captured state").clone();
        let image = self.history.last();
        assert_eq!(captured.checksum, image.checksum, "everything is captured");
        let pages = image.bytes.len() / self.setup.page_size as usize;
        assert_eq!(captured.page_count as usize, pages, "pages that are captured");
    }

    fn upload(&mut self, reply: Reply) {
        let Some(file) = self.staged().into_iter().next() else { return };
        match reply {
            Reply::Failed => {}
            Reply::Lost => self.bucket.put(&file, &self.history),
            Reply::Ok => {
                self.bucket.put(&file, &self.history);
                self.capture().confirm(file.name).expect("a position that can be saved");
                let position = self.capture().position().expect("a confirmed state").clone();
                assert_eq!((position.txid, position.checksum), (file.name.max, file.post_apply));
                assert!(!file.path.exists(), "a confirmed file is removed");
            }
        }
    }

    fn ship(&mut self) {
        self.sync();
        while !self.staged().is_empty() {
            self.upload(Reply::Ok);
        }
    }

    /// Production asks for a snapshot only when nothing waits for its upload.
    fn stage_snapshot(&mut self) {
        if !self.staged().is_empty() {
            return;
        }
        let clock = self.clock;
        let begun = self.capture().begin_snapshot(clock).expect("a snapshot");
        self.snapshot = begun.reader;
        self.check_captured();
        self.undisturbed = self.setup.pin != WalPin::None;
    }

    /// A snapshot beside the history goes when all before it is confirmed.
    fn upload_snapshot(&mut self) {
        if self.staged().is_empty()
            && let Some(reader) = self.snapshot.take()
        {
            let read = reader.stage(&AtomicBool::new(false)).expect("one state, page for page");
            let snapshot = read.expect("nobody aborts it");
            self.bucket.put(&snapshot, &self.history);
            snapshot.remove().expect("a staged file");
        }
    }

    fn checkpoint(&mut self, kind: CheckpointKind) {
        let clock = self.clock;
        let complete = self.capture().checkpoint(kind, clock).expect("a checkpoint");
        if complete {
            let fill = self.capture().wal_fill().expect("a wal-index");
            assert_eq!(fill.backfilled, fill.frames, "a complete checkpoint");
            self.check_captured();
        }
        if kind == CheckpointKind::GiveUp {
            self.undisturbed = false;
        }
    }

    /// However the sequence went, in the end everything is in storage.
    pub(crate) fn finish(mut self, _reference: &Reference) {
        if self.capture.is_none() {
            self.replicate(&Step::Open);
        }
        self.replicate(&Step::Ship);
        self.replicate(&Step::Ship);
        let restored = self.bucket.restore(&self.directory.path().join("restored.db"));
        let last = &self.history.last().bytes;
        assert_eq!(restored.len(), last.len(), "the size of the restored database");
        assert!(restored == **last, "the restored database is the one that was replicated");
    }
}
