//! Commands that are interrupted, by signals and by kills, at any moment: nothing stays behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use walrust_testkit::{Prng, assert_same_database, connect, image, sidecar, wait_for};

use crate::daemon::Daemon;
use crate::fault_proxy::{Fault, FaultProxy};
use crate::killer::killed_at;
use crate::small_history::{NAME, SmallHistory};
use crate::storage::Storage;
use crate::walrust::{Outcome, PATIENCE, Walrust, names_in};

/// A database whose restore takes a while.
struct Large {
    storage: Storage,
    walrust: Walrust,
    /// The bytes of a restored database.
    restored: Vec<u8>,
}

impl Large {
    fn new() -> Self {
        let storage = Storage::directory();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let source = directory.path().join("app.db");
        let application = connect(&source, 4096);
        let rows = "CREATE TABLE t (x);
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150)
            INSERT INTO t SELECT randomblob(100000) FROM n;";
        application.execute_batch(rows).expect("a new database");
        drop(application);
        let mut walrust = Walrust::on(&storage);
        walrust.snapshot(&source, &[]).succeeded();
        let output = walrust.restored(NAME, &[]);
        assert_same_database(&source, &output);
        let restored = fs::read(&output).expect("it is there");
        fs::remove_file(output).expect("it is there");
        // For everything that has no name, or none for long.
        let scratch = walrust.file("scratch");
        fs::create_dir(&scratch).expect("the directory is writable");
        walrust.set("TMPDIR", &scratch.display().to_string());
        Self { storage, walrust, restored }
    }

    /// Runs a command many times, and interrupts it at a random moment. `check` is told how it ended,
    /// and brings everything into its first state.
    fn interrupt(&self, seed: u64, arguments: &[&str], check: impl Fn(&Outcome, bool)) {
        let start = || Daemon::start(self.walrust.command(arguments));
        // The quickest of some: a busy machine may hold one up, and the others would have ended.
        let whole = (0..3).map(|_| {
            let begun = Instant::now();
            let outcome = start().wait().succeeded();
            let whole = u64::try_from(begun.elapsed().as_micros()).expect("not an age");
            check(&outcome, true);
            whole
        });
        let whole = whole.min().expect("three of them");
        let (mut prng, mut interrupted) = (Prng::new(seed), 0);
        for round in 0..24 {
            let command = start();
            std::thread::sleep(Duration::from_micros(prng.between(0, whole)));
            command.signal(if round % 2 == 0 { Signal::SIGINT } else { Signal::SIGTERM });
            let outcome = command.wait();
            match outcome.code {
                Some(0) => {}
                // To `verify` 1 would mean that it has looked at everything.
                Some(1 | 2) => {
                    let interrupted_code = if arguments[0] == "verify" { 2 } else { 1 };
                    assert_eq!(outcome.code, Some(interrupted_code), "{}", outcome.stderr);
                    assert!(outcome.stderr.contains("interrupted"), "{}", outcome.stderr);
                    interrupted += 1;
                }
                // It had not begun yet.
                None => {}
                Some(code) => panic!("code {code} after a signal: {}", outcome.stderr),
            }
            check(&outcome, outcome.code == Some(0));
            assert_eq!(names_in(&self.walrust.file("scratch")), [""; 0], "round {round}");
        }
        assert!(interrupted > 0, "no signal has met it");
    }
}

#[test]
fn b18_a_restore_that_is_interrupted_leaves_nothing() {
    let large = Large::new();
    let top = large.walrust.file("made");
    let output = top.join("for/it/out.db");
    let path = output.display().to_string();
    large.interrupt(1, &["restore", NAME, "-o", &path], |_, done| {
        if done {
            assert_eq!(names_in(output.parent().expect("a directory")), ["out.db"]);
            assert!(fs::read(&output).expect("it is there") == large.restored, "another database");
            fs::remove_dir_all(&top).expect("it is there");
        }
        assert!(!top.exists(), "left behind: {:?}", walk(&top));
    });
}

