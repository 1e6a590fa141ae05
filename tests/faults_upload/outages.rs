//! Storage that is away for a while, for one database or for all (B4, B8, B10, B12, B17).

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use walrust_ltx::FileName;
use walrust_testkit::{
    Prng, TestDatabase, WriterOptions, WriterProcess, assert_same_database, sidecar,
};

use super::{INSERT, assert_one_history, behind, watch_with};
use crate::fault_proxy::{Exchange, Fault, FaultProxy, ReservedPort};
use crate::storage::Storage;
use crate::walrust::{PATIENCE, SOON, Walrust};

#[test]
fn b04_a_failed_upload_is_never_passed_by_a_later_one() {
    let (_directory, source) = TestDatabase::with_history(4096, 501, 20).close();
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    let random = Mutex::new(Prng::new(501));
    proxy.set(move |exchange| match exchange.uploads() {
        Some(_) => match random.lock().expect("nobody panics").below(7) {
            0 => Fault::Answer(500, "InternalError"),
            1 => Fault::Answer(503, "SlowDown"),
            2 => Fault::HangUp,
            3 => Fault::LostReply,
            4 => Fault::Late(Duration::from_millis(50)),
            _ => Fault::Pass,
        },
        None => Fault::Pass,
    });
    let mut daemon = walrust.watch(&[&source]);
    storage.wait_for_txid(&mut daemon, "app", 1);
    let options = WriterOptions { commits_per_second: Some(100), ..WriterOptions::default() };
    let mut writer = WriterProcess::spawn(&source, &options);
    daemon.wait_until("many files", |_| storage.incrementals("app").len() >= 15);
    writer.wait_for_commit(100, PATIENCE);
    writer.stop();
    daemon.stop();

    let uploads = proxy.uploads("app");
    assert!(uploads.iter().any(|upload| upload.status.is_none()), "some have failed");
    let mut last: Option<(FileName, bool)> = None;
    for upload in &uploads {
        let file = upload.uploads().expect("an upload of a file");
        match last {
            // Once more, as long as nobody knows that storage has it.
            Some((before, _)) if before == file => {}
            Some((before, stored)) => {
                assert!(stored, "{before:?} was left behind");
                assert_eq!(file.min, before.max.next());
            }
            None => {}
        }
        let stored = matches!(upload.status, Some(200 | 412));
        last = match last {
            Some((before, earlier)) if before == file => Some((file, earlier || stored)),
            _ => Some((file, stored)),
        };
    }
    assert_one_history(&storage, "app");
    assert_same_database(&source, &walrust.restored("app", &[]));
}

#[test]
fn b08_storage_that_is_down_at_the_start_is_waited_for() {
    let database = TestDatabase::with_history(4096, 502, 20);
    let storage = Storage::s3();
    let port = ReservedPort::new();
    let mut walrust = Walrust::on(&storage);
    walrust.set("AWS_ENDPOINT_URL_S3", &port.url());
    let mut daemon = walrust.watch(&[database.path()]);
    daemon.wait_for_line(&["WARN", "storage cannot be reached", "connection refused"]);
    daemon.wait_for_line(&["ERROR", "not replicated, retrying", "connection refused"]);
    database.run(INSERT);
    daemon.assert_running();
    let _proxy = FaultProxy::start_on(port.listen());
    storage.wait_for_manifest(&mut daemon, "app");
    database.run(INSERT);
    daemon.stop();
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}

#[test]
fn b08_an_outage_under_load_bounds_wal_and_memory_and_loses_nothing() {
    const THRESHOLD: u64 = 2000;
    let (_directory, source) = TestDatabase::with_history(4096, 503, 20).close();
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    let limits = ["--wal-truncate-threshold", "2000", "--min-checkpoint-pages", "500"];
    let mut daemon = watch_with(&walrust, &source, &limits);
    storage.wait_for_manifest(&mut daemon, "app");
    proxy.go_down();
    let options = WriterOptions { commits_per_second: Some(200), ..WriterOptions::default() };
    let mut writer = WriterProcess::spawn(&source, &options);
    let frames = || fs::metadata(sidecar(&source, "-wal")).map_or(0, |wal| wal.len()) / 4120;
    let mut largest = 0;
    daemon.wait_until("an outage of a thousand commits", |_| {
        largest = largest.max(frames());
        writer.commits() >= 1000
    });
    // One look may come late on a busy machine, but not one after the other.
    assert!(largest < 4 * THRESHOLD, "a WAL of {largest} pages");
    let state = source.with_file_name(".app.db-walrust").join("staging");
    let staged = fs::read_dir(state).expect("there is a staging directory");
    let staged = staged.filter(|entry| {
        let name = entry.as_ref().expect("it is readable").file_name();
        name.to_string_lossy().ends_with(".ltx")
    });
    let staged = staged.count();
    // Each of its commits would be a file when storage is back.
    let commits = writer.stop();
    let before = proxy.pass();
    let peak = daemon.memory_kib("VmHWM");
    daemon.stop();
    let uploads = proxy.uploads_after(before, "app").len();
    println!(
        "{commits} commits, WAL {largest} pages, peak {peak} KiB, {staged} staged files, {uploads} uploads"
    );
    assert!(peak < 64 * 1024, "{peak} KiB");
    // A file for each checkpoint of the outage, and one or two for what came after it.
    assert!(uploads <= staged + 5, "{uploads} uploads of {staged} staged files");
    assert_one_history(&storage, "app");
    assert_same_database(&source, &walrust.restored("app", &["--integrity-check", "full"]));
}

