//! No layout of a WAL stops the snapshots or the increments of a database.

use rusqlite::Connection;
use walrust_testkit::{TestDatabase, assert_same_database};

use super::{NO_CHECKPOINTS, Scene, assert_no_gaps, checkpoint, commit, run};
use crate::walrust::QUICK;

/// Brings a WAL into the layout with this number: so many frames, some of them backfilled, perhaps
/// behind a restart, perhaps with a reader in the middle.
fn arrange(application: &Connection, reader: &Connection, layout: u64) {
    let mode = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][(layout % 4) as usize];
    commit(application, layout % 5);
    if layout.is_multiple_of(3) {
        run(reader, "BEGIN; SELECT * FROM audit");
    }
    commit(application, layout % 2);
    checkpoint(application, mode);
    commit(application, layout / 4 % 4);
    if layout.is_multiple_of(3) {
        run(reader, "ROLLBACK");
    }
}

#[test]
fn a21_no_layout_of_the_wal_stops_snapshots() {
    let scene = Scene::new();
    let (application, reader) = (scene.application(), scene.application());
    for layout in 0..16 {
        arrange(&application, &reader, layout);
        let before = scene.snapshots();
        run(&application, "UPDATE accounts SET balance = balance + 1");
        scene.walrust.snapshot(&scene.source, &[]).succeeded();
        assert_eq!(scene.snapshots(), before + 1, "layout {layout}");
        assert_same_database(&scene.source, &scene.walrust.restored("app", &[]));
    }
}

#[test]
fn a21_no_layout_of_the_wal_stops_increments() {
    let scene = Scene::new();
    let (application, reader) = (scene.application(), scene.application());
    let mut daemon = scene.replicate(&NO_CHECKPOINTS);
    for layout in 0..48 {
        arrange(&application, &reader, layout);
        let head = scene.head();
        run(&application, "UPDATE accounts SET balance = balance + 1");
        daemon.wait_until("it goes on", |_| scene.head() > head);
    }
    assert_no_gaps(&daemon.stop().stderr);
    scene.assert_restorable();
}

#[test]
fn a21_many_databases_of_different_layouts_are_replicated_by_one_daemon() {
    const COUNT: u64 = 30;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let pattern = TestDatabase::with_history(4096, 1, 5);
    let scene = Scene::new();
    let databases: Vec<_> = (0..COUNT)
        .map(|layout| {
            let path = directory.path().join(format!("tenant-{layout}.db"));
            std::fs::write(&path, pattern.image()).expect("the directory is writable");
            let connect = || walrust_testkit::connect(&path, 4096);
            let (application, reader) = (connect(), connect());
            arrange(&application, &reader, layout);
            (path, application, reader)
        })
        .collect();
    let paths: Vec<_> = databases.iter().map(|(path, ..)| path.as_path()).collect();
    let all = [&[scene.source.as_path()], &paths[..]].concat();
    let mut daemon = scene.replicate_all(&all, &QUICK);
    for (path, application, reader) in &databases {
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name in UTF-8");
        scene.storage.wait_for_manifest(&mut daemon, name);
        arrange(application, reader, 7);
        run(application, "UPDATE accounts SET balance = balance + 1");
    }
    assert_no_gaps(&daemon.stop().stderr);
    for (path, ..) in &databases {
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name in UTF-8");
        assert_same_database(path, &scene.walrust.restored(name, &[]));
    }
}