#[test]
fn b18_a_forced_restore_that_is_interrupted_leaves_what_was_there() {
    let large = Large::new();
    let output = large.walrust.file("out.db");
    let old = |path: &Path| {
        let wal = sidecar(path, "-wal");
        let connection = connect(path, 4096);
        connection.execute_batch("CREATE TABLE old (x); INSERT INTO old VALUES (1)").expect("new");
        let bytes = fs::read(&wal).expect("the database is open");
        drop(connection);
        fs::write(wal, bytes).expect("the directory is writable");
    };
    old(&output);
    let before = image(&output);
    let path = output.display().to_string();
    large.interrupt(2, &["restore", NAME, "-o", &path, "--force"], |_, done| {
        match done {
            true => assert!(fs::read(&output).expect("it is there") == large.restored),
            false => assert!(image(&output) == before, "neither the old nor the new database"),
        }
        let mut names = large.walrust.files();
        names.retain(|name| !["out.db", "out.db-wal", "out.db-shm", "scratch"].contains(&&**name));
        assert_eq!(names, [""; 0]);
        for name in ["out.db", "out.db-wal", "out.db-shm"] {
            // Some of them are not there.
            let _ = fs::remove_file(large.walrust.file(name));
        }
        old(&output);
    });
}

#[test]
fn b18_an_export_that_is_interrupted_leaves_no_temporary_file() {
    let large = Large::new();
    let target = Storage::directory();
    let url = format!("{}/db", target.url());
    let place = PathBuf::from(target.url().trim_start_matches("file://"));
    large.interrupt(3, &["export", NAME, "--to", &url], |_, _| {
        let files = walk(&place);
        let hidden = files.iter().find(|path| path.to_string_lossy().contains("/.walrust-tmp-"));
        assert_eq!(hidden, None);
        if place.exists() {
            fs::remove_dir_all(&place).expect("it is there");
        }
    });
}

#[test]
fn b18_a_deep_verification_that_is_interrupted_leaves_no_copy() {
    let large = Large::new();
    large.interrupt(4, &["verify", NAME, "--deep"], |_, _| {});
    assert_eq!(large.storage.keys("").len(), 2);
}

#[test]
fn b18_a_demonstration_that_is_interrupted_leaves_no_directory() {
    let mut walrust = Walrust::alone();
    let scratch = walrust.file("scratch");
    fs::create_dir(&scratch).expect("the directory is writable");
    walrust.set("TMPDIR", &scratch.display().to_string());
    let interrupt_after = |step: &str| {
        let mut command = walrust.command(["demo"]);
        command.stdout(std::process::Stdio::piped());
        let mut child = command.stderr(std::process::Stdio::null()).spawn().expect("it starts");
        let out = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
        let mut lines = std::io::BufRead::lines(out);
        lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with(step)));
        let id = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(id, Signal::SIGINT).expect("it runs, or is not waited for yet");
        lines.for_each(drop);
        let code = child.wait().expect("our own child").code();
        assert_eq!(names_in(&scratch), [""; 0], "after step {step}");
        code
    };
    // It does not wait for this process, which may be late on a busy machine.
    let codes: Vec<_> =
        (0..20).map(|_| interrupt_after("1.")).take_while(|it| *it != Some(1)).collect();
    assert!(codes.len() < 20, "{codes:?}: it was not interrupted");
    for step in ["3.", "5."] {
        interrupt_after(step);
    }
}

