//! Failures of requests by class: what mends itself is tried again quietly, what needs a person is
//! said at once and tried slowly, and both end when the cause ends (B9, B11, B18).

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use walrust_testkit::{TestDatabase, assert_same_database};

use super::{INSERT, assert_one_history, behind};
use crate::daemon::Daemon;
use crate::fault_proxy::{Exchange, Fault, FaultProxy};
use crate::storage::Storage;
use crate::walrust::{PATIENCE, SOON, Walrust, names_in};

/// Lets the uploads of one daemon fail in one way after the other. Each must be logged at its first
/// attempt with this level and these phrases, and be over by itself.
fn uploads_fail(seed: u64, level: &str, cases: &[(Fault, &[&str])]) {
    let database = TestDatabase::with_history(4096, seed, 10);
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    let mut daemon = walrust.watch(&[database.path()]);
    storage.wait_for_manifest(&mut daemon, "app");
    for (txid, (fault, phrases)) in (2..).zip(cases.iter().copied()) {
        proxy.set(move |exchange| match exchange.uploads() {
            Some(_) => fault,
            None => Fault::Pass,
        });
        let before = daemon.log().len();
        database.run(INSERT);
        let file = format!("/{txid:016x}-{txid:016x}.ltx");
        daemon.wait_until(&format!("{fault:?} is logged with {phrases:?} as {level}"), |log| {
            let line = log[before..].lines().find(|line| line.contains(&file));
            let line = line.filter(|line| line.contains("\"attempt\":1,"));
            line.is_some_and(|line| {
                line.contains(level) && phrases.iter().all(|phrase| line.contains(phrase))
            })
        });
        // Storage may have it already: it is over when an attempt gets its answer.
        let failed = proxy.pass();
        daemon.wait_until("an answer to an upload", |_| {
            proxy.uploads_after(failed, "app").iter().any(|upload| upload.status.is_some())
        });
    }
    daemon.stop();
    assert_one_history(&storage, "app");
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}

#[test]
fn b09_what_mends_itself_is_tried_again_with_a_warning() {
    uploads_fail(
        601,
        "WARN",
        &[
            (Fault::Answer(500, "InternalError"), &["tried again"]),
            (Fault::Answer(503, "SlowDown"), &["asks for fewer requests"]),
            (Fault::Answer(429, "TooManyRequests"), &["tried again"]),
            (Fault::Answer(503, "ServiceUnavailable"), &["tried again"]),
            (Fault::Answer(400, "RequestTimeout"), &["tried again"]),
            (Fault::Answer(409, "ConditionalRequestConflict"), &["another write"]),
            (Fault::HangUp, &["connection"]),
            (Fault::Torn(30), &["tried again"]),
            (Fault::LostReply, &["connection"]),
        ],
    );
}

#[test]
fn b09_what_needs_a_person_is_an_error_at_once_with_what_to_do() {
    uploads_fail(
        602,
        "ERROR",
        &[
            (Fault::Answer(403, "AccessDenied"), &["credentials lack a permission"]),
            (Fault::Answer(403, "InvalidAccessKeyId"), &["check AWS_ACCESS_KEY_ID"]),
            (Fault::Answer(403, "SignatureDoesNotMatch"), &["check AWS_SECRET_ACCESS_KEY"]),
            (Fault::Answer(403, "RequestTimeTooSkewed"), &["set the clock of this host"]),
            (
                Fault::Answer(400, "ExpiredToken"),
                &["credentials have expired", "AWS_SESSION_TOKEN"],
            ),
            (Fault::Answer(404, "NoSuchBucket"), &["create it, or correct the URL"]),
            (Fault::Answer(301, "PermanentRedirect"), &["set AWS_REGION"]),
        ],
    );
}

#[test]
fn b09_ten_seconds_of_latency_are_no_failure() {
    let database = TestDatabase::with_history(4096, 603, 10);
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    let mut daemon = walrust.watch(&[database.path()]);
    storage.wait_for_manifest(&mut daemon, "app");
    proxy.set(|exchange| match exchange.uploads() {
        Some(_) => Fault::Late(Duration::from_secs(10)),
        None => Fault::Pass,
    });
    database.run(INSERT);
    storage.wait_for_txid(&mut daemon, "app", 2);
    proxy.pass();
    let log = daemon.stop().stderr;
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert_eq!(proxy.uploads("app").len(), 2);
}

