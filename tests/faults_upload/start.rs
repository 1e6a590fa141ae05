//! What a start may not make of storage that cannot be read, of broken neighbours, and of being
//! one of many (B2, B14, B15, B20).

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use rusqlite::Connection;
use walrust_testkit::{TestDatabase, assert_same_database, connect};

use super::{INSERT, assert_one_history, behind};
use crate::fault_proxy::{Exchange, Fault, FaultProxy};
use crate::storage::Storage;
use crate::walrust::{QUICK, Walrust};

/// Requests of an opening.
type Asked = fn(&Exchange) -> bool;

/// Opens a database again and again whose bucket answers some requests with faults, mostly without
/// local state: what was stored must stay its only history.
fn unreadable(seed: u64, asked: Asked, faults: &[Fault]) {
    let database = TestDatabase::with_history(4096, seed, 20);
    // The program refuses to start if storage refuses the first of its databases.
    let (_other, first) = TestDatabase::with_history(4096, seed + 1, 3).close();
    let first_path = first.with_file_name("first.db");
    fs::rename(&first, &first_path).expect("nobody has it open");
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    let state = database.directory().join(".app.db-walrust");
    let mut daemon = walrust.watch(&[&first_path, database.path()]);
    storage.wait_for_manifest(&mut daemon, "app");
    database.run(INSERT);
    storage.wait_for_txid(&mut daemon, "app", 2);
    daemon.stop();

    for (round, fault) in (0..).zip(faults.iter().copied()) {
        let (before, head) = (storage.ltx_files("app"), storage.head("app"));
        database.run(INSERT);
        if round > 0 {
            fs::remove_dir_all(&state).expect("there is local state");
        }
        proxy.set(move |exchange| match exchange.concerns("app") && asked(exchange) {
            true => fault,
            false => Fault::Pass,
        });
        let uploads = proxy.uploads("app").len();
        let mut daemon = walrust.watch(&[&first_path, database.path()]);
        let line = daemon.wait_for_line(&["not replicated, retrying", "\"app\""]);
        assert!(line.contains("ERROR"), "{fault:?}: {line}");
        assert_eq!(proxy.uploads("app").len(), uploads, "{fault:?} was taken for an answer");
        assert_eq!(storage.ltx_files("app"), before, "{fault:?}");
        proxy.pass();
        storage.wait_for_txid(&mut daemon, "app", head + 1);
        daemon.stop();
        assert_one_history(&storage, "app");
    }
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}

#[test]
fn b02_a_listing_that_fails_is_never_taken_for_empty() {
    let faults = [
        Fault::Answer(403, "AccessDenied"),
        Fault::Answer(500, "InternalError"),
        Fault::Answer(404, "NoSuchBucket"),
        Fault::HangUp,
        Fault::Torn(400),
    ];
    unreadable(201, Exchange::lists, &faults);
}

#[test]
fn b02_a_head_that_cannot_be_read_is_never_taken_for_none() {
    let faults = [
        Fault::Answer(403, "AccessDenied"),
        Fault::Answer(503, "SlowDown"),
        Fault::Answer(404, "NoSuchKey"),
        Fault::HangUp,
        Fault::Torn(600),
    ];
    unreadable(203, |exchange| exchange.method == "GET" && exchange.file().is_some(), &faults);
}

#[test]
fn b02_a_manifest_that_cannot_be_read_is_never_taken_for_none() {
    let faults = [Fault::Answer(403, "AccessDenied"), Fault::Answer(500, "InternalError")];
    unreadable(205, |exchange| exchange.path().ends_with("manifest.json"), &faults);
}

#[test]
fn b15_a_listing_that_fails_is_not_an_empty_bucket_for_any_command() {
    let (_directory, source) = TestDatabase::with_history(4096, 207, 5).close();
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    walrust.snapshot(&source, &[]).succeeded();
    for fault in [Fault::Answer(403, "AccessDenied"), Fault::Torn(400)] {
        proxy.set(move |exchange| if exchange.lists() { fault } else { Fault::Pass });
        walrust.run(["list"]).failed(4, &[]);
        walrust.run(["list", "app"]).failed(4, &[]);
        let output = walrust.file("restored.db");
        walrust.restore("app", &output, &[]).failed(4, &[]);
        assert!(!output.exists());
        walrust.snapshot(&source, &[]).failed(4, &[]);
    }
}

