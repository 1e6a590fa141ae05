use std::fs::{self, File};
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use rusqlite::Connection;
use walrust_ltx::{Mode, PageSize};

use walrust_engine::CheckpointKind;

use super::*;
use crate::state_directory::state_path;
use crate::{IntegrityCheck, Restore};

/// A database with an application that writes, and the files that were shipped.
struct Scene {
    pin: WalPin,
    directory: tempfile::TempDir,
    application: Connection,
    shipped: Vec<(StagedFile, PathBuf)>,
    clock: i64,
}

impl Scene {
    fn new(pin: WalPin, page_size: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let application = Connection::open(directory.path().join("app.db")).unwrap();
        application
            .execute_batch(&format!(
                "PRAGMA page_size = {page_size};
                 PRAGMA journal_mode = WAL;
                 PRAGMA wal_autocheckpoint = 0;
                 CREATE TABLE a (id INTEGER PRIMARY KEY, text TEXT, blob BLOB);
                 CREATE TABLE b (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
                 CREATE INDEX a_by_text ON a (text);"
            ))
            .unwrap();
        Self { pin, directory, application, shipped: Vec::new(), clock: 1_000 }
    }

    fn database(&self) -> PathBuf {
        self.directory.path().join("app.db")
    }

    fn capture(&self) -> Capture {
        let options = CaptureOptions { wal_pin: self.pin, ..CaptureOptions::default() };
        Capture::open(&self.database(), &options).unwrap()
    }

    fn reconciled(&self) -> Capture {
        let mut capture = self.capture();
        self.reconcile(&mut capture);
        capture
    }

    /// What the daemon does with the bucket after opening a database.
    fn reconcile(&self, capture: &mut Capture) -> Reconciliation {
        let head = self.head();
        let outcome = capture.reconcile(head.as_ref()).unwrap();
        if let Reconciliation::Differs { after } = outcome
            && !head.is_some_and(|head| self.learn(capture, &head, after))
        {
            capture.begin_new_chain(head.as_ref()).unwrap();
        }
        outcome
    }

    /// Gives the files up to the head to a table, as far as they continue one another.
    fn learn(&self, capture: &mut Capture, head: &Head, after: Option<Txid>) -> bool {
        let mut table = capture.head_table(head, after).unwrap();
        for (file, stored) in &self.shipped {
            if after.is_none_or(|after| file.name.min > after)
                && !table.apply(file.name, opened(stored)).unwrap()
            {
                return false;
            }
        }
        capture.adopt_table(table, head).unwrap()
    }

    fn head(&self) -> Option<Head> {
        let (file, _) = self.shipped.iter().max_by_key(|(file, _)| file.name.max)?;
        Some(Head::of_file(&file.header, Some(file.post_apply)))
    }

    fn write(&self, sql: &str) {
        self.application.execute_batch(sql).unwrap();
    }

    /// Closes the application's connection and opens another, which does not touch the files yet.
    fn reopen_application(&mut self) {
        let closed =
            std::mem::replace(&mut self.application, Connection::open_in_memory().unwrap());
        drop(closed);
        assert!(!crate::sidecar(&self.database(), "-wal").exists());
        self.application = Connection::open(self.database()).unwrap();
    }

    fn insert(&self, rows: u32) {
        self.write(&format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO a (text, blob) SELECT 'row ' || random(), randomblob(300) FROM n;"
        ));
    }

    fn checkpoint(&self, mode: &str) -> (i64, i64, i64) {
        let pragma = format!("PRAGMA wal_checkpoint({mode})");
        self.application
            .query_row(&pragma, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
    }

    /// Stages, "uploads" and confirms what is new.
    fn ship(&mut self, capture: &mut Capture) -> SyncOutcome {
        self.clock += 1_000;
        let outcome = capture.sync(self.clock).unwrap();
        if let SyncOutcome::Staged { file, .. } = &outcome {
            self.store(file);
            capture.confirm(file.name).unwrap();
        }
        outcome
    }

    /// "Uploads" and confirms what is staged already.
    fn ship_staged(&mut self, capture: &mut Capture) {
        for file in capture.staged() {
            self.store(&file);
            capture.confirm(file.name).unwrap();
        }
    }

    /// Local state as it is now.
    fn copy_of_state(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for file in ["position.json", "pages.crc64", "pages.redo"] {
            fs::copy(state_path(&self.database(), None).join(file), copy.path().join(file))
                .unwrap();
        }
        copy
    }

    /// Puts back what local state was; what the database file looks like stays known.
    fn replace_state(&self, copy: &tempfile::TempDir) {
        for entry in fs::read_dir(copy.path()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, state_path(&self.database(), None).join(path.file_name().unwrap()))
                .unwrap();
        }
    }

