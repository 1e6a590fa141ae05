//! What a WAL looks like and what it means: resets, reused space, rolled-back and damaged frames.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use walrust_sqlite::{Capture, CaptureOptions};
use walrust_testkit::{image, sidecar};

use super::{
    FRAME, NO_CHECKPOINTS, Scene, SystemSqlite, add_documents, assert_no_gaps, checkpoint, commit,
    documents, gaps, query, run,
};
use crate::daemon::Daemon;

fn tail_while_away(end: impl Fn(Daemon)) {
    let scene = Scene::new();
    let application = scene.application();
    let mut daemon = scene.replicate(&NO_CHECKPOINTS);
    commit(&application, 30);
    scene.wait_for_head(&mut daemon, 31);
    let shipped = scene.wal_size();
    end(daemon);

    commit(&application, 5);
    assert!(checkpoint(&application, "RESTART"), "nobody else has it open");
    let salts = scene.salts();
    commit(&application, 3);
    assert_ne!(scene.salts(), salts, "the WAL has begun anew");
    assert!(scene.wal_size() >= shipped, "its size does not show that");

    let mut daemon = scene.replicate(&NO_CHECKPOINTS);
    scene.wait_for_head(&mut daemon, 32);
    daemon.stop();
    scene.assert_restorable();
}

#[test]
fn a01_a_tail_committed_while_stopped_is_not_lost() {
    tail_while_away(|daemon| {
        daemon.stop();
    });
}

#[test]
fn a01_a_tail_committed_after_a_kill_is_not_lost() {
    tail_while_away(Daemon::kill);
}

#[test]
fn a03_a_wal_reset_in_place_while_away_is_not_taken_for_growth() {
    let scene = Scene::new();
    let application = scene.application();
    for larger in [false, true] {
        let mut daemon = scene.replicate(&NO_CHECKPOINTS);
        let head = scene.head();
        commit(&application, 20);
        scene.wait_for_head(&mut daemon, head + 20);
        daemon.stop();

        let before = scene.wal_size();
        assert!(checkpoint(&application, "RESTART"), "nobody else has it open");
        commit(&application, 4);
        assert_eq!(scene.wal_size(), before, "the old frames behind the new ones stay");
        while larger && scene.wal_size() <= before {
            commit(&application, 1);
        }
        let mut daemon = scene.replicate(&NO_CHECKPOINTS);
        scene.wait_for_head(&mut daemon, head + 21);
        daemon.stop();
        scene.assert_restorable();
    }
}

#[test]
fn a03_a_wal_reset_between_two_syncs_is_not_taken_for_growth() {
    let scene = Scene::new();
    scene.walrust.configure("[sync]\nwal_pin = \"none\"\n");
    let application = scene.application();
    let mut daemon = scene.replicate(&NO_CHECKPOINTS);
    let mut rounds = 0;
    daemon.wait_until("gaps that are healed", |log| {
        rounds += 1;
        // Sometimes fewer frames than before the reset, sometimes more.
        commit(&application, 1 + rounds % 7);
        checkpoint(&application, "RESTART");
        commit(&application, 1 + rounds % 5);
        gaps(log) >= 5
    });
    daemon.stop();
    scene.assert_restorable();
}

/// A database whose application has died with frames in the WAL, and `bytes` at `offset` of it that
/// were changed since.
fn damaged_at_rest(offset: u64, bytes: &[u8]) -> Scene {
    let scene = Scene::new();
    let script = "
application = connect()
application.execute('PRAGMA wal_autocheckpoint = 0')
for n in range(30):
    application.execute('INSERT INTO audit (account, change) VALUES (NULL, ?)', (n,))
os._exit(0)
";
    SystemSqlite::spawn(script, &scene.source).finish();
    assert!(scene.wal_size() > 30 * FRAME, "the WAL outlives the application");
    damage(&scene, offset, bytes);
    scene
}

/// Locks are not held on the WAL, so it may be written to like any file.
fn damage(scene: &Scene, offset: u64, bytes: &[u8]) {
    let wal = OpenOptions::new().write(true).open(sidecar(&scene.source, "-wal"));
    wal.and_then(|wal| wal.write_all_at(bytes, offset)).expect("the WAL is writable");
}

