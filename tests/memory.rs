//! The memory of the program: it does not follow the size of a database, and by little their number.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use walrust_testkit::{assert_same_database, connect, wait_for};

use crate::daemon::Daemon;
use crate::host::{Host, all_stored};
use crate::storage::Storage;
use crate::walrust::{PATIENCE, QUICK, Walrust};

/// How long memory must not have become less before it counts as what is needed. Longer than a
/// database keeps its actor that nothing happens to.
const SETTLED: Duration = Duration::from_secs(7);

/// A database with so many rows of 100 kB, in the database file alone.
fn database_of(rows: u32, path: &Path) {
    let application = connect(path, 4096);
    let numbers = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT";
    let sql = format!(
        "CREATE TABLE big (x); {numbers} {rows}) INSERT INTO big SELECT randomblob(100000) FROM n;
         PRAGMA wal_checkpoint(TRUNCATE)"
    );
    application.execute_batch(&sql).expect("there is space");
    assert!(path.metadata().expect("it is there").len() > u64::from(rows) * 100_000);
}

#[test]
fn d04_neither_a_snapshot_nor_a_restore_follows_the_size_of_the_database() {
    // Of these some thirty are the program itself, without optimisation.
    const MOST_KIB: i64 = 80 * 1024;
    const MORE_KIB: i64 = 12 * 1024;
    let (mut peaks, mut restored) = (Vec::new(), Vec::new());
    // Both are larger than what is fetched ahead.
    for rows in [400, 2000] {
        let storage = Storage::s3();
        let walrust = Walrust::on(&storage);
        let source = walrust.file("app.db");
        database_of(rows, &source);
        let output = walrust.file("restored.db");
        for arguments in [&["snapshot", "app.db"][..], &["restore", "app", "-o", "restored.db"]] {
            // So much takes its time on a busy machine, and is waited for.
            let status = walrust.command(arguments).status().expect("the program starts");
            assert!(status.success(), "{arguments:?}: {status}");
        }
        // The largest of all children that have ended, which were this process before.
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel counts");
        peaks.push(usage.max_rss());
        restored.push((source, output, walrust));
    }
    println!("{peaks:?} KiB at most with 40 and with 200 MB");
    let (small, large) = (peaks[0], peaks[1]);
    assert!(small > 1024 && large <= MOST_KIB, "{peaks:?} KiB");
    assert!(large - small <= MORE_KIB, "{peaks:?} KiB for five times the database");
    // Only now may this process become large.
    for (source, output, _walrust) in restored {
        assert_same_database(&source, &output);
    }
}

/// So little is not worth another wait: a kilobyte for each of the databases that are told apart.
const NOISE_KIB: u64 = 100;

/// The least memory that it has until it gives nothing more back.
fn settled_kib(daemon: &Daemon) -> u64 {
    let (mut least, mut last, mut since) = (u64::MAX, u64::MAX, Instant::now());
    wait_for(PATIENCE, "memory that does not become less", || {
        let now = daemon.memory_kib("VmRSS");
        least = least.min(now);
        if last.saturating_sub(now) > NOISE_KIB {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > SETTLED
    });
    least
}

#[test]
fn d03_an_idle_database_costs_little_memory() {
    const MOST_KIB: u64 = 40;
    const STEP: usize = 100;
    let host = Host::new();
    let pattern = host.path("*.db").display().to_string();
    let create = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            host.create(&format!("t{number:03}.db"));
        }
    };
    create(0..STEP);
    let mut daemon = host.walrust.watch_with([&[pattern.as_str()][..], &QUICK].concat());
    host.wait_until(&mut daemon, "half is stored", |it| it.len() == STEP && all_stored(it));
    let half = settled_kib(&daemon);
    create(STEP..2 * STEP);
    host.wait_until(&mut daemon, "all are stored", |it| it.len() == 2 * STEP && all_stored(it));
    let all = settled_kib(&daemon);
    let each = all.saturating_sub(half) / STEP as u64;
    println!("{half} KiB with {STEP} databases, {all} KiB with {}: {each} KiB each", 2 * STEP);
    assert!(each <= MOST_KIB, "{half} KiB with {STEP} databases, {all} KiB with twice as many");
    daemon.stop();
}
