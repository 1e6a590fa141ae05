//! What keeps frames in the WAL until they are shipped, and what becomes of it in errors.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use walrust_testkit::{WriterOptions, WriterProcess, sidecar};

use super::{
    COMMIT, FRAME, NO_CHECKPOINTS, Scene, SystemSqlite, add_documents, assert_no_gaps, checkpoint,
    commit, gaps, run,
};
use crate::daemon::Daemon;
use crate::walrust::PATIENCE;

/// Commits, each of them followed by checkpoints that let the WAL begin anew if nobody objects.
fn commits_that_others_would_lose(application: &Connection, count: u64) {
    for _ in 0..count {
        commit(application, 1);
        for mode in ["TRUNCATE", "RESTART", "FULL"] {
            checkpoint(application, mode);
        }
    }
}

/// The directory of the bucket, which has to be there already.
fn bucket(scene: &Scene) -> PathBuf {
    let url = scene.storage.url();
    PathBuf::from(url.strip_prefix("file://").expect("a directory"))
}

/// Puts a file in the place of a directory. Who makes missing directories must stand still meanwhile.
fn put_aside(directory: &Path, away: &Path) {
    fs::rename(directory, away).expect("it is a directory");
    fs::write(directory, b"").expect("nothing is there");
}

fn bring_back(away: &Path, directory: &Path) {
    fs::remove_file(directory).and_then(|()| fs::rename(away, directory)).expect("it comes back");
}

/// Lets the WAL begin anew while nothing can be stored, then ends the daemon in one way or other;
/// returns the number of commits.
fn checkpoints_without_storage(scene: &Scene, mut daemon: Daemon, end: impl FnOnce(Daemon)) -> u64 {
    let application = scene.application();
    // A file in its place: nothing can be stored.
    let (bucket, away) = (bucket(scene), scene.directory.path().join("away"));
    daemon.while_suspended(|| put_aside(&bucket, &away));
    let (mut commits, mut resets, mut salts) = (0, 0, scene.salts());
    daemon.wait_until("the WAL begins anew all the same", |_| {
        commit(&application, 10);
        commits += 10;
        let now = scene.salts();
        resets += u32::from(now != salts);
        salts = now;
        resets >= 3
    });
    daemon.while_suspended(|| {
        bring_back(&away, &bucket);
        assert!(scene.head() < 1 + commits, "not everything was in storage");
    });
    end(daemon);
    commits
}

const SMALL_WAL: [&str; 4] = ["--wal-truncate-threshold", "100", "--min-checkpoint-pages", "50"];

fn without_patience() -> Scene {
    let scene = Scene::new();
    scene.walrust.configure(
        "[retry]\nbase_delay_ms = 20\nmax_delay_ms = 100\ncircuit_breaker_cooldown_ms = 100\n",
    );
    scene
}

#[test]
fn a07_our_checkpoints_wait_for_frames_that_are_not_shipped() {
    let scene = without_patience();
    let daemon = scene.replicate(&SMALL_WAL);
    let commits = checkpoints_without_storage(&scene, daemon, |daemon| {
        assert_no_gaps(&daemon.stop().stderr);
    });
    assert_eq!(scene.head(), 1 + commits, "one TXID for each commit");
    scene.assert_restorable();
}

#[test]
fn a07_frames_that_were_checkpointed_but_not_shipped_survive_a_kill() {
    let scene = without_patience();
    let daemon = scene.replicate(&SMALL_WAL);
    let commits = checkpoints_without_storage(&scene, daemon, Daemon::kill);
    let mut daemon = scene.replicate(&SMALL_WAL);
    // What was written after the last checkpoint was without a pin from the kill on.
    scene.wait_for_head(&mut daemon, commits - 100);
    assert!(gaps(&daemon.stop().stderr) <= 1);
    scene.assert_restorable();
}

#[test]
fn a07_a_checkpoint_that_a_reader_cut_short_is_not_taken_for_a_whole_one() {
    let scene = Scene::new();
    let application = scene.application();
    let mut daemon = scene.replicate(&["--min-checkpoint-pages", "1", "--log-level", "debug"]);
    commit(&application, 5);
    let reader = scene.application();
    run(&reader, "BEGIN; SELECT * FROM audit");
    commit(&application, 5);
    scene.wait_for_head(&mut daemon, 11);
    daemon.wait_for_line(&["checkpoint", "\"complete\":false"]);
    run(&reader, "ROLLBACK");
    commits_that_others_would_lose(&application, 20);
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!(scene.head(), 31, "one TXID for each commit");
    scene.assert_restorable();
}

fn pin_on_a_backfilled_wal(wal_pin: &str) {
    let scene = Scene::new();
    scene.walrust.configure(&format!("[sync]\nwal_pin = \"{wal_pin}\"\n"));
    let application = scene.application();
    commit(&application, 10);
    assert!(checkpoint(&application, "FULL"), "every frame is in the database file");
    let daemon = scene.replicate_slowly(&NO_CHECKPOINTS);
    commits_that_others_would_lose(&application, 30);
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!(scene.head(), 31, "one TXID for each commit");
    scene.assert_restorable();
}

#[test]
fn a08_a_detached_pin_begun_on_a_backfilled_wal_holds() {
    pin_on_a_backfilled_wal("detached");
}

#[test]
fn a08_a_connection_pin_begun_on_a_backfilled_wal_holds() {
    pin_on_a_backfilled_wal("connection");
}