#[test]
fn a04_frames_that_sqlite_does_not_believe_are_not_shipped() {
    let frame = 32 + 10 * FRAME;
    let places =
        [("salts", frame + 8), ("checksum", frame + 16), ("page", frame + 2000), ("header", 24)];
    for (place, offset) in places {
        let scene = damaged_at_rest(offset, &[0; 8]);
        let believed = image(&scene.source);
        scene.walrust.snapshot(&scene.source, &[]).succeeded();
        let restored = scene.walrust.restored("app", &["--integrity-check", "full"]);
        assert!(image(&restored) == believed, "zeros in the {place}");
    }
}

#[test]
fn a05_rolled_back_and_spilled_frames_are_not_shipped() {
    let (scene, clock) = (Scene::new(), Scene::new());
    let other = clock.directory.path().join("clock.db");
    std::fs::rename(&clock.source, &other).expect("nobody has it open");
    let ticks = walrust_testkit::connect(&other, 4096);
    let application = scene.application();
    let flags = [&crate::walrust::QUICK[..], &NO_CHECKPOINTS].concat();
    let mut daemon = scene.replicate_all(&[&scene.source, &other], &flags);
    scene.storage.wait_for_manifest(&mut daemon, "clock");

    let before = scene.wal_size();
    run(&application, "PRAGMA cache_size = 5; BEGIN");
    run(&application, &documents(20, 100_000));
    assert!(scene.wal_size() > before + 200 * FRAME, "pages of the open transaction are spilled");
    // The other database is the clock: so many rounds, and this one had its chance too.
    for _ in 0..10 {
        let head = scene.storage.head("clock");
        commit(&ticks, 1);
        scene.storage.wait_for_txid(&mut daemon, "clock", head + 1);
    }
    assert_eq!(scene.head(), 1, "nothing is committed");
    run(&application, "ROLLBACK");
    commit(&application, 1);
    scene.wait_for_head(&mut daemon, 2);

    // The spilled pages of this transaction lie behind the size that it commits.
    run(&application, &format!("BEGIN; SAVEPOINT undone; {}", documents(20, 100_000)));
    run(&application, "ROLLBACK TO undone; RELEASE undone; DELETE FROM documents; COMMIT");
    scene.wait_for_head(&mut daemon, 3);
    daemon.stop();
    let file = *scene.storage.ltx_files("app").last().expect("three files");
    let pages: u32 = query(&application, "PRAGMA page_count");
    assert_eq!(scene.storage.header("app", file).commit, pages, "the size of the last commit");
    assert_eq!(scene.head(), 3);
    scene.assert_restorable();
}

#[test]
fn a05_frames_of_a_writer_that_was_killed_are_not_shipped() {
    let scene = Scene::new();
    let application = scene.application();
    let mut daemon = scene.replicate(&NO_CHECKPOINTS);
    for round in 1..=3 {
        let script = "
application = connect()
application.execute('PRAGMA cache_size = 5')
application.execute('BEGIN')
for n in range(20):
    application.execute('INSERT INTO documents (body) VALUES (randomblob(100000))')
print('spilled', flush=True)
stopped.wait()
";
        let mut writer = SystemSqlite::spawn(script, &scene.source);
        assert_eq!(writer.wait_for_line(), "spilled");
        drop(writer);
        // Fewer frames than the dead transaction left behind.
        commit(&application, 2);
        scene.wait_for_head(&mut daemon, 1 + 2 * round);
    }
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!(scene.head(), 7);
    scene.assert_restorable();
}

#[test]
fn a22_commits_into_reused_space_are_shipped() {
    let scene = Scene::new();
    let application = scene.application();
    let flags = ["--min-checkpoint-pages", "100", "--log-level", "debug"];
    let mut daemon = scene.replicate(&flags);
    add_documents(&application, 1, 1_000_000);
    daemon.wait_for_line(&["checkpoint", "\"complete\":true"]);
    let (mut head, salts) = (3, scene.salts());
    commit(&application, 1);
    assert_ne!(scene.salts(), salts, "the WAL has begun anew");
    scene.wait_for_head(&mut daemon, head);

    let (size, salts) = (scene.wal_size(), scene.salts());
    for _ in 0..20 {
        commit(&application, 1);
        head += 1;
        scene.wait_for_head(&mut daemon, head);
        assert_eq!((scene.wal_size(), scene.salts()), (size, salts), "nothing to see in the file");
    }
    assert_no_gaps(&daemon.stop().stderr);

    // The same while nobody watches, and even the time of the last change is as before.
    let wal = OpenOptions::new().write(true).open(sidecar(&scene.source, "-wal")).expect("a WAL");
    let modified = |wal: &std::fs::File| -> SystemTime {
        wal.metadata().and_then(|wal| wal.modified()).expect("the system tells times")
    };
    let before = modified(&wal);
    commit(&application, 1);
    wal.set_modified(before).expect("the WAL is ours");
    assert_eq!((scene.wal_size(), scene.salts()), (size, salts));
    let mut daemon = scene.replicate(&[]);
    scene.wait_for_head(&mut daemon, head + 1);
    assert_no_gaps(&daemon.stop().stderr);
    scene.assert_restorable();
}

