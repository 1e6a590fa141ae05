//! Snapshots that are read while the capture and the application go on.

use std::os::unix::fs::FileExt;

use super::*;

under_both_pins! {
    a_snapshot_is_of_one_state_whatever_happens_while_it_is_read,
    a_snapshot_of_a_backfilled_database_outlives_the_restart_of_the_wal,
    a_snapshot_outlives_the_capture,
    a_snapshot_that_is_aborted_leaves_nothing,
    a_snapshot_that_is_not_what_the_history_says_begins_a_new_chain,
}

/// What is stored of a snapshot, restored.
fn pages_of(scene: &Scene, snapshot: &StagedFile) -> Vec<u8> {
    let output = scene.directory.path().join("snapshot.db");
    let mut restore = Restore::begin(&output, true, Mode::Strict).unwrap();
    restore.apply("snapshot", snapshot.name, opened(&snapshot.path)).unwrap();
    restore.finish(IntegrityCheck::Full).unwrap();
    fs::read(output).unwrap()
}

/// Commits, syncs, and checkpoints of everybody, each as far as it can.
fn go_on(scene: &mut Scene, capture: &mut Capture) {
    scene.application.busy_timeout(std::time::Duration::ZERO).unwrap();
    for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
        scene.insert(200);
        scene.write("DELETE FROM a WHERE id % 3 = 0; UPDATE a SET blob = randomblob(300);");
        scene.ship(capture);
        // Busy is an answer.
        scene.checkpoint(mode);
        for kind in [CheckpointKind::Quiet, CheckpointKind::Barrier { truncate: true }] {
            scene.insert(10);
            capture.checkpoint(kind, scene.clock).unwrap();
            scene.ship_staged(capture);
        }
    }
}

fn a_snapshot_is_of_one_state_whatever_happens_while_it_is_read(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.insert(500);
    scene.ship(&mut capture);
    scene.insert(500);
    let before = scene.image();
    let begun = capture.begin_snapshot(5_000).unwrap();
    scene.ship_staged(&mut capture);
    go_on(&mut scene, &mut capture);
    let snapshot = staged_snapshot(begun.reader);
    assert!(pages_of(&scene, &snapshot) == before, "the pages are those of the state");
    // Nothing stands in the way any more.
    assert!(capture.checkpoint(CheckpointKind::Quiet, scene.clock).unwrap());
    scene.store(&snapshot);
    scene.insert(5);
    scene.ship(&mut capture);
    scene.assert_restorable();
}

fn a_snapshot_of_a_backfilled_database_outlives_the_restart_of_the_wal(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.insert(500);
    scene.ship(&mut capture);
    assert!(capture.checkpoint(CheckpointKind::Quiet, 1).unwrap());
    let before = scene.image();
    let begun = capture.begin_snapshot(5_000).unwrap();
    let salts = |capture: &Capture| capture.reader.files.wal_index().unwrap().header.salts;
    let generation = salts(&capture);
    go_on(&mut scene, &mut capture);
    assert_ne!(salts(&capture), generation, "the WAL restarted");
    let snapshot = staged_snapshot(begun.reader);
    assert!(pages_of(&scene, &snapshot) == before, "the pages are those of the state");
    scene.assert_restorable();
}

fn a_snapshot_outlives_the_capture(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    let before = scene.image();
    let begun = capture.begin_snapshot(5_000).unwrap();
    drop(capture);
    scene.application.busy_timeout(std::time::Duration::ZERO).unwrap();
    for _ in 0..3 {
        scene.insert(500);
        scene.checkpoint("TRUNCATE");
    }
    let snapshot = staged_snapshot(begun.reader);
    assert!(pages_of(&scene, &snapshot) == before, "the pages are those of the state");
}

fn a_snapshot_that_is_aborted_leaves_nothing(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    scene.insert(500);
    scene.ship(&mut capture);
    let begun = capture.begin_snapshot(5_000).unwrap();
    let aborted = begun.reader.unwrap().stage(&AtomicBool::new(true)).unwrap();
    assert_eq!(aborted, None);
    let staging = state_path(&scene.database(), None).join("staging");
    assert_eq!(fs::read_dir(staging).unwrap().count(), 0);
    // The WAL restarts again.
    assert!(capture.checkpoint(CheckpointKind::Truncate, scene.clock).unwrap());
    scene.assert_restorable();
}

fn a_snapshot_that_is_not_what_the_history_says_begins_a_new_chain(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.insert(500);
    scene.ship(&mut capture);
    assert!(capture.checkpoint(CheckpointKind::Quiet, 1).unwrap());
    let begun = capture.begin_snapshot(5_000).unwrap();
    // A disk that forgets what was written: the last page is another one than was shipped.
    let file = fs::OpenOptions::new().write(true).open(scene.database()).unwrap();
    let end = file.metadata().unwrap().len();
    file.write_all_at(&[0; 64], end - 64).unwrap();
    let error = begun.reader.unwrap().stage(&AtomicBool::new(false)).unwrap_err();
    assert!(matches!(error, DatabaseError::Diverged { .. }), "{error}");
    capture.end_history().unwrap();
    let base = staged(capture.sync(9_000).unwrap());
    assert!(base.name.is_snapshot(), "{}", base.name);
    assert_eq!(base.name.max, scene.shipped.last().unwrap().0.name.max.next());
    assert!(pages_of(&scene, &base) == scene.image(), "it is what the database is");
    // Closing it earlier would drop the locks of the connections.
    drop(file);
}
