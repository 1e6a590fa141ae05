//! Applications of all kinds beside the daemon: foreign checkpoints, short lives, large and many
//! transactions.

use walrust_testkit::{TestDatabase, WriterOptions, WriterProcess, image};

use super::{Scene, SystemSqlite, assert_no_gaps, commit, documents, run};
use crate::walrust::PATIENCE;

/// Checkpoints of all the modes that let a WAL begin anew, as fast as they come.
const FOREIGN_CHECKPOINTS: &str = "
application = connect(0.05)
while not stopped.is_set():
    for mode in ('TRUNCATE', 'RESTART', 'FULL'):
        try:
            application.execute(f'PRAGMA wal_checkpoint({mode})').fetchall()
        except sqlite3.OperationalError:
            pass
        time.sleep(0.002)
";

/// A writer that adds checkpoints and VACUUM of its own.
fn heavy_writer(seed: u64) -> WriterOptions {
    WriterOptions {
        seed,
        commits_per_second: Some(100),
        checkpoints: true,
        vacuums: true,
        ..WriterOptions::default()
    }
}

#[test]
fn a02_foreign_checkpoints_beside_heavy_writes_lose_nothing() {
    let scene = Scene::new();
    let daemon = scene.replicate(&["--min-checkpoint-pages", "100"]);
    let checkpoints = SystemSqlite::spawn(FOREIGN_CHECKPOINTS, &scene.source);
    let mut writers = [2, 3].map(|seed| WriterProcess::spawn(&scene.source, &heavy_writer(seed)));
    for writer in &mut writers {
        writer.wait_for_commit(100, PATIENCE);
    }
    let commits: u64 = writers.map(WriterProcess::stop).iter().sum();
    checkpoints.stop();
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!(scene.head(), 1 + commits, "one TXID for each commit");
    scene.assert_restorable();
}

#[test]
fn a02_foreign_checkpoints_while_the_daemon_is_away_lose_nothing() {
    let scene = Scene::new();
    let checkpoints = SystemSqlite::spawn(FOREIGN_CHECKPOINTS, &scene.source);
    let mut writer = WriterProcess::spawn(&scene.source, &heavy_writer(4));
    for round in 0..4 {
        let before = scene.head();
        let mut daemon = scene.replicate(&[]);
        daemon.wait_until("something is shipped", |_| scene.head() > before + 3);
        if round % 2 == 0 {
            daemon.kill();
        } else {
            daemon.stop();
        }
        let commits = writer.commits();
        writer.wait_for_commit(commits + 10, PATIENCE);
    }
    let before = scene.head();
    let mut daemon = scene.replicate(&[]);
    scene.wait_for_head(&mut daemon, before + 1);
    writer.stop();
    checkpoints.stop();
    daemon.stop();
    scene.assert_restorable();
    for txid in scene.storage.txids("app").into_iter().step_by(20) {
        let txid = txid.to_string();
        scene.walrust.restored("app", &["--txid", &txid, "--integrity-check", "full"]);
    }
}

#[test]
fn a06_short_lived_writers_lose_nothing() {
    let scene = Scene::new();
    let mut daemon = scene.replicate(&[]);
    for seed in 10..20 {
        let options = WriterOptions { seed, commits: Some(1), ..WriterOptions::default() };
        WriterProcess::spawn(&scene.source, &options).finish();
    }
    assert_no_gaps(&daemon.log());
    scene.wait_for_head(&mut daemon, 11);
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!(scene.head(), 11, "one TXID for each commit");
    scene.assert_restorable();
}

/// Opens, inserts and closes, again and again.
const SHORT_LIVES: &str = "
for n in range(40):
    application = connect()
    application.execute('INSERT INTO audit (account, change) VALUES (NULL, ?)', (n,))
    application.close()
";

#[test]
fn a06_short_lived_writers_on_the_sqlite_of_the_system_lose_nothing() {
    let scene = Scene::new();
    let mut daemon = scene.replicate(&[]);
    for _ in 0..3 {
        SystemSqlite::spawn(SHORT_LIVES, &scene.source).finish();
    }
    scene.wait_for_head(&mut daemon, 121);
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!(scene.head(), 121, "one TXID for each commit");
    scene.assert_restorable();
}