#[test]
fn b09_a_start_that_needs_a_person_fails_with_what_to_do() {
    let (_directory, source) = TestDatabase::with_history(4096, 604, 3).close();
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    for (status, code, phrase) in [
        (403, "RequestTimeTooSkewed", "set the clock of this host"),
        (400, "ExpiredToken", "the credentials have expired"),
        (404, "NoSuchBucket", "create it, or correct the URL"),
        (301, "PermanentRedirect", "set AWS_REGION"),
    ] {
        proxy.set(move |_| Fault::Answer(status, code));
        walrust.watch(&[&source]).wait().failed(4, &[phrase]);
    }
}

#[test]
fn b11_the_alarm_comes_with_the_attempt_that_was_configured() {
    let database = TestDatabase::with_history(4096, 605, 10);
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    walrust.configure("[retry]\nmax_retries = 4\nbase_delay_ms = 5\nmax_delay_ms = 20\n");
    let mut daemon = walrust.watch(&[database.path()]);
    storage.wait_for_manifest(&mut daemon, "app");
    let before = proxy.uploads("app").len();
    proxy.set(|exchange| match exchange.uploads() {
        Some(_) => Fault::Answer(500, "InternalError"),
        None => Fault::Pass,
    });
    database.run(INSERT);
    daemon.wait_for_line(&["\"attempt\":6,"]);
    for (attempt, level) in [(1, "WARN"), (2, "WARN"), (3, "WARN"), (4, "ERROR"), (5, "ERROR")] {
        let line = daemon.wait_for_line(&[&format!("\"attempt\":{attempt},")]);
        assert!(line.contains(level), "{line}");
    }
    proxy.pass();
    storage.wait_for_txid(&mut daemon, "app", 2);
    let log = daemon.stop().stderr;
    let failed = log.lines().filter(|line| line.contains("\"attempt\":")).count();
    let sent = proxy.uploads("app").len() - before;
    assert_eq!(sent, failed + 1, "every failure is logged, and is one request");
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}

/// Times at which storage sees that many uploads during an outage; all is stored after it.
fn uploads_in_an_outage(seed: u64, breaker: &str, count: usize) -> Vec<Instant> {
    let database = TestDatabase::with_history(4096, seed, 10);
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    let retry = "[retry]\nmax_retries = 2\nbase_delay_ms = 5\nmax_delay_ms = 20\n";
    walrust.configure(&format!("{retry}{breaker}"));
    let mut daemon = walrust.watch(&[database.path()]);
    storage.wait_for_manifest(&mut daemon, "app");
    let (sent, seen) = mpsc::channel();
    proxy.set(move |exchange| match exchange.uploads() {
        Some(_) => {
            // Nobody listens any more when there were enough.
            let _ = sent.send(Instant::now());
            Fault::Answer(503, "ServiceUnavailable")
        }
        None => Fault::Pass,
    });
    database.run(INSERT);
    let next = || seen.recv_timeout(PATIENCE).expect("it is tried again");
    let times: Vec<_> = (0..count).map(|_| next()).collect();
    proxy.pass();
    storage.wait_for_txid(&mut daemon, "app", 2);
    daemon.stop();
    assert_same_database(database.path(), &walrust.restored("app", &[]));
    times
}

#[test]
fn b11_the_breaker_counts_to_its_threshold_and_waits_for_its_cooldown() {
    const COOLDOWN: Duration = Duration::from_millis(1500);
    let breaker = "circuit_breaker_threshold = 4\ncircuit_breaker_cooldown_ms = 1500\n";
    let times = uploads_in_an_outage(606, breaker, 6);
    let apart: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // A cooldown begins when the answer is there, which storage sees a moment earlier.
    let waited = |pause: &&Duration| **pause >= COOLDOWN;
    assert_eq!(apart[3..].iter().filter(waited).count(), 2, "four uploads, two probes: {apart:?}");
    // The pauses between retries are a hundredth of it.
    assert!(apart[..3].iter().any(|pause| *pause < COOLDOWN), "{apart:?}");
}