#[test]
fn a22_a_wal_index_that_is_just_being_written_is_waited_for() {
    let scene = Scene::new();
    let capture = Capture::open(&scene.source, &CaptureOptions::default()).expect("a database");
    // Like a writer that has to wait for a processor between the two copies of the header.
    let script = "
with open(path + '-shm', 'r+b', buffering=0) as index:
    begun = time.monotonic()
    index.seek(48)
    byte = index.read(1)
    index.seek(48)
    index.write(bytes([byte[0] ^ 1]))
    print('half written', flush=True)
    time.sleep(0.3)
    index.seek(48)
    index.write(byte)
    print(time.monotonic() - begun)
";
    for _ in 0..20 {
        let mut writer = SystemSqlite::spawn(script, &scene.source);
        assert_eq!(writer.wait_for_line(), "half written");
        let fill = capture.wal_fill();
        let seconds: f64 = writer.finish().trim().parse().expect("a number of seconds");
        // It is waited for almost a second; nobody says that a busy machine is as quick.
        if seconds < 0.8 {
            assert!(fill.is_ok(), "{fill:?} after {seconds} s");
            return;
        }
    }
    panic!("a machine that always takes half a second longer than it is told");
}

#[test]
fn a25_our_sqlite_does_not_have_the_bug_of_wal_resets() {
    assert!(rusqlite::version_number() >= 3_051_003, "SQLite {}", rusqlite::version());
}

#[test]
fn a25_a_wal_that_does_not_add_up_is_reported_and_not_shipped() {
    let scene = Scene::new();
    let application = scene.application();
    let daemon = scene.replicate_slowly(&NO_CHECKPOINTS);
    let (shipped, end) = (image(&scene.source), scene.wal_size());
    commit(&application, 3);
    damage(&scene, end + 24 + 100, b"garbage!");
    let outcome = daemon.terminate();
    assert_ne!(outcome.code, Some(0), "not everything is shipped");
    assert!(outcome.stderr.contains("the WAL is damaged"), "{}", outcome.stderr);
    assert_eq!(scene.head(), 1);
    scene.assert_state(1, &shipped);
}

#[test]
fn a26_a_wal_of_a_header_alone_is_an_empty_wal() {
    let scene = damaged_at_rest(0, &[]);
    let wal = OpenOptions::new().write(true).open(sidecar(&scene.source, "-wal")).expect("a WAL");
    wal.set_len(32).expect("the WAL is ours");
    let mut daemon = scene.replicate(&NO_CHECKPOINTS);
    let application = scene.application();
    commit(&application, 3);
    scene.wait_for_head(&mut daemon, 4);
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!(scene.head(), 4);
    scene.assert_restorable();
}

#[test]
fn a26_a_torn_frame_behind_the_last_shipped_commit_is_passed_over() {
    let scene = Scene::new();
    let application = scene.application();
    for torn in [1, 24, 1000, FRAME - 1] {
        let mut daemon = scene.replicate(&NO_CHECKPOINTS);
        let head = scene.head();
        commit(&application, 3);
        scene.wait_for_head(&mut daemon, head + 3);
        daemon.stop();
        let end = scene.wal_size();
        damage(&scene, end, &vec![0x5a; usize::try_from(torn).expect("less than a page")]);
        let mut daemon = scene.replicate(&NO_CHECKPOINTS);
        commit(&application, 2);
        scene.wait_for_head(&mut daemon, head + 5);
        assert_no_gaps(&daemon.stop().stderr);
        assert_eq!(scene.head(), head + 5);
    }
    scene.assert_restorable();
}
