//! Staged files that a crash tore, and a disk that takes nothing (B7, B19).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use walrust_ltx::FileName;
use walrust_testkit::{TestDatabase, assert_same_database, sidecar};

use super::{INSERT, SMALL_WAL, assert_one_history, behind, watch_with};
use crate::daemon::Daemon;
use crate::fault_proxy::{Fault, FaultProxy};
use crate::storage::Storage;
use crate::walrust::{QUICK, Walrust};

/// The staged LTX files of `app.db`, oldest first.
fn staged(database: &TestDatabase) -> Vec<PathBuf> {
    let staging = database.directory().join(".app.db-walrust/staging");
    let entries = fs::read_dir(staging).expect("there is a staging directory");
    let paths = entries.map(|entry| entry.expect("it is readable").path());
    let mut files: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|ending| ending == "ltx")).collect();
    files.sort();
    files
}

/// Takes storage away and writes until a file is on its way and what several checkpoints staged
/// behind it has become a second one. Then nothing moves any more.
fn stage_several(database: &TestDatabase, proxy: &FaultProxy, daemon: &mut Daemon) {
    proxy.go_down();
    let is_merged = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()?.parse::<FileName>().ok());
        name.is_some_and(|name| name.max.get() - name.min.get() >= 6)
    };
    daemon.wait_until("a merged file behind the first", |_| {
        database.run(INSERT);
        database.run("INSERT INTO documents (body) VALUES (zeroblob(20000))");
        let files = staged(database);
        files.len() >= 2 && files.last().is_some_and(is_merged)
    });
    // A checkpoint that is under way stages what it finds, and merges it.
    let mut before = Vec::new();
    daemon.wait_until("two files and no checkpoint", |_| {
        std::thread::sleep(Duration::from_millis(200));
        let files = staged(database);
        let rests = files.len() == 2 && files == before;
        before = files;
        rests
    });
}

/// A daemon is killed while storage is away and several files are staged, behind which the WAL
/// was checkpointed; then the application truncates the WAL. Returns the user and the storage.
fn killed_with_staged_files(database: &TestDatabase, proxy: &FaultProxy) -> (Storage, Walrust) {
    let storage = Storage::s3();
    let walrust = behind(proxy, &storage);
    let mut daemon = watch_with(&walrust, database.path(), &SMALL_WAL);
    storage.wait_for_manifest(&mut daemon, "app");
    stage_several(database, proxy, &mut daemon);
    daemon.kill();
    database.run("PRAGMA wal_checkpoint(TRUNCATE)");
    let wal = fs::metadata(sidecar(database.path(), "-wal")).expect("the WAL is there").len();
    assert_eq!(wal, 0, "nobody holds it");
    (storage, walrust)
}

#[test]
fn b07_what_was_staged_before_a_barrier_survives_a_kill_and_a_foreign_truncate() {
    let database = TestDatabase::with_history(4096, 401, 20);
    let proxy = FaultProxy::start();
    let (storage, walrust) = killed_with_staged_files(&database, &proxy);
    let read = |path: PathBuf| {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        (name, fs::read(path).expect("it is readable"))
    };
    let first = staged(&database).into_iter().next().map(read);
    proxy.pass();
    database.run(INSERT);
    let mut daemon = watch_with(&walrust, database.path(), &SMALL_WAL);
    daemon.wait_for_line(&["continues"]);
    daemon.stop();
    // What is behind it becomes one file with what came since.
    let (name, bytes) = first.expect("two files were staged");
    assert!(storage.read(&format!("app/{name}")) == bytes, "{name} is what was staged");
    assert!(storage.ltx_files("app").len() <= 4, "{:?}", storage.ltx_files("app"));
    assert_one_history(&storage, "app");
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}

/// What a crash can leave of a file, by the staged files and the one that it concerns.
type Damage = fn(&[PathBuf], usize);

fn cut(files: &[PathBuf], index: usize) {
    let bytes = fs::read(&files[index]).expect("it is readable");
    fs::write(&files[index], &bytes[..bytes.len() / 2]).expect("it is writable");
}

fn empty(files: &[PathBuf], index: usize) {
    fs::write(&files[index], b"").expect("it is writable");
}

fn zero(files: &[PathBuf], index: usize) {
    let length = fs::metadata(&files[index]).expect("it is there").len();
    let zeros = vec![0; usize::try_from(length).expect("it is small")];
    fs::write(&files[index], zeros).expect("it is writable");
}

