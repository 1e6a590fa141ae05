//! `restore --force`: the database that is replaced is whole until the new one is in its place.

use std::fs;
use std::path::{Path, PathBuf};

use nix::libc;
use walrust_testkit::{SqlProcess, SqliteLibrary, assert_same_database, connect, image, sidecar};

use crate::killer::{failed_at, killed_at};
use crate::small_history::{NAME, SmallHistory};
use crate::walrust::{copy_files, names_in};

/// A database in the working directory of the user, with commits that are in its WAL only.
struct Replaced {
    history: SmallHistory,
    path: PathBuf,
    /// What it is with all its commits.
    old: Vec<u8>,
    /// What is restored.
    new: Vec<u8>,
    /// Its files.
    saved: tempfile::TempDir,
}

impl Replaced {
    fn new() -> Self {
        let history = SmallHistory::new();
        let restored = history.walrust.restored(NAME, &[]);
        let new = fs::read(&restored).expect("a restored database");
        fs::remove_file(restored).expect("it is there");
        let path = history.walrust.file("out.db");
        let connection = connect(&path, 512);
        // What is committed is more than what the file has.
        let sql = "CREATE TABLE other (y); PRAGMA wal_checkpoint(TRUNCATE); \
                   INSERT INTO other VALUES (1), (zeroblob(3000)); INSERT INTO other VALUES (2);";
        connection.execute_batch(sql).expect("a new database");
        let saved = tempfile::tempdir().expect("a temporary directory");
        copy_files(&history.walrust.file(""), saved.path());
        drop(connection);
        let replaced = Self { old: image(&path), history, path, new, saved };
        replaced.put_back();
        assert!(fs::metadata(sidecar(&replaced.path, "-wal")).expect("a WAL").len() > 1000);
        replaced
    }

    /// Brings the old database back.
    fn put_back(&self) {
        copy_files(self.saved.path(), &self.directory());
        // The locks in it are those of a process that is gone.
        fs::remove_file(sidecar(&self.path, "-shm")).expect("a wal-index");
    }

    fn directory(&self) -> PathBuf {
        self.history.walrust.file("")
    }

    fn command(&self) -> std::process::Command {
        let output = self.path.to_str().expect("a path of a test is UTF-8");
        self.history.walrust.command(["restore", NAME, "-o", output, "--force"])
    }

    /// A reader in another process that needs the WAL.
    fn reader(&self) -> SqlProcess {
        let mut reader = SqlProcess::open(SqliteLibrary::Bundled, &self.path);
        reader.run("BEGIN");
        reader.run("SELECT count(*) FROM other");
        reader
    }
}

/// The files that stand aside for a moment.
fn set_aside(directory: &Path) -> Vec<String> {
    let is_aside = |name: &String| name.contains(".walrust-") && !name.starts_with('.');
    names_in(directory).into_iter().filter(is_aside).collect()
}

#[test]
fn c03_a_forced_restore_that_is_killed_at_any_call_leaves_the_old_database_or_the_new_one() {
    let replaced = Replaced::new();
    let mut replacements = 0;
    for kills in 0.. {
        replaced.put_back();
        if !killed_at(&replaced.command(), kills) {
            assert!(kills > 10, "only {kills} changes");
            break;
        }
        let found = image(&replaced.path);
        let is_new = found == replaced.new;
        replacements += usize::from(is_new);
        assert!(is_new || found == replaced.old, "kill {kills} left something between");
        assert_eq!(set_aside(&replaced.directory()), [""; 0], "kill {kills}");
    }
    assert_eq!(names_in(&replaced.directory()), ["out.db"]);
    assert_same_database(&replaced.history.source, &replaced.path);
    assert!(replacements <= 1, "the new database comes last");
}