/// A database `a` of which some requests are never answered, and two others that must not care.
fn hanging(seed: u64, hangs: fn(&Exchange) -> bool) {
    let [a, b, c] = [0, 1, 2].map(|more| TestDatabase::with_history(4096, seed + more, 10));
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    let section = |database: &TestDatabase, name: &str| {
        format!("[[databases]]\npath = {:?}\nprefix = \"{name}\"\n", database.path())
    };
    // The first of them is asked for when the program starts.
    let databases = section(&b, "b") + &section(&a, "a") + &section(&c, "c");
    walrust.configure(&format!("{}{databases}", super::QUICK_RETRIES));
    proxy.set(move |exchange| match exchange.concerns("a") && hangs(exchange) {
        true => Fault::Silence,
        false => Fault::Pass,
    });
    let mut daemon = walrust.watch(&[]);
    daemon.wait_until("a request hangs", |_| {
        proxy.exchanges().iter().any(|exchange| exchange.concerns("a") && hangs(exchange))
    });
    for (database, name) in [(&b, "b"), (&c, "c")] {
        storage.wait_for_manifest(&mut daemon, name);
        for txid in 2..5 {
            database.run(INSERT);
            storage.wait_for_txid(&mut daemon, name, txid);
        }
    }
    assert_eq!(storage.head("a"), 0);
    daemon.kill();
}

#[test]
fn b10_a_hanging_upload_stops_no_other_database() {
    hanging(504, |exchange| exchange.uploads().is_some());
}

#[test]
fn b10_a_hanging_listing_stops_no_other_database() {
    hanging(507, Exchange::lists);
}

#[test]
fn b12_a_shutdown_with_storage_down_names_every_database_and_fails() {
    let databases: Vec<_> =
        (0..10).map(|more| TestDatabase::with_history(1024, 510 + more, 3)).collect();
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    let names: Vec<_> = (0..10).map(|number| format!("tenant{number}")).collect();
    let sections = databases.iter().zip(&names).map(|(database, name)| {
        format!("[[databases]]\npath = {:?}\nprefix = \"{name}\"\n", database.path())
    });
    walrust.configure(&sections.collect::<String>());
    proxy.go_down();
    let mut daemon = walrust.watch(&[]);
    for name in &names {
        daemon.wait_for_line(&["not replicated", &format!("\"{name}\"")]);
    }
    let begun = Instant::now();
    let phrases: Vec<_> = names.iter().map(|name| format!("  {name}: ")).collect();
    let phrases: Vec<_> = phrases.iter().map(String::as_str).collect();
    daemon.terminate().failed(1, &phrases);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[test]
fn b12_a_second_signal_ends_the_shutdown_at_once() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let database = TestDatabase::with_history(4096, 520, 10);
        let storage = Storage::s3();
        let proxy = FaultProxy::start();
        let walrust = behind(&proxy, &storage);
        let mut daemon = walrust.watch(&[database.path()]);
        storage.wait_for_manifest(&mut daemon, "app");
        proxy.set(|_| Fault::Silence);
        database.run(INSERT);
        daemon.wait_until("an upload hangs", |_| proxy.uploads("app").len() == 2);
        daemon.signal(signal);
        daemon.wait_for_line(&["stopping; a second signal stops at once"]);
        daemon.assert_running();
        let begun = Instant::now();
        daemon.signal(signal);
        let words = ["  app: a second signal stopped the shutdown"];
        daemon.wait().failed(1, &words);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        // The next run ships what this one did not.
        proxy.pass();
        let mut daemon = walrust.watch(&[database.path()]);
        storage.wait_for_txid(&mut daemon, "app", 2);
        daemon.stop();
        assert_same_database(database.path(), &walrust.restored("app", &[]));
    }
}

#[test]
fn b17_two_hundred_failures_in_a_row_are_followed_by_success() {
    const FAILURES: usize = 200;
    let database = TestDatabase::with_history(4096, 521, 10);
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    walrust.configure(
        "[retry]\nbase_delay_ms = 1\nmax_delay_ms = 2\ncircuit_breaker_cooldown_ms = 1\n",
    );
    let failures = AtomicUsize::new(0);
    proxy.set(move |exchange| {
        if exchange.uploads().is_none() {
            return Fault::Pass;
        }
        match failures.fetch_add(1, Ordering::Relaxed) {
            number if number >= FAILURES => Fault::Pass,
            number if number % 3 == 0 => Fault::Answer(503, "SlowDown"),
            number if number % 3 == 1 => Fault::Answer(500, "InternalError"),
            _ => Fault::HangUp,
        }
    });
    let mut daemon = walrust.watch(&[database.path()]);
    storage.wait_for_manifest(&mut daemon, "app");
    assert_eq!(proxy.uploads("app").len(), FAILURES + 1, "each failure is one attempt");
    database.run(INSERT);
    storage.wait_for_txid(&mut daemon, "app", 2);
    assert_eq!(proxy.uploads("app").len(), FAILURES + 2, "the next file goes at once");
    daemon.stop();
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}
