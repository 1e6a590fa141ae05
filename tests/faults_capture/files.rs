//! Files that are named oddly, replaced, overwritten, in another mode, or only readable.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use walrust_testkit::{TestDatabase, assert_same_database, connect, dump, image, sidecar};

use super::{
    COMMIT, NO_CHECKPOINTS, Scene, SystemSqlite, assert_no_gaps, checkpoint, commit, gaps, query,
    run,
};
use crate::daemon::Daemon;
use crate::walrust::QUICK;

#[test]
fn a13_the_wal_is_found_behind_the_whole_name_of_the_database() {
    let names = [
        ("data.sqlite", "data"),
        ("data", "data"),
        ("app.db.bak", "app.db"),
        (".hidden", ".hidden"),
        ("a b.db", "a b"),
    ];
    for (file, name) in names {
        let mut scene = Scene::new();
        let source = scene.directory.path().join(file);
        fs::rename(&scene.source, &source).expect("nobody has it open");
        scene.source = source;
        let application = scene.application();
        let mut daemon = scene.walrust.watch(&[&scene.source]);
        scene.storage.wait_for_manifest(&mut daemon, name);
        commit(&application, 3);
        scene.storage.wait_for_txid(&mut daemon, name, 4);
        assert_no_gaps(&daemon.stop().stderr);
        assert_same_database(&scene.source, &scene.walrust.restored(name, &[]));
    }
}

/// A connection that leaves the journal mode as it is.
fn plain(source: &Path) -> Connection {
    Connection::open(source).expect("a connection")
}

fn journal_mode(source: &Path) -> String {
    query(&plain(source), "PRAGMA journal_mode")
}

#[test]
fn a15_a_database_that_left_wal_mode_is_degraded_until_it_is_back() {
    let (scene, other) = (Scene::new(), Scene::new());
    let healthy = other.directory.path().join("healthy.db");
    fs::rename(&other.source, &healthy).expect("nobody has it open");
    scene.replicate(&[]).stop();
    let application = plain(&scene.source);
    assert_eq!(query::<String>(&application, "PRAGMA journal_mode = DELETE"), "delete");
    commit(&application, 3);

    let paths = [scene.source.as_path(), &healthy];
    let mut daemon = scene.walrust.watch(&paths);
    daemon.wait_for_line(&["not replicated", "not in WAL mode"]);
    other_is_replicated(&scene, &mut daemon, &healthy);
    commit(&application, 3);
    let outcome = daemon.terminate();
    assert_ne!(outcome.code, Some(0), "not everything is in storage");
    assert!(outcome.stderr.contains("not in WAL mode"), "{}", outcome.stderr);
    assert_eq!(journal_mode(&scene.source), "delete", "walrust never changes it");

    let mut daemon = scene.walrust.watch(&paths);
    daemon.wait_for_line(&["not replicated", "not in WAL mode"]);
    commit(&application, 3);
    assert_eq!(query::<String>(&application, "PRAGMA journal_mode = WAL"), "wal");
    commit(&application, 3);
    daemon.wait_for_line(&["history gap healed"]);
    let head = scene.head();
    commit(&application, 1);
    scene.wait_for_head(&mut daemon, head + 1);
    daemon.stop();
    drop(application);
    scene.assert_restorable();
}

fn other_is_replicated(scene: &Scene, daemon: &mut Daemon, healthy: &Path) {
    scene.storage.wait_for_manifest(daemon, "healthy");
    let application = connect(healthy, 4096);
    let head = scene.storage.head("healthy");
    commit(&application, 1);
    scene.storage.wait_for_txid(daemon, "healthy", head + 1);
}