/// Whatever walrust does with a database, its locks stay: nobody can take frames away, and the last
/// close of the application does not delete the WAL.
fn pin_survives_our_own_work(wal_pin: &str) {
    let scene = Scene::new();
    scene.walrust.configure(&format!("[sync]\nwal_pin = \"{wal_pin}\"\n"));
    let mut daemon = scene.replicate(&["--min-checkpoint-pages", "5"]);
    let mut head = 1;
    for _ in 0..3 {
        let application = scene.application();
        commit(&application, 10);
        head += 10;
        scene.wait_for_head(&mut daemon, head);
        // Another process of ours opens and closes the files as well.
        scene.walrust.snapshot(&scene.source, &[]).succeeded();
        commits_that_others_would_lose(&application, 10);
        head += 10;
        drop(application);
        assert!(sidecar(&scene.source, "-wal").exists(), "the last close keeps the WAL");
    }
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!(scene.head(), head, "one TXID for each commit");
    scene.assert_restorable();
}

#[test]
fn a09_the_locks_of_the_detached_pin_survive_our_own_work() {
    pin_survives_our_own_work("detached");
}

#[test]
fn a09_the_locks_of_the_connection_pin_survive_our_own_work() {
    pin_survives_our_own_work("connection");
}

#[test]
fn a27_a_database_that_was_locked_exclusively_is_pinned_afterwards() {
    let scene = Scene::new();
    let script = "
application = connect()
application.execute('PRAGMA locking_mode = EXCLUSIVE')
application.execute('INSERT INTO audit (account, change) VALUES (NULL, 1)')
print('locked', flush=True)
stopped.wait()
application.close()
";
    let mut exclusive = SystemSqlite::spawn(script, &scene.source);
    assert_eq!(exclusive.wait_for_line(), "locked");
    let mut daemon = scene.walrust.watch(&[&scene.source]);
    daemon.wait_for_line(&["not replicated", "locked exclusively"]);
    exclusive.stop();
    scene.wait_for_head(&mut daemon, 1);
    scene.storage.wait_for_manifest(&mut daemon, "app");

    let application = scene.application();
    commits_that_others_would_lose(&application, 30);
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!(scene.head(), 31, "one TXID for each commit");
    scene.assert_restorable();
}

#[test]
fn a27_a_pin_that_an_error_gave_up_is_taken_again() {
    let scene = Scene::new();
    let application = scene.application();
    let mut daemon = scene.replicate(&[]);
    commits_that_others_would_lose(&application, 10);
    scene.wait_for_head(&mut daemon, 11);

    // A file in place of its directory: local state cannot be written.
    let state = scene.directory.path().join(".app.db-walrust");
    let away = scene.directory.path().join("away");
    daemon.while_suspended(|| put_aside(&state, &away));
    commit(&application, 1);
    daemon.wait_for_line(&["not replicated"]);
    // A pin of a database that is not replicated would only let the WAL grow.
    daemon.wait_until("the pin is given back", |_| checkpoint(&application, "TRUNCATE"));
    commit(&application, 5);
    daemon.while_suspended(|| bring_back(&away, &state));
    daemon.wait_until("the gap is healed", |log| gaps(log) == 1);
    let head = scene.head();
    scene.wait_for_head(&mut daemon, head.max(12));

    let head = scene.head();
    commits_that_others_would_lose(&application, 30);
    assert_eq!(gaps(&daemon.stop().stderr), 1, "the pin is back");
    assert_eq!(scene.head(), head + 30, "one TXID for each commit");
    scene.assert_restorable();
}

#[test]
fn a27_no_pin_outlives_the_daemon() {
    for wal_pin in ["detached", "connection"] {
        let scene = Scene::new();
        scene.walrust.configure(&format!("[sync]\nwal_pin = \"{wal_pin}\"\n"));
        let application = scene.application();
        let mut daemon = scene.replicate(&NO_CHECKPOINTS);
        add_documents(&application, 3, 10_000);
        scene.wait_for_head(&mut daemon, 2);
        assert!(!checkpoint(&application, "TRUNCATE") || scene.wal_size() == 0);
        daemon.stop();
        assert!(checkpoint(&application, "TRUNCATE"), "nobody is in the way any more");
        run(&application, COMMIT);
        drop(application);
        assert!(!sidecar(&scene.source, "-wal").exists(), "the last close deletes the WAL again");
    }
}

#[test]
fn a27_a_pin_given_up_for_the_disk_of_the_application_is_taken_again() {
    let scene = Scene::new();
    scene.walrust.configure("[sync]\nwal_limit_pages = 300\n");
    let flags = ["--wal-truncate-threshold", "100", "--checkpoint-interval", "200ms"];
    let mut daemon = scene.replicate(&flags);
    let reader = scene.application();
    run(&reader, "BEGIN; SELECT * FROM audit");
    let options = WriterOptions { commits_per_second: Some(200), ..WriterOptions::default() };
    let mut writer = WriterProcess::spawn(&scene.source, &options);
    daemon.wait_for_line(&["the pin is given up"]);
    run(&reader, "ROLLBACK");
    let commits = writer.commits();
    writer.wait_for_commit(commits + 50, PATIENCE);
    writer.stop();
    daemon.wait_until("the WAL is small again", |_| scene.wal_size() < 300 * FRAME);
    drop(reader);
    daemon.stop();
    scene.assert_restorable();
}
