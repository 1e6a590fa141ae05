use super::*;

under_both_pins!(
    a_restart_goes_on_where_it_was,
    a_wal_that_restarted_while_stopped_is_healed_with_the_changed_pages_only,
    commits_between_two_runs_that_both_find_no_wal_are_healed,
    a_wal_rewritten_in_place_beyond_the_position_is_healed,
    a_database_overwritten_in_place_is_compared,
    a_replaced_file_begins_its_own_history,
    a_database_that_was_replaced_while_open_is_noticed,
    all_of_a_large_database_is_read_only_where_that_is_allowed,
);

fn a_restart_goes_on_where_it_was(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
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

fn a_wal_that_restarted_while_stopped_is_healed_with_the_changed_pages_only(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
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

fn commits_between_two_runs_that_both_find_no_wal_are_healed(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
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

fn a_wal_rewritten_in_place_beyond_the_position_is_healed(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
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

/// Overwrites the database in place with what a backup has, as `cp` does.
fn overwrite(scene: &Scene, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(scene.database()).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
}

fn a_database_overwritten_in_place_is_compared(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    scene.insert(100);
    scene.checkpoint("TRUNCATE");
    let backup = fs::read(scene.database()).unwrap();
    let mut capture = scene.reconciled();
    scene.write("UPDATE a SET text = 'newer' WHERE id % 2 = 0");
    scene.ship(&mut capture);
    assert!(capture.checkpoint(CheckpointKind::Truncate, 1).unwrap());
    assert_eq!(capture.sync(5_000).unwrap(), SyncOutcome::UpToDate);
    overwrite(&scene, &backup);
    assert_eq!(healed(&scene.ship(&mut capture)), Some(HealReason::FileChanged), "while watched");
    scene.assert_restorable();
    drop(capture);
    let mut other = backup.clone();
    other[3 * 4096 + 100..][..10].copy_from_slice(&[7; 10]);
    overwrite(&scene, &other);
    let mut capture = scene.reconciled();
    assert_eq!(healed(&scene.ship(&mut capture)), Some(HealReason::FileChanged), "while away");
}

fn a_replaced_file_begins_its_own_history(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.insert(100);
    scene.ship(&mut capture);
    drop(capture);
    let mut other = Scene::new(pin, 4096);
    other.insert(300);
    other.reopen_application();
    scene.reopen_application();
    fs::rename(other.database(), scene.database()).unwrap();
    scene.reopen_application();
    let mut capture = scene.reconciled();
    let outcome = scene.ship(&mut capture);
    assert_eq!(txids(&outcome), (1, 2), "a snapshot behind the old history");
    scene.assert_restorable();
}

fn a_database_that_was_replaced_while_open_is_noticed(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.insert(100);
    scene.ship(&mut capture);
    let copy = scene.directory.path().join("copy.db");
    fs::copy(scene.database(), &copy).unwrap();
    fs::rename(&copy, scene.database()).unwrap();
    let error = capture.sync(5_000).unwrap_err();
    assert!(matches!(error, DatabaseError::Replaced { .. }), "{error}");
    fs::remove_file(scene.database()).unwrap();
    let error = capture.sync(5_000).unwrap_err();
    assert!(matches!(error, DatabaseError::Replaced { .. }), "{error}");
}

fn all_of_a_large_database_is_read_only_where_that_is_allowed(pin: WalPin) {
    let refused = |capture: &mut Capture| {
        capture.allow_whole_reads(false);
        let refused = capture.sync(1_000).unwrap_err();
        assert!(matches!(refused, DatabaseError::ReadsWhole { .. }), "{refused}");
        capture.allow_whole_reads(true);
    };
    let mut scene = Scene::new(pin, 65536);
    scene.write(&format!("INSERT INTO a (blob) VALUES (zeroblob({LARGE}))"));
    let mut capture = scene.reconciled();
    refused(&mut capture);
    scene.ship(&mut capture);
    // Frames are read wherever that is.
    capture.allow_whole_reads(false);
    scene.write("INSERT INTO a (text) VALUES ('frames')");
    scene.ship(&mut capture);
    drop(capture);
    scene.write("UPDATE a SET text = 'away' WHERE id = 1");
    scene.checkpoint("TRUNCATE");
    scene.write("UPDATE a SET text = 'later' WHERE id = 1");
    let mut capture = scene.reconciled();
    refused(&mut capture);
    assert_eq!(healed(&scene.ship(&mut capture)), Some(HealReason::WalRestarted));
    scene.assert_restorable();
}