#[test]
fn a15_a_database_that_is_replicated_stays_in_wal_mode_and_is_not_harmed() {
    let scene = Scene::new();
    let mut daemon = scene.replicate(&[]);
    let application = plain(&scene.source);
    // The application is told that somebody else has the database open, as by any other process.
    let changed =
        application.execute_batch("PRAGMA busy_timeout = 50; PRAGMA journal_mode = DELETE");
    assert!(changed.is_err_and(|error| super::is_busy(&error)));
    commit(&application, 3);
    scene.wait_for_head(&mut daemon, 4);
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!(query::<String>(&application, "PRAGMA journal_mode = DELETE"), "delete");
    commit(&application, 1);
    assert_eq!(query::<String>(&application, "PRAGMA journal_mode = WAL"), "wal");
    let mut daemon = scene.replicate(&[]);
    scene.wait_for_head(&mut daemon, 5);
    daemon.stop();
    drop(application);
    scene.assert_restorable();
}

/// Another database, which nobody has open.
fn other_database(scene: &Scene) -> PathBuf {
    let path = scene.directory.path().join("other.db");
    let other = TestDatabase::with_history(4096, 77, 40);
    fs::write(&path, other.image()).expect("the directory is writable");
    path
}

fn remove_database(path: &Path) {
    fs::remove_file(path).expect("it is there");
    for suffix in ["-wal", "-shm"] {
        let sidecar = sidecar(path, suffix);
        assert!(fs::remove_file(&sidecar).is_ok() || !sidecar.exists());
    }
}

/// Asserts that a new database under the old path is replicated, commits included, and that the
/// old one still comes back.
#[track_caller]
fn assert_replaced(scene: &Scene, mut daemon: Daemon, old: (u64, Vec<u8>)) {
    let application = scene.application();
    daemon.wait_until("the new database", |_| scene.head() > old.0);
    let head = scene.head();
    commit(&application, 3);
    scene.wait_for_head(&mut daemon, head + 1);
    daemon.stop();
    drop(application);
    scene.assert_restorable();
    scene.assert_state(old.0, &old.1);
}

/// A database that was replicated, its daemon, and the state in which nobody has it open any more.
fn replicated() -> (Scene, Daemon, (u64, Vec<u8>)) {
    let scene = Scene::new();
    let mut daemon = scene.replicate(&[]);
    let application = scene.application();
    commit(&application, 5);
    scene.wait_for_head(&mut daemon, 6);
    drop(application);
    let state = image(&scene.source);
    (scene, daemon, (6, state))
}

#[test]
fn a16_a_database_deleted_and_recreated_has_a_history_of_its_own() {
    let (scene, daemon, old) = replicated();
    let other = other_database(&scene);
    remove_database(&scene.source);
    fs::rename(other, &scene.source).expect("nothing is there");
    assert_replaced(&scene, daemon, old);
}

#[test]
fn a16_a_database_recreated_a_while_after_it_was_deleted_is_found() {
    let (scene, mut daemon, old) = replicated();
    let other = other_database(&scene);
    remove_database(&scene.source);
    daemon.wait_for_line(&["not replicated", "app.db"]);
    fs::rename(other, &scene.source).expect("nothing is there");
    assert_replaced(&scene, daemon, old);
}

#[test]
fn a16_a_database_replaced_by_rename_while_away_has_a_history_of_its_own() {
    let (scene, daemon, old) = replicated();
    daemon.stop();
    let other = other_database(&scene);
    remove_database(&scene.source);
    fs::rename(other, &scene.source).expect("nothing is there");
    let daemon = scene.replicate(&[]);
    assert_replaced(&scene, daemon, old);
}

/// Copies over an existing file, in place, by another process.
fn copy_in_place(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--").args([from, to]).status();
    assert!(copied.expect("cp is part of every Unix").success());
}

#[test]
fn a16_a_database_overwritten_in_place_while_away_is_compared() {
    let (scene, daemon, old) = replicated();
    daemon.stop();
    // The last close of an application empties the WAL.
    drop(connect(&scene.source, 4096));
    copy_in_place(&other_database(&scene), &scene.source);
    let daemon = scene.replicate(&[]);
    assert_replaced(&scene, daemon, old);
}