/// All files below a directory.
fn walk(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let entries = entries.map(|entry| entry.expect("an entry of the directory").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// Begins a restore of a history on S3 that waits for its last file.
fn begin(proxy: &FaultProxy, history: &SmallHistory, output: &Path) -> (Walrust, Daemon) {
    let key = history.key(6, 6);
    proxy.set(move |exchange| {
        let last = exchange.method == "GET" && exchange.path().ends_with(&key);
        if last { Fault::Silence } else { Fault::Pass }
    });
    let mut walrust = Walrust::on(&history.storage);
    walrust.set("AWS_ENDPOINT_URL_S3", &proxy.url());
    let path = output.display().to_string();
    let restore = Daemon::start(walrust.command(["restore", NAME, "-o", &path]));
    (walrust, restore)
}

/// Begins such a restore, and waits for its temporary file.
fn stalled(proxy: &FaultProxy, history: &SmallHistory, output: &Path) -> (Walrust, Daemon) {
    let begun = begin(proxy, history, output);
    let directory = output.parent().expect("a directory");
    let has_begun = || directory.exists() && temporary(directory).len() == 1;
    wait_for(PATIENCE, "a temporary file", has_begun);
    begun
}

/// The temporary files of restores in a directory.
fn temporary(directory: &Path) -> Vec<String> {
    let mut names = names_in(directory);
    names.retain(|name| name.starts_with(".walrust-restore-"));
    names
}

#[test]
fn b18_a_restore_that_waits_for_storage_is_interrupted_at_once() {
    let history = SmallHistory::of("first", Storage::s3());
    let proxy = FaultProxy::start();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let top = history.walrust.file("made");
        let (_user, restore) = stalled(&proxy, &history, &top.join("here/out.db"));
        restore.signal(signal);
        restore.wait().failed(1, &["interrupted"]);
        assert!(!top.exists(), "left behind: {:?}", walk(&top));
    }
}

#[test]
fn c14_what_a_killed_restore_has_left_goes_with_the_next_and_that_of_a_live_one_stays() {
    let history = SmallHistory::of("first", Storage::s3());
    let proxy = FaultProxy::start();
    let directory = history.walrust.file("outputs");
    let (_user, killed) = stalled(&proxy, &history, &directory.join("killed.db"));
    killed.kill();
    let left = temporary(&directory);
    assert_eq!(left.len(), 1, "a kill leaves the temporary file");
    // The next one removes it, and has one of its own.
    let (_user, alive) = begin(&proxy, &history, &directory.join("alive.db"));
    wait_for(PATIENCE, "another temporary file", || {
        let names = temporary(&directory);
        names.len() == 1 && names != left
    });
    // Another one, beside it, takes neither its file nor any of another name.
    fs::write(directory.join(".walrust-restore-notes.txt"), "mine").expect("a new file");
    history.walrust.restore(NAME, &directory.join("other.db"), &["--txid", "3"]).succeeded();
    let names = names_in(&directory);
    assert_eq!(names.len(), 3, "{names:?}");
    alive.kill();
    proxy.pass();
    history.walrust.restore(NAME, &directory.join("last.db"), &[]).succeeded();
    assert_eq!(names_in(&directory), [".walrust-restore-notes.txt", "last.db", "other.db"]);
}

/// Kills a command before each of its changes in turn; what it leaves for temporary files.
fn leftovers(walrust: &Walrust, command: impl Fn() -> Command, prepare: impl Fn()) -> Vec<String> {
    let scratch = walrust.file("scratch");
    let mut left = Vec::new();
    for kills in 0.. {
        prepare();
        if !killed_at(&command(), kills) {
            assert!(kills > 3, "only {kills} changes");
            break;
        }
        for name in names_in(&scratch) {
            fs::remove_file(scratch.join(&name)).expect("it is there");
            left.push(name);
        }
    }
    assert_eq!(names_in(&scratch), [""; 0]);
    left
}

#[test]
fn b18_kills_leave_nothing_in_the_directory_for_temporary_files() {
    let mut history = SmallHistory::new();
    let scratch = history.walrust.file("scratch");
    fs::create_dir(&scratch).expect("the directory is writable");
    history.walrust.set("TMPDIR", &scratch.display().to_string());
    let walrust = &history.walrust;
    let deep = || walrust.command(["verify", NAME, "--deep"]);
    let left = leftovers(walrust, deep, || {});
    // Between the moment when it gets a name for SQLite and the one when that goes.
    assert!(left.len() <= 1, "{left:?}");

    let target = Storage::directory();
    let url = format!("{}/db", target.url());
    let empty = || target.keys("").iter().for_each(|key| target.delete(key));
    let export = || walrust.command(["export", NAME, "--to", &url]);
    assert_eq!(leftovers(walrust, export, empty), [""; 0]);

    let whole = || {
        let keys = history.storage.keys("");
        keys.iter().for_each(|key| history.storage.delete(key));
        history.repair();
    };
    let least = ["--hourly", "0", "--daily", "0", "--weekly", "0", "--monthly", "0"];
    let compact = || walrust.command([&["compact", NAME, "--force"][..], &least].concat());
    assert_eq!(leftovers(walrust, compact, whole), [""; 0]);
}