#[test]
fn a06_short_lived_writers_while_the_daemon_is_away_lose_nothing() {
    let scene = Scene::new();
    scene.replicate(&[]).stop();
    for round in 1..=3 {
        SystemSqlite::spawn(SHORT_LIVES, &scene.source).finish();
        let mut daemon = scene.replicate(&[]);
        scene.wait_for_head(&mut daemon, 1 + round);
        daemon.stop();
        scene.assert_restorable();
    }
}

#[test]
fn a20_a_transaction_of_100_megabytes_is_shipped() {
    let scene = Scene::new();
    let application = scene.application();
    let mut daemon = scene.replicate(&[]);
    run(&application, &documents(400, 250_000));
    commit(&application, 1);
    scene.wait_for_head(&mut daemon, 3);
    drop(application);
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!(scene.head(), 3);
    // The rows are in the pages; to print 100 MB of them would take a minute.
    let restored = scene.walrust.restored("app", &["--integrity-check", "full"]);
    assert!(image(&restored) == image(&scene.source), "the pages differ");
}

#[test]
fn a20_thousands_of_small_transactions_a_second_are_shipped() {
    let scene = Scene::new();
    let application = scene.application();
    run(&application, "PRAGMA wal_autocheckpoint = 1000");
    let daemon = scene.replicate(&[]);
    commit(&application, 12_000);
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!(scene.head(), 12_001, "one TXID for each commit");
    scene.assert_restorable();
}

fn odd_tables(page_size: u32, auto_vacuum: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let source = directory.path().join("app.db");
    let application = rusqlite::Connection::open(&source).expect("a new database");
    run(
        &application,
        &format!(
            "PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {auto_vacuum};
             PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
             CREATE TABLE blobs (id INTEGER PRIMARY KEY, body BLOB);
             CREATE TABLE keys (key BLOB PRIMARY KEY, body BLOB) WITHOUT ROWID;
             CREATE INDEX blobs_by_body ON blobs (body);"
        ),
    );
    let scene = Scene::at(directory, source);
    let mut daemon = scene.replicate(&["--min-checkpoint-pages", "200"]);
    for round in 1..=20 {
        run(
            &application,
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
             INSERT INTO blobs (body) SELECT randomblob(1000) FROM n",
        );
        run(
            &application,
            "INSERT INTO keys SELECT randomblob(16), body FROM blobs WHERE id % 7 = 0",
        );
        run(&application, &format!("DELETE FROM blobs WHERE id % 5 = {}", round % 5));
        run(&application, &format!("DELETE FROM keys WHERE hex(key) LIKE '{:X}%'", round % 16));
        // The last one may find nothing to delete.
        scene.wait_for_head(&mut daemon, 3 * round);
    }
    assert_no_gaps(&daemon.stop().stderr);
    scene.assert_restorable();
}

#[test]
fn a20_blobs_and_tables_without_rowid_under_auto_vacuum_are_shipped() {
    odd_tables(1024, "FULL");
}

#[test]
fn a20_blobs_and_tables_without_rowid_under_incremental_vacuum_are_shipped() {
    odd_tables(4096, "INCREMENTAL");
}

#[test]
fn a20_writers_on_two_versions_of_sqlite_are_shipped() {
    let scene = Scene::of(TestDatabase::with_history(512, 5, 10));
    let mut daemon = scene.replicate(&["--min-checkpoint-pages", "100"]);
    let script = "
application = connect(30)
commits = 0
while not stopped.is_set():
    application.execute('INSERT INTO audit (account, change) VALUES (NULL, ?)', (commits,))
    commits += 1
    # Or the other writer would never have its turn.
    time.sleep(0.002)
print(commits)
";
    let system = SystemSqlite::spawn(script, &scene.source);
    let mut ours = WriterProcess::spawn(&scene.source, &heavy_writer(6));
    ours.wait_for_commit(150, PATIENCE);
    let theirs: u64 = system.stop().trim().parse().expect("the number of commits");
    let ours = ours.stop();
    scene.wait_for_head(&mut daemon, 1 + ours + theirs);
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!(scene.head(), 1 + ours + theirs, "one TXID for each commit");
    scene.assert_restorable();
}