#[test]
fn a16_a_database_overwritten_in_place_beside_the_daemon_is_compared() {
    let scene = Scene::new();
    let backup = scene.directory.path().join("backup.db");
    copy_in_place(&scene.source, &backup);
    let mut daemon = scene.replicate(&["--wal-truncate-threshold", "2"]);
    let application = scene.application();
    run(&application, "UPDATE accounts SET balance = balance + 1");
    scene.wait_for_head(&mut daemon, 2);
    daemon.wait_until("an empty WAL", |_| scene.wal_size() == 0);
    drop(application);
    let (old, expected) = (image(&scene.source), image(&backup));
    assert!(old.len() == expected.len() && old != expected);
    copy_in_place(&backup, &scene.source);
    // A copy has a beginning and an end, so a state in between may be found first.
    daemon.wait_for_line(&["history gap healed"]);
    let application = scene.application();
    run(&application, "UPDATE accounts SET balance = balance + 2");
    let head = scene.head();
    daemon.stop();
    assert!(scene.head() >= head.max(4), "the copy and the commit");
    drop(application);
    scene.assert_restorable();
    scene.assert_state(2, &old);
}

#[test]
fn a16_a_database_restored_from_its_own_backup_goes_on() {
    let (scene, mut daemon, _) = replicated();
    let application = scene.application();
    run(&application, "DELETE FROM accounts");
    scene.wait_for_head(&mut daemon, 7);
    drop(application);
    daemon.stop();
    let newest = image(&scene.source);
    scene.walrust.restore("app", &scene.source, &["--txid", "1", "--force"]).succeeded();
    assert!(image(&scene.source) != newest);
    let daemon = scene.replicate(&[]);
    assert_replaced(&scene, daemon, (7, newest));
}

#[test]
fn a16_a_database_with_another_page_size_has_a_history_of_its_own() {
    let (scene, daemon, old) = replicated();
    daemon.stop();
    let application = plain(&scene.source);
    run(
        &application,
        "PRAGMA journal_mode = DELETE; PRAGMA page_size = 1024; VACUUM; PRAGMA journal_mode = WAL",
    );
    assert_eq!(query::<u32>(&application, "PRAGMA page_size"), 1024);
    drop(application);
    let daemon = scene.replicate(&[]);
    assert_replaced(&scene, daemon, old);
}

#[test]
fn a16_a_symbolic_link_is_followed_to_the_wal_beside_its_target() {
    let mut scene = Scene::new();
    let target = scene.directory.path().join("v1.db");
    fs::rename(&scene.source, &target).expect("nobody has it open");
    let links = tempfile::tempdir().expect("a temporary directory");
    scene.source = links.path().join("current.db");
    symlink(&target, &scene.source).expect("a new link");
    let mut daemon = scene.replicate(&[]);
    let application = connect(&target, 4096);
    commit(&application, 3);
    scene.wait_for_head(&mut daemon, 4);
    drop(application);
    assert_same_database(&target, &scene.walrust.restored("current", &[]));
    let old = (4, image(&target));

    // A new version takes its place in one step.
    let (other, next) = (other_database(&scene), links.path().join("next"));
    symlink(&other, &next).and_then(|()| fs::rename(&next, &scene.source)).expect("a new link");
    daemon.wait_until("the new database", |_| scene.head() > old.0);
    let head = scene.head();
    let application = connect(&other, 4096);
    commit(&application, 3);
    scene.wait_for_head(&mut daemon, head + 3);
    daemon.stop();
    drop(application);
    assert_same_database(&other, &scene.walrust.restored("current", &[]));
    scene.assert_state(old.0, &old.1);
}

#[test]
fn a17_nothing_is_written_to_the_database() {
    let scene = Scene::new();
    let before = (image(&scene.source), dump(&scene.source));
    let flags = ["--min-checkpoint-pages", "1", "--wal-truncate-threshold", "10"];
    let daemon = scene.replicate(&flags);
    scene.walrust.snapshot(&scene.source, &[]).succeeded();
    daemon.stop();
    assert!(before == (image(&scene.source), dump(&scene.source)), "walrust has written to it");
}

/// A user who may read the database of somebody else, and nothing more.
struct Reader {
    scene: Scene,
    /// Anybody may write here.
    open: tempfile::TempDir,
}

