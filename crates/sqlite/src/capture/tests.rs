use std::fs::{self, File};
use std::path::PathBuf;

use rusqlite::Connection;
use walrust_ltx::Mode;

use super::*;
use crate::state_directory::state_path;
use crate::{IntegrityCheck, Restore};

/// A database with an application that writes, and the files that were shipped.
struct Scene {
    directory: tempfile::TempDir,
    application: Connection,
    shipped: Vec<(StagedFile, PathBuf)>,
    clock: i64,
}

impl Scene {
    fn new(page_size: u32) -> Self {
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
        Self { directory, application, shipped: Vec::new(), clock: 1_000 }
    }

    fn database(&self) -> PathBuf {
        self.directory.path().join("app.db")
    }

    fn capture(&self) -> Capture {
        Capture::open(&self.database()).unwrap()
    }

    fn reconciled(&self) -> Capture {
        let mut capture = self.capture();
        capture.reconcile(self.head().as_ref()).unwrap();
        capture
    }

    fn head(&self) -> Option<Head> {
        let (file, _) = self.shipped.iter().max_by_key(|(file, _)| file.name.max)?;
        Some(Head {
            txid: file.name.max,
            checksum: Some(file.post_apply),
            page_size: file.header.page_size,
            page_count: file.header.commit,
            timestamp_ms: file.header.timestamp_ms,
        })
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
            capture.confirm().unwrap();
        }
        outcome
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
        restore.apply("base", base.0.name, File::open(&base.1).unwrap()).unwrap();
        for (file, stored) in &self.shipped {
            if file.name.min == head.next() {
                restore.apply("next", file.name, File::open(stored).unwrap()).unwrap();
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

fn healed(outcome: &SyncOutcome) -> Option<HealReason> {
    match outcome {
        SyncOutcome::Staged { healed, .. } => *healed,
        SyncOutcome::UpToDate => panic!("nothing was shipped"),
    }
}

fn txids(outcome: &SyncOutcome) -> (u64, u64) {
    match outcome {
        SyncOutcome::Staged { file, .. } => (file.name.min.get(), file.name.max.get()),
        SyncOutcome::UpToDate => panic!("nothing was shipped"),
    }
}

#[test]
fn commits_are_shipped_as_increments_at_every_page_size() {
    for page_size in PageSize::ALL {
        let mut scene = Scene::new(page_size.get());
        let mut capture = scene.reconciled();
        assert_eq!(txids(&scene.ship(&mut capture)), (1, 1));
        scene.insert(50);
        scene.write("UPDATE a SET text = 'x' WHERE id % 7 = 0");
        scene.write("DELETE FROM a WHERE id % 5 = 0");
        scene.write("INSERT INTO b VALUES ('k', zeroblob(100000))");
        let outcome = scene.ship(&mut capture);
        assert_eq!(txids(&outcome), (2, 5), "each commit is one TXID");
        assert_eq!(healed(&outcome), None);
        assert_eq!(scene.ship(&mut capture), SyncOutcome::UpToDate);
        scene.assert_restorable();
    }
}

#[test]
fn rolled_back_and_spilled_frames_are_not_shipped() {
    let mut scene = Scene::new(1024);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    scene.insert(10);
    scene.write("PRAGMA cache_size = 2; BEGIN");
    scene.insert(500);
    let during = scene.ship(&mut capture);
    assert_eq!(txids(&during), (2, 2), "the open transaction is not part of it");
    scene.write("ROLLBACK");
    scene.insert(3);
    assert_eq!(txids(&scene.ship(&mut capture)), (3, 3));
    scene.assert_restorable();
}

#[test]
fn growth_by_unwritten_pages_and_shrinking_are_exact() {
    let mut scene = Scene::new(512);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    scene.insert(400);
    scene.ship(&mut capture);
    scene.write("DELETE FROM a WHERE id > 20");
    scene.write("VACUUM");
    scene.ship(&mut capture);
    scene.assert_restorable();
    scene.insert(200);
    scene.write("DELETE FROM a WHERE id > 20");
    scene.write("VACUUM");
    scene.insert(300);
    // Shrinks and grows again within one file.
    let outcome = scene.ship(&mut capture);
    assert_eq!(healed(&outcome), None);
    scene.assert_restorable();
}

#[test]
fn our_checkpoint_lets_the_wal_restart_and_nothing_is_missed() {
    let mut scene = Scene::new(4096);
    let mut capture = scene.reconciled();
    for _ in 0..5 {
        scene.insert(100);
        let outcome = scene.ship(&mut capture);
        assert_eq!(healed(&outcome), None);
        assert!(capture.checkpoint().unwrap());
    }
    let frames = capture.wal_status().unwrap().frames;
    assert!(frames < 60, "the WAL restarted each time, it has {frames} frames");
    scene.assert_restorable();
}

#[test]
fn a_pinned_wal_is_not_reset_by_the_application() {
    let mut scene = Scene::new(4096);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    scene.write("PRAGMA busy_timeout = 0");
    for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
        scene.insert(40);
        scene.checkpoint(mode);
        scene.insert(40);
        let outcome = scene.ship(&mut capture);
        assert_eq!(healed(&outcome), None, "{mode}");
    }
    scene.assert_restorable();
}

#[test]
fn truncating_an_empty_wal_again_and_again_loses_nothing() {
    let mut scene = Scene::new(4096);
    let mut capture = scene.reconciled();
    scene.insert(10);
    scene.ship(&mut capture);
    assert!(capture.checkpoint().unwrap());
    for _ in 0..3 {
        assert_eq!(scene.checkpoint("TRUNCATE"), (0, 0, 0));
    }
    scene.insert(10);
    let outcome = scene.ship(&mut capture);
    assert_eq!(healed(&outcome), None);
    scene.assert_restorable();
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let mut scene = Scene::new(4096);
    let mut capture = scene.reconciled();
    scene.insert(10);
    scene.ship(&mut capture);
    drop(capture);
    scene.insert(10);
    let mut capture = scene.capture();
    let head = scene.head();
    assert_eq!(capture.reconcile(head.as_ref()).unwrap(), Reconciliation::Agrees);
    let outcome = scene.ship(&mut capture);
    assert_eq!((txids(&outcome), healed(&outcome)), ((2, 2), None));
    scene.assert_restorable();
}

#[test]
fn a_wal_that_restarted_while_stopped_is_healed_with_the_changed_pages_only() {
    let mut scene = Scene::new(4096);
    let mut capture = scene.reconciled();
    scene.insert(2000);
    scene.ship(&mut capture);
    drop(capture);
    // The new generation is shorter than the shipped one.
    scene.write("UPDATE a SET text = 'lost?' WHERE id = 1000");
    scene.checkpoint("TRUNCATE");
    scene.write("UPDATE a SET text = 'kept' WHERE id = 1");
    let mut capture = scene.reconciled();
    let outcome = scene.ship(&mut capture);
    assert_eq!(healed(&outcome), Some(HealReason::WalRestarted));
    let SyncOutcome::Staged { file, .. } = outcome else { unreachable!() };
    assert!(file.pages < 12, "{} pages", file.pages);
    scene.assert_restorable();
}

#[test]
fn commits_between_two_runs_that_both_find_no_wal_are_healed() {
    let mut scene = Scene::new(4096);
    scene.insert(50);
    scene.checkpoint("TRUNCATE");
    scene.reopen_application();
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    drop(capture);
    // The last connection to close checkpoints and removes the WAL.
    scene.write("UPDATE a SET text = 'lost?' WHERE id = 1");
    scene.reopen_application();
    let mut capture = scene.reconciled();
    assert_eq!(healed(&scene.ship(&mut capture)), Some(HealReason::UnknownPosition));
    scene.insert(5);
    assert_eq!(healed(&scene.ship(&mut capture)), None);
    scene.assert_restorable();
}

#[test]
fn the_first_wal_of_a_database_is_continued_frame_by_frame() {
    let mut scene = Scene::new(4096);
    scene.checkpoint("TRUNCATE");
    scene.reopen_application();
    let mut capture = scene.reconciled();
    let SyncOutcome::Staged { file, .. } = capture.sync(1_000).unwrap() else {
        panic!("the base is staged")
    };
    scene.store(&file);
    // Commits between the upload and its confirmation.
    scene.insert(5);
    scene.insert(5);
    capture.confirm().unwrap();
    let outcome = scene.ship(&mut capture);
    assert_eq!((txids(&outcome), healed(&outcome)), ((2, 3), None));
    scene.assert_restorable();
}

#[test]
fn a_wal_rewritten_in_place_beyond_the_position_is_healed() {
    let mut scene = Scene::new(4096);
    let mut capture = scene.reconciled();
    scene.insert(20);
    scene.ship(&mut capture);
    drop(capture);
    scene.insert(20);
    scene.checkpoint("RESTART");
    scene.insert(200);
    let mut capture = scene.reconciled();
    assert_eq!(healed(&scene.ship(&mut capture)), Some(HealReason::WalRestarted));
    scene.assert_restorable();
}

#[test]
fn lost_local_state_is_found_again_in_the_bucket() {
    let mut scene = Scene::new(4096);
    let mut capture = scene.reconciled();
    scene.insert(50);
    scene.ship(&mut capture);
    drop(capture);
    fs::remove_dir_all(state_path(&scene.database())).unwrap();
    let mut capture = scene.capture();
    assert_eq!(capture.reconcile(scene.head().as_ref()).unwrap(), Reconciliation::Adopted);
    assert_eq!(scene.ship(&mut capture), SyncOutcome::UpToDate);
    scene.insert(50);
    assert_eq!(txids(&scene.ship(&mut capture)), (2, 2));
    scene.assert_restorable();
}

#[test]
fn an_upload_whose_confirmation_was_lost_is_never_repeated() {
    let mut scene = Scene::new(4096);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    scene.insert(50);
    let SyncOutcome::Staged { file, .. } = capture.sync(9_000).unwrap() else {
        panic!("nothing was staged")
    };
    scene.store(&file);
    drop(capture);
    let mut capture = scene.capture();
    assert_eq!(capture.reconcile(scene.head().as_ref()).unwrap(), Reconciliation::Adopted);
    scene.insert(50);
    assert_eq!(txids(&scene.ship(&mut capture)), (3, 3));
    scene.assert_restorable();
}

#[test]
fn a_database_that_moved_on_unseen_begins_a_new_chain_behind_the_head() {
    let mut scene = Scene::new(4096);
    let mut capture = scene.reconciled();
    scene.insert(50);
    scene.ship(&mut capture);
    drop(capture);
    fs::remove_dir_all(state_path(&scene.database())).unwrap();
    scene.insert(50);
    let mut capture = scene.capture();
    let reconciliation = capture.reconcile(scene.head().as_ref()).unwrap();
    assert_eq!(reconciliation, Reconciliation::NewSnapshot { txid: Txid::new(2).unwrap() });
    assert_eq!(txids(&scene.ship(&mut capture)), (1, 2));
    scene.assert_restorable();
}

#[test]
fn a_snapshot_comes_with_what_was_not_shipped() {
    let mut scene = Scene::new(4096);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    scene.insert(50);
    let staged = capture.snapshot(5_000).unwrap();
    let incremental = staged.incremental.unwrap();
    let snapshot = staged.snapshot.unwrap();
    assert_eq!(incremental.name.max, snapshot.name.max);
    assert_eq!(incremental.post_apply, snapshot.post_apply);
    scene.store(&incremental);
    scene.store(&snapshot);
    capture.confirm().unwrap();
    scene.assert_restorable();
    // Of one state it is the same file, whenever it is made.
    let again = capture.snapshot(99_000).unwrap();
    assert_eq!(again.incremental, None);
    assert_eq!(again.snapshot.unwrap().sha256, snapshot.sha256);
}

#[test]
fn times_never_go_back() {
    let mut scene = Scene::new(4096);
    let mut capture = scene.reconciled();
    scene.clock = 50_000;
    scene.ship(&mut capture);
    scene.insert(1);
    scene.clock = 10_000;
    scene.ship(&mut capture);
    let times: Vec<_> = scene.shipped.iter().map(|(file, _)| file.header.timestamp_ms).collect();
    assert_eq!(times, [51_000, 51_000]);
}

#[test]
fn what_is_not_a_database_in_wal_mode_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let open = |name: &str| Capture::open(&path(name)).unwrap_err();
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

#[test]
fn nothing_is_written_to_the_application_s_database() {
    let mut scene = Scene::new(4096);
    let schema = |scene: &Scene| -> i64 {
        let count = "SELECT count(*) FROM sqlite_schema";
        scene.application.query_row(count, [], |row| row.get(0)).unwrap()
    };
    let before = (schema(&scene), scene.image());
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    capture.checkpoint().unwrap();
    drop(capture);
    assert_eq!((schema(&scene), scene.image()), before);
}
