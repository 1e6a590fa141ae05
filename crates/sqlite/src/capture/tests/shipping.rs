use super::*;

under_both_pins!(
    commits_are_shipped_as_increments_at_every_page_size,
    rolled_back_and_spilled_frames_are_not_shipped,
    growth_by_unwritten_pages_and_shrinking_are_exact,
    the_first_wal_of_a_database_is_continued_frame_by_frame,
    a_snapshot_comes_with_what_was_not_shipped,
    times_never_go_back,
    what_is_committed_after_the_time_of_a_state_is_not_in_it,
    nothing_is_written_to_the_application_s_database,
);

fn commits_are_shipped_as_increments_at_every_page_size(pin: WalPin) {
    for page_size in PageSize::ALL {
        let mut scene = Scene::new(pin, page_size.get());
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

fn rolled_back_and_spilled_frames_are_not_shipped(pin: WalPin) {
    let mut scene = Scene::new(pin, 1024);
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

fn growth_by_unwritten_pages_and_shrinking_are_exact(pin: WalPin) {
    let mut scene = Scene::new(pin, 512);
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

fn the_first_wal_of_a_database_is_continued_frame_by_frame(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
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
    capture.confirm(file.name).unwrap();
    let outcome = scene.ship(&mut capture);
    assert_eq!((txids(&outcome), healed(&outcome)), ((2, 3), None));
    scene.assert_restorable();
}

fn a_snapshot_comes_with_what_was_not_shipped(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    scene.insert(50);
    let begun = capture.begin_snapshot(5_000).unwrap();
    let [incremental] = &begun.before[..] else { panic!("one incremental") };
    let snapshot = staged_snapshot(begun.reader);
    assert_eq!(incremental.name.max, snapshot.name.max);
    assert_eq!(incremental.post_apply, snapshot.post_apply);
    scene.store(incremental);
    scene.store(&snapshot);
    capture.confirm(incremental.name).unwrap();
    scene.assert_restorable();
    // Of one state it is the same file, whenever it is made.
    let again = capture.begin_snapshot(99_000).unwrap();
    assert_eq!(again.before, []);
    assert_eq!(staged_snapshot(again.reader).sha256, snapshot.sha256);
}

fn times_never_go_back(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.clock = 50_000;
    scene.ship(&mut capture);
    scene.insert(1);
    scene.clock = 10_000;
    scene.ship(&mut capture);
    let times: Vec<_> = scene.shipped.iter().map(|(file, _)| file.header.timestamp_ms).collect();
    assert_eq!(times, [51_000, 51_000]);
}

/// A clock beside which somebody commits whenever it is asked.
struct BesideAWriter<'a>(&'a Scene);

impl crate::Clock for BesideAWriter<'_> {
    fn now_ms(&self) -> i64 {
        self.0.insert(1);
        60_000
    }
}

fn what_is_committed_after_the_time_of_a_state_is_not_in_it(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    scene.insert(1);
    assert_eq!(txids(&capture.sync(BesideAWriter(&scene)).unwrap()), (2, 2));
    scene.ship_staged(&mut capture);
    let begun = capture.begin_snapshot(BesideAWriter(&scene)).unwrap();
    let [incremental] = &begun.before[..] else { panic!("one incremental") };
    assert_eq!((incremental.name.min.get(), incremental.name.max.get()), (3, 3));
    drop(begun);
    scene.ship_staged(&mut capture);
    assert_eq!(txids(&scene.ship(&mut capture)), (4, 4));
    scene.assert_restorable();
}

fn nothing_is_written_to_the_application_s_database(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let schema = |scene: &Scene| -> i64 {
        let count = "SELECT count(*) FROM sqlite_schema";
        scene.application.query_row(count, [], |row| row.get(0)).unwrap()
    };
    let before = (schema(&scene), scene.image());
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    capture.checkpoint(CheckpointKind::Quiet, 1).unwrap();
    drop(capture);
    assert_eq!((schema(&scene), scene.image()), before);
}