const NOBODY: u32 = 65_534;

impl Reader {
    fn new(scene: Scene) -> Self {
        let open = tempfile::tempdir().expect("a temporary directory");
        set_mode(open.path(), 0o777);
        Self { scene, open }
    }

    fn bucket(&self) -> String {
        format!("file://{}", self.open.path().join("bucket").display())
    }

    /// Takes all rights to write away from the directory and the files of the database.
    fn close_database(&self) {
        for suffix in ["", "-wal", "-shm"] {
            set_mode(&sidecar(&self.scene.source, suffix), 0o444);
        }
        set_mode(self.scene.directory.path(), 0o555);
    }

    /// Root may write everywhere, so root becomes nobody.
    fn watch(&self, configuration: &str) -> Daemon {
        let file = self.open.path().join("walrust.toml");
        fs::write(&file, configuration).expect("anybody may write here");
        // Where it was built nobody else may be let in.
        let (built, program) = (env!("CARGO_BIN_EXE_walrust"), self.open.path().join("walrust"));
        fs::hard_link(built, &program)
            .or_else(|_| fs::copy(built, &program).map(drop))
            .expect("the program can be copied");
        let mut command = Command::new(program);
        command.arg("watch").arg(&self.scene.source).args(["-b", &self.bucket()]).args(QUICK);
        command.arg("--config").arg(file).env_clear().current_dir(self.open.path());
        let owner = fs::metadata(self.open.path()).expect("our directory").uid();
        if owner == 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        Daemon::start(command)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Or nobody but root could remove it.
        set_mode(self.scene.directory.path(), 0o755);
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("the file is ours");
}

#[test]
fn a17_a_database_in_a_directory_that_is_only_readable_says_what_is_missing() {
    let reader = Reader::new(Scene::new());
    let application = reader.scene.application();
    commit(&application, 3);
    reader.close_database();
    let mut daemon = reader.watch("");
    let line = daemon.wait_for_line(&["not replicated", "create the state directory"]);
    assert!(line.contains("Permission denied"), "{line}");
    let outcome = daemon.terminate();
    assert_ne!(outcome.code, Some(0), "nothing is in storage");
}

#[test]
fn a17_a_database_that_is_only_readable_is_replicated_with_its_state_elsewhere() {
    let reader = Reader::new(Scene::new());
    let application = reader.scene.application();
    commit(&application, 3);
    reader.close_database();
    let state = reader.open.path().join("state");
    let mut daemon = reader.watch(&format!("[state]\ndir = {state:?}\n"));
    daemon.wait_until("the first snapshot", |_| {
        reader.open.path().join("bucket/app/manifest.json").exists()
    });
    commit(&application, 20);
    checkpoint(&application, "TRUNCATE");
    commit(&application, 20);
    let log = daemon.stop().stderr;
    assert_eq!(gaps(&log), 0, "{log}");
    let restored = reader.open.path().join("restored.db");
    let arguments = ["restore", "app", "-b", &reader.bucket(), "-o"].map(PathBuf::from);
    crate::walrust::Walrust::alone().run(arguments.iter().chain([&restored])).succeeded();
    assert_same_database(&reader.scene.source, &restored);
}

#[test]
fn a16_what_the_application_puts_in_place_of_a_closed_database_is_not_spoilt() {
    // Without walrust the last close deletes the WAL, so a file that takes the place of a closed
    // database meets none. With it, the WAL that is left must not be played into the new file.
    let scene = Scene::new();
    let mut daemon = scene.replicate(&NO_CHECKPOINTS);
    SystemSqlite::spawn(
        &format!("application = connect()\napplication.execute({COMMIT:?})\napplication.close()"),
        &scene.source,
    )
    .finish();
    scene.wait_for_head(&mut daemon, 2);
    daemon.stop();
    let other = other_database(&scene);
    let expected = image(&other);
    fs::rename(&other, &scene.source).expect("nobody has it open");
    assert!(image(&scene.source) == expected, "a WAL of the old database was left behind");
}