#[test]
fn c03_a_kill_while_others_have_the_output_open_leaves_its_wal_beside_it() {
    let replaced = Replaced::new();
    for kills in 0.. {
        replaced.put_back();
        let reader = replaced.reader();
        let killed = killed_at(&replaced.command(), kills);
        reader.kill();
        if !killed {
            assert!(kills > 10, "only {kills} changes");
            break;
        }
        let aside = set_aside(&replaced.directory());
        let found = image(&replaced.path);
        if found == replaced.new || found == replaced.old {
            continue;
        }
        // Between two renames: the old file, and what belongs to it.
        let wal = aside.iter().find(|name| name.starts_with("out.db-wal."));
        let wal = wal.unwrap_or_else(|| panic!("kill {kills} left something between: {aside:?}"));
        let own = sidecar(&replaced.path, "-wal");
        fs::rename(replaced.history.walrust.file(wal), own).expect("it gets its name back");
        assert!(image(&replaced.path) == replaced.old, "kill {kills} lost commits");
    }
    assert_eq!(names_in(&replaced.directory()), ["out.db"]);
    assert_same_database(&replaced.history.source, &replaced.path);
}

/// Has each change of a forced restore fail in turn.
fn fail_at_every_change(in_use: bool) {
    let replaced = Replaced::new();
    let mut failures = 0;
    for nth in 0.. {
        replaced.put_back();
        let before = names_in(&replaced.directory());
        let reader = in_use.then(|| replaced.reader());
        let failed = failed_at(&replaced.command(), nth, libc::EPERM);
        reader.into_iter().for_each(SqlProcess::kill);
        let Some(call) = failed.call else { break };
        let place = format!("change {nth}, call {call}: {}", failed.stderr);
        let found = image(&replaced.path);
        let mut left = names_in(&replaced.directory());
        if failed.code == 0 {
            assert!(found == replaced.new, "{place}");
            left.retain(|name| !failed.stderr.contains(name));
        } else {
            failures += 1;
            assert!(found == replaced.old, "{place}");
            left.retain(|name| !before.contains(name) && name != "out.db-shm");
        }
        left.retain(|name| name != "out.db");
        assert_eq!(left, [""; 0], "{place}");
    }
    assert!(failures > 3, "only {failures} of them matter");
}

#[test]
fn c03_a_forced_restore_that_fails_at_any_call_leaves_the_old_database() {
    fail_at_every_change(false);
}

#[test]
fn c03_a_forced_restore_that_fails_at_any_call_leaves_the_old_database_to_those_who_use_it() {
    fail_at_every_change(true);
}

#[test]
fn c03_a_directory_in_the_place_of_a_sidecar_is_found_before_anything_changes() {
    let replaced = Replaced::new();
    for suffix in ["-shm", "-journal"] {
        replaced.put_back();
        let directory = sidecar(&replaced.path, suffix);
        fs::create_dir(&directory).expect("nothing is there");
        let outcome = replaced.history.walrust.restore(NAME, &replaced.path, &["--force"]);
        outcome.failed(6, &[&directory.display().to_string(), "is a directory"]);
        fs::remove_dir(&directory).expect("it is empty");
        assert!(image(&replaced.path) == replaced.old);
    }
}

#[test]
fn who_uses_the_replaced_database_is_told_of() {
    let replaced = Replaced::new();
    let reader = replaced.reader();
    let outcome = replaced.history.walrust.restore(NAME, &replaced.path, &["--force"]);
    let outcome = outcome.succeeded();
    assert!(outcome.stderr.contains("in use"), "{}", outcome.stderr);
    reader.kill();
    assert_same_database(&replaced.history.source, &replaced.path);
    let again = replaced.history.walrust.restore(NAME, &replaced.path, &["--force"]);
    assert_eq!(again.succeeded().stderr, "");
}

#[test]
fn the_restored_file_has_the_permissions_that_the_umask_leaves() {
    use std::os::unix::fs::PermissionsExt;
    let history = SmallHistory::new();
    let output = history.walrust.file("out.db");
    let restore = history.walrust.command(["restore", NAME, "-o", "out.db"]);
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", "umask 027; exec \"$@\"", "sh"]).arg(restore.get_program());
    shell.args(restore.get_args()).current_dir(history.walrust.file(""));
    assert!(shell.status().expect("the shell starts").success());
    assert_eq!(fs::metadata(output).expect("restored").permissions().mode() & 0o777, 0o640);
}