    fn store(&mut self, file: &StagedFile) {
        let bucket = self.directory.path().join("bucket");
        fs::create_dir_all(&bucket).unwrap();
        let stored = bucket.join(file.name.to_string());
        assert!(!stored.exists(), "{} is stored twice", file.name);
        fs::copy(&file.path, &stored).unwrap();
        self.shipped.push((file.clone(), stored));
    }

    /// Applies what was shipped, from the newest snapshot on.
    fn restored(&self) -> Vec<u8> {
        let output = self.directory.path().join("restored.db");
        let mut restore = Restore::begin(&output, true, Mode::Strict).unwrap();
        let snapshots = self.shipped.iter().filter(|(file, _)| file.name.is_snapshot());
        let base = snapshots.max_by_key(|(file, _)| file.name.max).unwrap();
        let mut head = base.0.name.max;
        restore.apply("base", base.0.name, opened(&base.1)).unwrap();
        for (file, stored) in &self.shipped {
            if file.name.min == head.next() {
                restore.apply("next", file.name, opened(stored)).unwrap();
                head = file.name.max;
            }
        }
        restore.finish(IntegrityCheck::Full).unwrap();
        fs::read(output).unwrap()
    }

    /// The database after a complete checkpoint, made from a copy.
    fn image(&self) -> Vec<u8> {
        let copy = tempfile::tempdir().unwrap();
        let target = copy.path().join("copy.db");
        for suffix in ["", "-wal"] {
            let from = crate::sidecar(&self.database(), suffix);
            if from.exists() {
                fs::copy(from, crate::sidecar(&target, suffix)).unwrap();
            }
        }
        let connection = Connection::open(&target).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(connection);
        fs::read(target).unwrap()
    }

    #[track_caller]
    fn assert_restorable(&self) {
        let (restored, image) = (self.restored(), self.image());
        assert_eq!(restored.len(), image.len(), "sizes differ");
        let page = restored.iter().zip(&image).position(|(a, b)| a != b);
        assert_eq!(page, None, "first differing byte");
    }
}

fn opened(path: &Path) -> BufReader<File> {
    BufReader::new(File::open(path).unwrap())
}

fn healed(outcome: &SyncOutcome) -> Option<HealReason> {
    match outcome {
        SyncOutcome::Staged { healed, .. } => *healed,
        SyncOutcome::UpToDate => panic!("nothing was shipped"),
    }
}

fn staged(outcome: SyncOutcome) -> StagedFile {
    match outcome {
        SyncOutcome::Staged { file, .. } => file,
        SyncOutcome::UpToDate => panic!("nothing was staged"),
    }
}

/// Reads a snapshot that was begun.
fn staged_snapshot(reader: Option<SnapshotReader>) -> StagedFile {
    reader.unwrap().stage(&AtomicBool::new(false)).unwrap().unwrap()
}

fn txids(outcome: &SyncOutcome) -> (u64, u64) {
    match outcome {
        SyncOutcome::Staged { file, .. } => (file.name.min.get(), file.name.max.get()),
        SyncOutcome::UpToDate => panic!("nothing was shipped"),
    }
}

/// Runs each test under both kinds of pin.
macro_rules! under_both_pins {
    ($($name:ident),* $(,)?) => {
        mod detached {
            $(#[test] fn $name() { super::$name(crate::WalPin::Detached) })*
        }
        mod connection {
            $(#[test] fn $name() { super::$name(crate::WalPin::Connection) })*
        }
    };
}

#[test]
fn what_is_not_a_database_in_wal_mode_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let open = |name: &str| Capture::open(&path(name), &CaptureOptions::default()).unwrap_err();
    assert!(matches!(open("missing.db"), DatabaseError::Missing { .. }));
    fs::create_dir(path("directory.db")).unwrap();
    assert!(matches!(open("directory.db"), DatabaseError::NotAFile { .. }));
    fs::write(path("empty.db"), b"").unwrap();
    assert!(matches!(open("empty.db"), DatabaseError::Empty { .. }));
    fs::write(path("text.db"), "not a database ".repeat(100)).unwrap();
    assert!(matches!(open("text.db"), DatabaseError::NotADatabase { .. }));
    let connection = Connection::open(path("delete.db")).unwrap();
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(matches!(open("delete.db"), DatabaseError::NotWal { .. }));
}

mod checkpoints;
mod healing;
mod merging;
mod reconcile;
mod shipping;
mod snapshots;
