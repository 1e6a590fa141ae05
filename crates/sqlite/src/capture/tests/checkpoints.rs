use super::*;

under_both_pins!(
    our_checkpoint_lets_the_wal_restart_and_nothing_is_missed,
    a_pinned_wal_is_not_reset_by_the_application,
    truncating_an_empty_wal_again_and_again_loses_nothing,
    under_the_barrier_the_wal_restarts_although_nothing_is_uploaded,
    what_a_barrier_staged_survives_the_loss_of_the_wal,
    a_staged_tail_that_was_lost_with_the_power_is_healed,
    a_large_wal_file_is_shortened,
    a_wal_that_nobody_uses_any_more_goes_when_the_capture_leaves,
    the_first_frames_of_an_empty_wal_are_checkpointed_although_nobody_reads_them,
    a_busy_writer_makes_the_barrier_step_back,
    a_reader_in_the_way_keeps_the_pin_and_the_frames,
    a_pin_that_was_given_up_is_taken_again_and_the_gap_healed,
);

fn our_checkpoint_lets_the_wal_restart_and_nothing_is_missed(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    for _ in 0..5 {
        scene.insert(100);
        let outcome = scene.ship(&mut capture);
        assert_eq!(healed(&outcome), None);
        assert!(capture.checkpoint(CheckpointKind::Quiet, 1).unwrap());
    }
    let frames = capture.wal_fill().unwrap().frames;
    assert!(frames < 60, "the WAL restarted each time, it has {frames} frames");
    scene.assert_restorable();
}