/// Files that are no database that can be replicated, with a phrase of what is said of each.
fn broken_neighbours(directory: &Path) -> Vec<(PathBuf, &'static str)> {
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, bytes).expect("the directory is writable");
        path
    };
    let noise = walrust_testkit::Prng::new(208).bytes(16 * 4096);
    let rollback = directory.join("rollback.db");
    let connection = Connection::open(&rollback).expect("a new database");
    connection.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").expect("it is new");
    let folder = directory.join("folder.db");
    fs::create_dir(&folder).expect("the directory is writable");
    let pipe = directory.join("pipe.db");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).expect("the directory is writable");
    let circle = directory.join("circle.db");
    std::os::unix::fs::symlink(&circle, &circle).expect("the directory is writable");
    let mut torn = fs::read(&rollback).expect("it was just made");
    torn[16..24].copy_from_slice(b"\x12\x34\x56\x78\x9a\xbc\xde\xf0");
    vec![
        (file("encrypted.db", &noise), "not a SQLite database, or an encrypted one"),
        (file("empty.db", b""), "the file is empty"),
        (file("short.db", b"SQLite format 3\0"), "not a SQLite database"),
        (file("torn.db", &torn), "page size"),
        (rollback, "not in WAL mode"),
        (folder, "not a regular file"),
        (pipe, "not a regular file"),
        (circle, "symbolic links"),
        (directory.join("missing.db"), "no such file"),
    ]
}

#[test]
fn b14_broken_databases_are_named_and_stop_no_other() {
    let healthy = TestDatabase::with_history(4096, 209, 20);
    let broken = broken_neighbours(healthy.directory());
    let storage = Storage::s3();
    let walrust = Walrust::on(&storage);
    let paths = broken.iter().map(|(path, _)| path.as_path()).chain([healthy.path()]);
    let mut daemon = walrust.watch(&paths.collect::<Vec<_>>());
    storage.wait_for_manifest(&mut daemon, "app");
    healthy.run(INSERT);
    storage.wait_for_txid(&mut daemon, "app", 2);
    for (path, phrase) in &broken {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        daemon.wait_for_line(&["ERROR", "not replicated", &name, phrase]);
    }
    // One of them is mended, and replicated without a restart.
    let mended = healthy.directory().join("rollback.db");
    let application = connect(&mended, 4096);
    application.execute_batch("INSERT INTO t VALUES (2)").expect("it is a database");
    storage.wait_for_txid(&mut daemon, "rollback", 1);
    daemon.assert_running();
    healthy.run(INSERT);
    storage.wait_for_txid(&mut daemon, "app", 3);
    let names = ["encrypted", "empty", "folder", "missing"];
    daemon.terminate().failed(1, &names);
    assert_same_database(healthy.path(), &walrust.restored("app", &[]));
    assert_same_database(&mended, &walrust.restored("rollback", &[]));
}

/// Databases that start together.
const HERD: usize = 100;
/// Looking up and signing a name, a snapshot, a manifest: no database asks for more to begin.
const MOST_REQUESTS: usize = 7;

#[test]
fn b20_a_herd_of_databases_is_shipped_with_few_requests_each() {
    let (_template, template) = TestDatabase::with_history(4096, 210, 10).close();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let names: Vec<String> = (0..HERD).map(|number| format!("tenant{number:03}")).collect();
    let paths: Vec<PathBuf> =
        names.iter().map(|name| directory.path().join(format!("{name}.db"))).collect();
    for path in &paths {
        fs::copy(&template, path).expect("the directory is writable");
    }
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    let arguments: Vec<&str> = paths.iter().filter_map(|path| path.to_str()).chain(QUICK).collect();
    let mut earlier = 0;
    for uploads in [HERD, 0] {
        let mut daemon = walrust.watch_with(&arguments);
        if uploads > 0 {
            daemon.wait_until("every database is in storage", |_| {
                let exchanges = proxy.exchanges();
                let manifests = exchanges.iter().filter(|exchange| {
                    exchange.method == "PUT" && exchange.path().ends_with("manifest.json")
                });
                manifests.filter(|exchange| exchange.status == Some(200)).count() == HERD
            });
        } else {
            daemon.wait_until("every database goes on", |log| {
                log.lines().filter(|line| line.contains("\"continues\"")).count() == HERD
            });
        }
        daemon.stop();
        let exchanges = proxy.exchanges().split_off(earlier);
        earlier += exchanges.len();
        for name in &names {
            let asked: Vec<_> = exchanges.iter().filter(|one| one.concerns(name)).collect();
            assert!(asked.len() <= MOST_REQUESTS, "{name}: {} requests: {asked:#?}", asked.len());
        }
        let stored = exchanges.iter().filter(|one| one.uploads().is_some()).count();
        assert_eq!(stored, uploads, "one snapshot each, and none when they start again");
    }
    assert_same_database(&paths[HERD / 2], &walrust.restored(&names[HERD / 2], &[]));
}
