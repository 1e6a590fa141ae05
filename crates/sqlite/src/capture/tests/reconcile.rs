use super::*;

under_both_pins!(
    lost_local_state_is_found_again_in_the_bucket,
    an_upload_whose_confirmation_was_lost_is_never_repeated,
    a_head_that_local_state_does_not_know_is_found_in_the_wal,
    a_head_whose_frames_are_gone_is_healed_from_its_pages,
    without_local_state_only_what_differs_from_the_bucket_is_shipped,
    a_head_that_cannot_be_read_is_followed_by_a_new_chain,
    an_emptied_bucket_gets_a_new_chain,
    a_torn_staged_file_is_made_again,
    staged_files_survive_a_crash_in_their_order,
    a_snapshot_left_beside_the_history_does_not_take_its_place,
);

fn lost_local_state_is_found_again_in_the_bucket(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.insert(50);
    scene.ship(&mut capture);
    drop(capture);
    fs::remove_dir_all(state_path(&scene.database(), None)).unwrap();
    let mut capture = scene.capture();
    assert_eq!(scene.reconcile(&mut capture), Reconciliation::Differs { after: None });
    assert_eq!(scene.ship(&mut capture), SyncOutcome::UpToDate, "nothing differs");
    scene.insert(50);
    assert_eq!(txids(&scene.ship(&mut capture)), (2, 2));
    scene.assert_restorable();
}

fn an_upload_whose_confirmation_was_lost_is_never_repeated(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    scene.insert(50);
    let file = staged(capture.sync(9_000).unwrap());
    scene.store(&file);
    drop(capture);
    let mut capture = scene.capture();
    assert_eq!(capture.staged(), [file], "the same bytes, should the upload be tried again");
    assert_eq!(scene.reconcile(&mut capture), Reconciliation::Adopted);
    assert_eq!(capture.staged(), []);
    scene.insert(50);
    let outcome = scene.ship(&mut capture);
    assert_eq!((txids(&outcome), healed(&outcome)), ((3, 3), None));
    scene.assert_restorable();
}

fn a_head_that_local_state_does_not_know_is_found_in_the_wal(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.insert(20);
    scene.ship(&mut capture);
    let before = scene.copy_of_state();
    scene.insert(50);
    scene.insert(50);
    scene.ship(&mut capture);
    drop(capture);
    scene.insert(50);
    scene.replace_state(&before);
    let mut capture = scene.capture();
    assert_eq!(scene.reconcile(&mut capture), Reconciliation::Adopted);
    let outcome = scene.ship(&mut capture);
    assert_eq!((txids(&outcome), healed(&outcome)), ((4, 4), None), "from the very frame");
    scene.assert_restorable();
}

fn a_head_whose_frames_are_gone_is_healed_from_its_pages(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.insert(2000);
    scene.ship(&mut capture);
    let before = scene.copy_of_state();
    scene.write("UPDATE a SET text = 'x' WHERE id = 7");
    scene.ship(&mut capture);
    drop(capture);
    scene.write("UPDATE a SET text = 'y' WHERE id = 1200");
    scene.checkpoint("TRUNCATE");
    scene.write("UPDATE a SET text = 'z' WHERE id = 1300");
    scene.replace_state(&before);
    let mut capture = scene.capture();
    let known = Txid::new(1).unwrap();
    assert_eq!(scene.reconcile(&mut capture), Reconciliation::Differs { after: Some(known) });
    let outcome = scene.ship(&mut capture);
    assert_eq!(healed(&outcome), Some(HealReason::UnknownPosition));
    assert!(staged(outcome).pages < 12, "only what differs");
    scene.assert_restorable();
}

fn without_local_state_only_what_differs_from_the_bucket_is_shipped(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.insert(2000);
    scene.ship(&mut capture);
    scene.insert(3);
    scene.ship(&mut capture);
    drop(capture);
    fs::remove_dir_all(state_path(&scene.database(), None)).unwrap();
    scene.insert(3);
    let mut capture = scene.capture();
    assert_eq!(scene.reconcile(&mut capture), Reconciliation::Differs { after: None });
    let outcome = scene.ship(&mut capture);
    assert_eq!((txids(&outcome), healed(&outcome)), ((3, 3), Some(HealReason::UnknownPosition)));
    assert!(staged(outcome).pages < 12, "only what differs");
    scene.assert_restorable();
}

fn a_head_that_cannot_be_read_is_followed_by_a_new_chain(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.insert(50);
    scene.ship(&mut capture);
    drop(capture);
    fs::remove_dir_all(state_path(&scene.database(), None)).unwrap();
    scene.insert(50);
    // The last byte of the only file is torn off.
    let stored = &scene.shipped[0].1;
    let bytes = fs::read(stored).unwrap();
    fs::write(stored, &bytes[..bytes.len() - 1]).unwrap();
    let mut capture = scene.capture();
    assert_eq!(scene.reconcile(&mut capture), Reconciliation::Differs { after: None });
    assert_eq!(txids(&scene.ship(&mut capture)), (1, 2));
    scene.assert_restorable();
}

fn an_emptied_bucket_gets_a_new_chain(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.insert(50);
    scene.ship(&mut capture);
    drop(capture);
    scene.shipped.clear();
    let mut capture = scene.reconciled();
    assert_eq!(txids(&scene.ship(&mut capture)), (1, 2), "no TXID is used twice");
    scene.assert_restorable();
}

fn a_torn_staged_file_is_made_again(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    scene.insert(50);
    let file = staged(capture.sync(9_000).unwrap());
    drop(capture);
    let bytes = fs::read(&file.path).unwrap();
    let torn = [&bytes[..bytes.len() / 2], &vec![0; bytes.len() / 2]].concat();
    for damage in [&bytes[..bytes.len() - 1], &torn, &[]] {
        fs::write(&file.path, damage).unwrap();
        let mut capture = scene.capture();
        assert_eq!(capture.staged(), []);
        assert_eq!(scene.reconcile(&mut capture), Reconciliation::Agrees);
        let again = staged(capture.sync(9_000).unwrap());
        assert_eq!(again.sha256, file.sha256, "of the same frames it is the same file");
    }
    let mut capture = scene.reconciled();
    scene.ship_staged(&mut capture);
    scene.assert_restorable();
}

fn staged_files_survive_a_crash_in_their_order(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    capture.sync(1_000).unwrap();
    for _ in 0..3 {
        scene.insert(30);
        capture.sync(2_000).unwrap();
    }
    let files = capture.staged();
    assert_eq!(files.len(), 4, "the base and three incrementals");
    drop(capture);
    scene.insert(30);
    let mut capture = scene.reconciled();
    assert_eq!(capture.staged(), files);
    scene.ship_staged(&mut capture);
    let outcome = scene.ship(&mut capture);
    assert_eq!(txids(&outcome), (5, 5));
    scene.assert_restorable();
}

fn a_snapshot_left_beside_the_history_does_not_take_its_place(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    scene.insert(30);
    staged_snapshot(capture.begin_snapshot(5_000).unwrap().reader);
    scene.insert(30);
    capture.sync(6_000).unwrap();
    let files = capture.staged();
    assert_eq!(files.len(), 2);
    drop(capture);
    let mut capture = scene.reconciled();
    assert_eq!(capture.staged(), files, "without the snapshot");
    scene.ship_staged(&mut capture);
    assert_eq!(capture.sync(9_000).unwrap(), SyncOutcome::UpToDate);
    scene.assert_restorable();
}