fn a_pinned_wal_is_not_reset_by_the_application(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
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

fn truncating_an_empty_wal_again_and_again_loses_nothing(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.insert(10);
    scene.ship(&mut capture);
    assert!(capture.checkpoint(CheckpointKind::Quiet, 1).unwrap());
    for _ in 0..3 {
        assert_eq!(scene.checkpoint("TRUNCATE"), (0, 0, 0));
    }
    scene.insert(10);
    let outcome = scene.ship(&mut capture);
    assert_eq!(healed(&outcome), None);
    scene.assert_restorable();
}

const BARRIER: CheckpointKind = CheckpointKind::Barrier { truncate: false };

fn under_the_barrier_the_wal_restarts_although_nothing_is_uploaded(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    for _ in 0..4 {
        scene.insert(100);
        scene.insert(100);
        assert!(capture.checkpoint(BARRIER, 5_000).unwrap());
    }
    scene.insert(1);
    let frames = capture.wal_fill().unwrap().frames;
    assert!(frames < 20, "the WAL restarted, it has {frames} frames");
    assert_eq!(capture.staged().len(), 4);
    scene.ship_staged(&mut capture);
    assert_eq!(healed(&scene.ship(&mut capture)), None);
    scene.assert_restorable();
}

fn what_a_barrier_staged_survives_the_loss_of_the_wal(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    scene.insert(100);
    scene.insert(100);
    assert!(capture.checkpoint(BARRIER, 5_000).unwrap());
    drop(capture);
    scene.checkpoint("TRUNCATE");
    let mut capture = scene.reconciled();
    scene.ship_staged(&mut capture);
    assert_eq!(scene.head().unwrap().txid.get(), 3, "each commit has its place in the history");
    assert_eq!(capture.sync(9_000).unwrap(), SyncOutcome::UpToDate);
    scene.assert_restorable();
}

fn a_staged_tail_that_was_lost_with_the_power_is_healed(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    scene.insert(100);
    assert!(capture.checkpoint(BARRIER, 5_000).unwrap());
    scene.insert(100);
    assert!(capture.checkpoint(BARRIER, 6_000).unwrap());
    let tail = capture.staged().pop().unwrap();
    drop(capture);
    std::fs::write(&tail.path, b"").unwrap();
    // The WAL that had the frames of the tail begins anew.
    scene.insert(1);
    let mut capture = scene.reconciled();
    assert_eq!(capture.staged().len(), 1, "the file before it is whole");
    scene.ship_staged(&mut capture);
    let outcome = capture.sync(9_000).unwrap();
    assert!(healed(&outcome).is_some(), "{outcome:?}");
    scene.ship_staged(&mut capture);
    scene.assert_restorable();
}

fn a_large_wal_file_is_shortened(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.insert(500);
    scene.ship(&mut capture);
    let large = capture.wal_fill().unwrap().file_frames;
    assert!(large > 30);
    assert!(capture.checkpoint(CheckpointKind::Truncate, 5_000).unwrap());
    assert_eq!(capture.wal_fill().unwrap().file_frames, 0);
    scene.insert(1);
    assert_eq!(healed(&scene.ship(&mut capture)), None);
    scene.insert(500);
    let truncating = CheckpointKind::Barrier { truncate: true };
    assert!(capture.checkpoint(truncating, 5_000).unwrap());
    assert_eq!(capture.wal_fill().unwrap().file_frames, 0);
    scene.ship_staged(&mut capture);
    scene.insert(1);
    assert_eq!(healed(&scene.ship(&mut capture)), None);
    scene.assert_restorable();
}

fn a_busy_writer_makes_the_barrier_step_back(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    // Keeps everything from being copied beside the writer.
    let reader = Connection::open(scene.database()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM a").unwrap();
    scene.insert(10);
    scene.write("BEGIN IMMEDIATE; UPDATE a SET text = 'later' WHERE id = 1");
    assert!(!capture.checkpoint(BARRIER, 5_000).unwrap());
    scene.write("COMMIT");
    scene.ship_staged(&mut capture);
    assert_eq!(healed(&scene.ship(&mut capture)), None);
    scene.assert_restorable();
}

fn a_reader_in_the_way_keeps_the_pin_and_the_frames(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.insert(10);
    scene.ship(&mut capture);
    let reader = Connection::open(scene.database()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM a").unwrap();
    scene.insert(10);
    assert!(!capture.checkpoint(BARRIER, 5_000).unwrap());
    scene.ship_staged(&mut capture);
    scene.write("PRAGMA busy_timeout = 0");
    for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
        scene.insert(10);
        scene.checkpoint(mode);
    }
    assert_eq!(healed(&scene.ship(&mut capture)), None);
    drop(reader);
    scene.insert(10);
    assert!(capture.checkpoint(BARRIER, 6_000).unwrap());
    scene.ship_staged(&mut capture);
    scene.assert_restorable();
}

fn a_pin_that_was_given_up_is_taken_again_and_the_gap_healed(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.insert(10);
    scene.ship(&mut capture);
    scene.insert(10);
    assert!(!capture.checkpoint(CheckpointKind::GiveUp, 5_000).unwrap());
    let (busy, ..) = scene.checkpoint("TRUNCATE");
    assert_eq!(busy, 0, "nothing holds the WAL any more");
    scene.insert(10);
    assert_eq!(healed(&scene.ship(&mut capture)), Some(HealReason::WalRestarted));
    scene.write("PRAGMA busy_timeout = 0");
    let (busy, ..) = scene.checkpoint("TRUNCATE");
    assert_eq!(busy, 1, "pinned again");
    scene.assert_restorable();
}

#[test]
fn a_checkpoint_pins_what_it_reads_also_where_nothing_is_pinned_between_two_syncs() {
    let mut scene = Scene::new(WalPin::None, 4096);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    scene.insert(100);
    assert!(capture.checkpoint(BARRIER, 5_000).unwrap());
    let (busy, ..) = scene.checkpoint("TRUNCATE");
    assert_eq!(busy, 0, "and lets go afterwards");
    scene.ship_staged(&mut capture);
    scene.assert_restorable();
}

fn the_first_frames_of_an_empty_wal_are_checkpointed_although_nobody_reads_them(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    scene.insert(10);
    scene.checkpoint("TRUNCATE");
    scene.reopen_application();
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    scene.insert(10);
    scene.ship(&mut capture);
    assert!(capture.checkpoint(CheckpointKind::Quiet, 5_000).unwrap());
    scene.assert_restorable();
}

fn a_wal_that_nobody_uses_any_more_goes_when_the_capture_leaves(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.insert(10);
    capture.leave().unwrap();
    let wal = crate::sidecar(&scene.database(), "-wal");
    assert!(wal.exists(), "not everything is in storage");
    scene.ship(&mut capture);
    scene.application = Connection::open_in_memory().unwrap();
    assert!(wal.exists(), "the last close of the application could not remove it");
    capture.leave().unwrap();
    assert!(!wal.exists());
    drop(capture);
    scene.assert_restorable();
}
