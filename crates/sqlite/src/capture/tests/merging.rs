use super::*;

under_both_pins!(
    files_that_wait_become_one_and_the_first_stays,
    a_merged_file_has_what_grew_shrank_and_changed_again,
    a_crash_between_a_merge_and_the_end_of_its_sources_costs_nothing,
);

const BARRIER: CheckpointKind = CheckpointKind::Barrier { truncate: false };

/// A capture of a database of which so many files wait behind what storage has.
fn waiting(scene: &mut Scene, files: usize) -> Capture {
    let mut capture = scene.reconciled();
    scene.ship(&mut capture);
    for number in 0..files {
        scene.insert(50);
        scene.write("UPDATE a SET text = 'again' WHERE id % 3 = 0");
        assert!(capture.checkpoint(BARRIER, 10_000 + number as i64).unwrap());
    }
    assert_eq!(capture.staged().len(), files);
    capture
}

fn files_that_wait_become_one_and_the_first_stays(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = waiting(&mut scene, 5);
    let before = capture.staged();
    capture.merge_staged(1).unwrap();
    let [first, merged] = &capture.staged()[..] else { panic!("two files") };
    assert_eq!(first, &before[0]);
    assert_eq!((merged.name.min, merged.name.max), (before[1].name.min, before[4].name.max));
    assert_eq!(merged.post_apply, before[4].post_apply);
    assert!(merged.is_whole());
    assert!(before[1..].iter().all(|source| !source.path.exists()), "the sources are gone");
    scene.ship_staged(&mut capture);
    scene.insert(1);
    assert_eq!(healed(&scene.ship(&mut capture)), None);
    scene.assert_restorable();
}

fn a_merged_file_has_what_grew_shrank_and_changed_again(pin: WalPin) {
    let mut scene = Scene::new(pin, 4096);
    let mut capture = waiting(&mut scene, 1);
    for sql in ["DELETE FROM a WHERE id > 20", "VACUUM", "UPDATE a SET text = 'small'"] {
        scene.write(sql);
        assert!(capture.checkpoint(BARRIER, 20_000).unwrap());
    }
    scene.insert(300);
    assert!(capture.checkpoint(BARRIER, 21_000).unwrap());
    capture.merge_staged(0).unwrap();
    assert_eq!(capture.staged().len(), 1);
    // What is staged next continues the merged pages, and page checksums are those of the merge.
    scene.write("UPDATE a SET text = 'later' WHERE id % 2 = 0");
    assert!(capture.checkpoint(BARRIER, 22_000).unwrap());
    scene.ship_staged(&mut capture);
    scene.assert_restorable();
    drop(capture);
    let mut capture = scene.reconciled();
    assert_eq!(capture.sync(30_000).unwrap(), SyncOutcome::UpToDate);
    scene.insert(1);
    scene.ship(&mut capture);
    scene.assert_restorable();
}

fn a_crash_between_a_merge_and_the_end_of_its_sources_costs_nothing(pin: WalPin) {
    // Which of the sources, oldest first, were removed before the crash.
    for removed in [vec![], vec![1], vec![2], vec![1, 2], vec![1, 2, 3]] {
        let mut scene = Scene::new(pin, 4096);
        let mut capture = waiting(&mut scene, 4);
        let sources = capture.staged();
        let copies: Vec<_> =
            sources.iter().map(|source| std::fs::read(&source.path).unwrap()).collect();
        capture.merge_staged(1).unwrap();
        let expected = capture.staged();
        drop(capture);
        for (index, source) in sources.iter().enumerate().skip(1) {
            if !removed.contains(&index) {
                std::fs::write(&source.path, &copies[index]).unwrap();
            }
        }
        let mut capture = scene.reconciled();
        let names = |files: &[StagedFile]| files.iter().map(|it| it.name).collect::<Vec<_>>();
        assert_eq!(names(&capture.staged()), names(&expected), "without {removed:?}");
        scene.ship_staged(&mut capture);
        assert_eq!(capture.sync(30_000).unwrap(), SyncOutcome::UpToDate);
        scene.assert_restorable();
    }
}