#[test]
fn b11_a_breaker_that_is_switched_off_holds_nothing_back() {
    let breaker = "circuit_breaker_enabled = false\ncircuit_breaker_threshold = 4\n";
    // With the cooldown, which is a minute, they would be four.
    uploads_in_an_outage(608, breaker, 30);
}

/// A user whose temporary files can be seen.
fn with_temporary_directory(proxy: &FaultProxy, storage: &Storage) -> Walrust {
    let mut walrust = behind(proxy, storage);
    let temporary = walrust.file("tmp");
    fs::create_dir(&temporary).expect("the directory is writable");
    walrust.set("TMPDIR", &temporary.display().to_string());
    walrust
}

#[test]
fn b18_a_restore_that_fails_leaves_nothing_behind() {
    let database = TestDatabase::with_history(4096, 607, 30);
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = with_temporary_directory(&proxy, &storage);
    walrust.snapshot(database.path(), &[]).succeeded();
    let output = walrust.file("out.db");
    let before = walrust.files();
    let reads = |exchange: &Exchange| exchange.method == "GET" && exchange.file().is_some();
    for fault in [Fault::Answer(403, "AccessDenied"), Fault::HangUp, Fault::Torn(3000)] {
        proxy.set(move |exchange| if reads(exchange) { fault } else { Fault::Pass });
        walrust.restore("app", &output, &[]).failed(4, &["/app/"]);
        assert_eq!(walrust.files(), before, "{fault:?}");
        assert!(names_in(&walrust.file("tmp")).is_empty(), "{fault:?}");
    }
    proxy.pass();
    walrust.restore("app", &output, &[]).succeeded();
    assert_same_database(database.path(), &output);
}

#[test]
fn b18_a_snapshot_ends_with_an_interrupt_and_holds_nothing() {
    let database = TestDatabase::with_history(4096, 608, 30);
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = with_temporary_directory(&proxy, &storage);
    proxy.set(|exchange| match exchange.uploads() {
        Some(_) => Fault::Silence,
        None => Fault::Pass,
    });
    let path = database.path().display().to_string();
    let mut snapshot = Daemon::start(walrust.command(["snapshot", &path]));
    snapshot.wait_until("its upload hangs", |_| !proxy.uploads("app").is_empty());
    let begun = Instant::now();
    snapshot.signal(Signal::SIGINT);
    let outcome = snapshot.wait();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_ne!(outcome.code, Some(0));
    assert_eq!(outcome.stdout, "", "there is no result");
    // It held no lock of the database, and what it left in local state is no obstacle.
    database.run("PRAGMA wal_checkpoint(TRUNCATE)");
    proxy.pass();
    walrust.snapshot(database.path(), &[]).succeeded();
    let staging = database.directory().join(".app.db-walrust/staging");
    assert!(names_in(&staging).is_empty(), "{:?}", names_in(&staging));
    assert!(names_in(&walrust.file("tmp")).is_empty());
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}

#[test]
fn b17_a_restore_waits_for_a_store_that_asks_for_fewer_requests() {
    let database = TestDatabase::with_history(4096, 609, 30);
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    walrust.snapshot(database.path(), &[]).succeeded();
    let refused = AtomicUsize::new(0);
    proxy.set(move |exchange| {
        let reads = exchange.method == "GET" && exchange.file().is_some();
        match reads && refused.fetch_add(1, Ordering::Relaxed) < 2 {
            true => Fault::Answer(503, "SlowDown"),
            false => Fault::Pass,
        }
    });
    assert_same_database(database.path(), &walrust.restored("app", &[]));
}

#[test]
fn b18_a_snapshot_that_may_not_be_stored_ends_with_an_error() {
    let database = TestDatabase::with_history(4096, 610, 30);
    let storage = Storage::s3();
    let proxy = FaultProxy::start();
    let walrust = behind(&proxy, &storage);
    proxy.set(|exchange| match exchange.uploads() {
        Some(_) => Fault::Answer(403, "AccessDenied"),
        None => Fault::Pass,
    });
    walrust.snapshot(database.path(), &[]).failed(4, &["credentials lack a permission"]);
}