fn zero_the_end(files: &[PathBuf], index: usize) {
    let mut bytes = fs::read(&files[index]).expect("it is readable");
    let half = bytes.len() / 2;
    bytes[half..].fill(0);
    fs::write(&files[index], bytes).expect("it is writable");
}

fn flip_a_bit(files: &[PathBuf], index: usize) {
    let mut bytes = fs::read(&files[index]).expect("it is readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&files[index], bytes).expect("it is writable");
}

fn remove(files: &[PathBuf], index: usize) {
    fs::remove_file(&files[index]).expect("it is there");
}

fn swap_with_the_next(files: &[PathBuf], index: usize) {
    let next = fs::read(&files[index + 1]).expect("it is readable");
    fs::write(&files[index], next).expect("it is writable");
}

/// Damages one of several staged files, and expects that the others are shipped as they are, that
/// it is made again, and that nothing torn is ever stored.
fn torn(seed: u64, damage: Damage, index: usize) {
    let database = TestDatabase::with_history(4096, seed, 20);
    let proxy = FaultProxy::start();
    let (storage, walrust) = killed_with_staged_files(&database, &proxy);
    let files = staged(&database);
    let before = fs::read(&files[0]).expect("it is readable");
    damage(&files, index);
    proxy.pass();
    let mut daemon = watch_with(&walrust, database.path(), &SMALL_WAL);
    daemon.wait_for_line(&["history gap healed"]);
    let log = daemon.stop().stderr;
    assert!(!log.contains("another writer"), "{log}");
    if index > 0 {
        let name = files[0].file_name().expect("a file").to_string_lossy().into_owned();
        assert!(storage.read(&format!("app/{name}")) == before, "the files before it are good");
    }
    assert_one_history(&storage, "app");
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}

macro_rules! torn_staged_files {
    ($($test:ident: $damage:ident of $index:literal),* $(,)?) => {
        $(#[test] fn $test() { torn(402 + $index, $damage, $index); })*
    };
}

torn_staged_files!(
    b07_a_staged_file_that_was_cut_is_made_again: cut of 1,
    b07_a_staged_file_that_is_empty_is_made_again: empty of 0,
    b07_a_staged_file_of_zeros_is_made_again: zero of 1,
    b07_a_staged_file_that_ends_in_zeros_is_made_again: zero_the_end of 0,
    b07_a_staged_file_with_a_flipped_bit_is_made_again: flip_a_bit of 1,
    b07_a_staged_file_that_is_missing_is_made_again: remove of 1,
    b07_a_staged_file_with_the_bytes_of_another_is_made_again: swap_with_the_next of 0,
);

/// Damages a staged file under a daemon that waits for storage.
fn torn_beside_the_daemon(seed: u64, damage: Damage) {
    let database = TestDatabase::with_history(4096, seed, 20);
    let proxy = FaultProxy::start();
    let storage = Storage::s3();
    let walrust = behind(&proxy, &storage);
    let mut daemon = watch_with(&walrust, database.path(), &SMALL_WAL);
    storage.wait_for_manifest(&mut daemon, "app");
    stage_several(&database, &proxy, &mut daemon);
    daemon.while_suspended(|| damage(&staged(&database), 1));
    proxy.pass();
    daemon.wait_for_line(&["history gap healed"]);
    database.run(INSERT);
    daemon.stop();
    assert_one_history(&storage, "app");
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}

#[test]
fn b07_a_staged_file_that_is_cut_beside_the_daemon_is_made_again() {
    torn_beside_the_daemon(408, cut);
}

#[test]
fn b07_a_staged_file_that_is_removed_beside_the_daemon_is_made_again() {
    torn_beside_the_daemon(409, remove);
}

#[test]
fn b19_a_state_directory_that_cannot_be_made_is_named_and_waited_for() {
    let database = TestDatabase::with_history(4096, 410, 20);
    let storage = Storage::s3();
    let walrust = Walrust::on(&storage);
    walrust.configure("[state]\ndir = \"state\"\n");
    fs::write(walrust.file("state"), "in the way").expect("the directory is writable");
    let mut daemon = walrust.watch(&[database.path()]);
    let line = daemon.wait_for_line(&["ERROR", "not replicated, retrying", "\"app\""]);
    let says_why = ["Not a directory", "File exists"].iter().any(|text| line.contains(text));
    assert!(says_why && line.contains("state"), "path and words of the system: {line}");
    database.run(INSERT);
    daemon.assert_running();
    assert_eq!(storage.head("app"), 0);
    fs::remove_file(walrust.file("state")).expect("it is there");
    storage.wait_for_manifest(&mut daemon, "app");
    database.run(INSERT);
    daemon.stop();
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}

/// Watches a database in a process whose files can be kept from growing: too long a write is an
/// error then, as on a full disk, and no signal.
fn watch_under_quota(walrust: &Walrust, database: &Path) -> Daemon {
    let path = database.display().to_string();
    let plain = walrust.command([&["watch", path.as_str()], &QUICK[..]].concat());
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
    command.arg(plain.get_program()).args(plain.get_args());
    command.env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(plain.get_current_dir().expect("it is set"));
    Daemon::start(command)
}

/// Sets how long the files of a process may get.
fn set_quota(daemon: &Daemon, bytes: &str) {
    let [pid, limit] = [format!("--pid={}", daemon.id()), format!("--fsize={bytes}:")];
    let set = Command::new("prlimit").args([pid, limit]).status();
    assert!(set.expect("prlimit is part of util-linux").success());
}

#[test]
fn b19_a_full_disk_is_named_and_replication_goes_on_when_there_is_space() {
    let database = TestDatabase::with_history(4096, 411, 20);
    let storage = Storage::s3();
    let walrust = Walrust::on(&storage);
    let mut daemon = watch_under_quota(&walrust, database.path());
    storage.wait_for_manifest(&mut daemon, "app");
    set_quota(&daemon, "8192");
    database.run("INSERT INTO documents (body) VALUES (randomblob(100000))");
    let line = daemon.wait_for_line(&["ERROR", "not replicated, retrying", "\"app\""]);
    assert!(line.contains("File too large"), "the words of the system: {line}");
    for _ in 0..5 {
        database.run("INSERT INTO documents (body) VALUES (randomblob(100000))");
    }
    daemon.assert_running();
    let head = storage.head("app");
    set_quota(&daemon, "unlimited");
    storage.wait_for_txid(&mut daemon, "app", head + 1);
    database.run(INSERT);
    daemon.stop();
    assert_one_history(&storage, "app");
    assert_same_database(database.path(), &walrust.restored("app", &["--integrity-check", "full"]));
}

#[test]
fn b19_a_position_that_cannot_be_saved_is_no_lost_position() {
    let database = TestDatabase::with_history(4096, 412, 20);
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    let mut daemon = watch_under_quota(&walrust, database.path());
    storage.wait_for_manifest(&mut daemon, "app");
    // The disk fills up while a staged file is on its way, which it is until somebody lets go.
    let (hold, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    proxy.set(move |exchange| {
        if exchange.uploads().is_some() {
            held.lock().expect("nobody panics").recv().expect_err("nothing is sent");
        }
        Fault::Pass
    });
    database.run(INSERT);
    daemon.wait_until("a file is on its way", |_| proxy.uploads("app").len() == 2);
    set_quota(&daemon, "0");
    drop(hold);
    let line = daemon.wait_for_line(&["ERROR", "not replicated, retrying", "\"app\""]);
    assert!(line.contains("File too large"), "the words of the system: {line}");
    proxy.pass();
    database.run(INSERT);
    daemon.assert_running();
    set_quota(&daemon, "unlimited");
    storage.wait_for_txid(&mut daemon, "app", 3);
    daemon.stop();
    assert_one_history(&storage, "app");
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}

#[test]
fn c10_a_time_within_an_outage_that_a_merged_file_hides_is_refused() {
    let database = TestDatabase::with_history(4096, 413, 20);
    let proxy = FaultProxy::start();
    let storage = Storage::s3();
    let walrust = behind(&proxy, &storage);
    let mut daemon = watch_with(&walrust, database.path(), &SMALL_WAL);
    storage.wait_for_manifest(&mut daemon, "app");
    stage_several(&database, &proxy, &mut daemon);
    let during = jiff::Timestamp::now().to_string();
    let merged = staged(&database).last().cloned();
    daemon.wait_until("more is merged", |_| {
        database.run(INSERT);
        database.run("INSERT INTO documents (body) VALUES (zeroblob(20000))");
        staged(&database).last().cloned() != merged
    });
    proxy.pass();
    database.run(INSERT);
    daemon.stop();
    let output = walrust.file("during.db");
    let outcome = walrust.restore("app", &output, &["--point-in-time", &during]);
    outcome.failed(6, &["merged"]);
    assert!(!output.exists());
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}
