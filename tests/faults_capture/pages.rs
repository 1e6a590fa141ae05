//! Which pages a state has: growth, shrinking, page sizes, the lock page, snapshots.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use walrust_ltx::{Decoder, Mode};
use walrust_testkit::{TestDatabase, WriterOptions, WriterProcess, connect, image};

use super::{NO_CHECKPOINTS, Scene, assert_no_gaps, commit, documents, query, run};
use crate::daemon::Daemon;
use crate::walrust::PATIENCE;

/// States of a database, each of which must come back as it was.
struct States<'a> {
    scene: &'a Scene,
    daemon: Daemon,
    seen: Vec<(u64, Vec<u8>)>,
}

impl<'a> States<'a> {
    fn of(scene: &'a Scene, daemon: Daemon) -> Self {
        Self { scene, daemon, seen: Vec::new() }
    }

    /// Runs what makes one commit, and keeps the state behind it once it is shipped.
    fn reach(&mut self, application: &Connection, sql: &str) {
        self.reach_by(|| run(application, sql));
    }

    fn reach_by(&mut self, commit: impl FnOnce()) {
        let head = self.scene.head();
        commit();
        self.scene.wait_for_head(&mut self.daemon, head + 1);
        self.seen.push((head + 1, image(&self.scene.source)));
    }

    /// Asserts that each state was shipped by itself, and comes back page for page.
    fn assert_restorable(self) {
        assert_no_gaps(&self.daemon.stop().stderr);
        assert_eq!(Some(self.scene.head()), self.seen.last().map(|(txid, _)| *txid));
        for (txid, expected) in &self.seen {
            self.scene.assert_state(*txid, expected);
        }
        self.scene.assert_restorable();
    }
}

#[test]
fn a10_growth_by_pages_that_are_free_again_at_the_commit_is_whole() {
    let scene = Scene::new();
    let application = scene.application();
    let mut states = States::of(&scene, scene.replicate(&NO_CHECKPOINTS));
    let before: u32 = query(&application, "PRAGMA page_count");
    let grow = documents(5, 300_000);
    states.reach(&application, &format!("BEGIN; {grow}; DELETE FROM documents; COMMIT"));
    let after: u32 = query(&application, "PRAGMA page_count");
    assert!(after > before + 300, "{before} pages, then {after}");
    states.reach(&application, "UPDATE accounts SET balance = 0");
    // Free pages come to use without being read before.
    states.reach(&application, &grow);
    // A cache too small for the transaction: what was spilled is free at its end.
    run(&application, "PRAGMA cache_size = 5");
    states.reach(&application, &format!("BEGIN; {grow}; {grow}; DELETE FROM documents; COMMIT"));
    states.assert_restorable();
}

#[test]
fn a11_shrinking_leaves_no_old_pages_and_growing_again_neither() {
    let scene = Scene::new();
    let application = scene.application();
    let mut states = States::of(&scene, scene.replicate(&NO_CHECKPOINTS));
    for _ in 0..2 {
        states.reach(&application, &documents(10, 100_000));
        states.reach(&application, "DELETE FROM documents WHERE id % 10 > 0");
        let before: u32 = query(&application, "PRAGMA page_count");
        states.reach(&application, "VACUUM");
        let after: u32 = query(&application, "PRAGMA page_count");
        assert!(after < before / 2, "{before} pages, then {after}");
        states.reach(&application, &documents(3, 50_000));
    }
    states.assert_restorable();
}

/// Takes so many free pages off the end of the file, or all; each step of the statement takes one.
fn incremental_vacuum(application: &Connection, pages: u32) {
    let sql = format!("PRAGMA incremental_vacuum({pages})");
    let mut vacuum = application.prepare(&sql).expect("a pragma");
    let mut steps = vacuum.query([]).expect("a pragma without parameters");
    while steps.next().expect("nobody is in the way").is_some() {}
}

#[test]
fn a11_incremental_vacuum_leaves_no_old_pages() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let source = directory.path().join("app.db");
    let application = Connection::open(&source).expect("a new database");
    run(
        &application,
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
         CREATE TABLE documents (id INTEGER PRIMARY KEY, body BLOB);",
    );
    let scene = Scene::at(directory, source);
    let mut states = States::of(&scene, scene.replicate(&["--min-checkpoint-pages", "100"]));
    for _ in 0..2 {
        states.reach(&application, &documents(10, 100_000));
        states.reach(&application, "DELETE FROM documents WHERE id % 10 > 0");
        states.reach_by(|| incremental_vacuum(&application, 50));
        states.reach_by(|| incremental_vacuum(&application, 0));
        assert_eq!(query::<u32>(&application, "PRAGMA freelist_count"), 0);
    }
    states.assert_restorable();
}

#[test]
fn a11_shrinking_and_growing_between_two_syncs_leaves_no_old_pages() {
    let scene = Scene::new();
    let application = scene.application();
    run(&application, &documents(10, 100_000));
    let daemon = scene.replicate_slowly(&NO_CHECKPOINTS);
    commit(&application, 1);
    run(&application, "DELETE FROM documents; VACUUM");
    let small: u32 = query(&application, "PRAGMA page_count");
    run(&application, &format!("BEGIN; {}; DELETE FROM documents; COMMIT", documents(9, 90_000)));
    assert!(query::<u32>(&application, "PRAGMA page_count") > 2 * small, "it has grown again");
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!(scene.head(), 5);
    scene.assert_restorable();
}

macro_rules! page_sizes {
    ($($test:ident: $page_size:literal),* $(,)?) => {
        $(#[test] fn $test() {
            let scene = Scene::of(TestDatabase::with_history($page_size, 3, 20));
            let application = connect(&scene.source, $page_size);
            let flags = ["--min-checkpoint-pages", "50"];
            let mut states = States::of(&scene, scene.replicate(&flags));
            states.reach(&application, &documents(3, 70_000));
            states.reach(&application, "UPDATE accounts SET balance = balance + 1");
            states.reach(&application, "DELETE FROM documents");
            states.reach(&application, "VACUUM");
            assert_eq!(query::<u32>(&application, "PRAGMA page_size"), $page_size);
            states.assert_restorable();
        })*
    };
}

page_sizes!(
    a12_pages_of_512_bytes_come_back: 512,
    a12_pages_of_1024_bytes_come_back: 1024,
    a12_pages_of_65536_bytes_come_back: 65536,
);

/// The page at 1 GiB, in a database with pages of 64 KiB. SQLite never uses it.
const LOCK_PAGE: u32 = 16_385;
const LARGE_PAGE: u32 = 65_536;

/// Lets a database that nobody has open grow to so many pages, all of them free, without writing
/// them: the file has holes. The ten at 1 GiB are the first to be used again.
fn grow_with_free_pages(path: &Path, pages: u32) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a database");
    let size = file.metadata().expect("a file").len();
    let used = u32::try_from(size / u64::from(LARGE_PAGE)).expect("a small database");
    file.set_len(u64::from(pages) * u64::from(LARGE_PAGE)).expect("files may have holes");
    let mut free: Vec<u32> = (used + 3..=pages).filter(|pgno| *pgno != LOCK_PAGE).collect();
    free.sort_by_key(|pgno| pgno.abs_diff(LOCK_PAGE));
    let write = |offset: u64, numbers: &[u32]| {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        file.write_all_at(&bytes, offset).expect("the database is ours");
    };
    // A trunk page: the next trunk, the number of its leaves, its leaves.
    let (first, second) = free.split_at(10);
    for (trunk, next, leaves) in [(used + 1, used + 2, first), (used + 2, 0, second)] {
        let count = u32::try_from(leaves.len()).expect("some thousand");
        let offset = u64::from(trunk - 1) * u64::from(LARGE_PAGE);
        write(offset, &[&[next, count], leaves].concat());
    }
    let count = u32::try_from(free.len() + 2).expect("some thousand");
    write(28, &[pages, used + 1, count]);
}

#[test]
fn a12_a_database_over_a_gigabyte_comes_back_without_its_lock_page() {
    let scene = Scene::of(TestDatabase::with_history(LARGE_PAGE, 3, 3));
    grow_with_free_pages(&scene.source, LOCK_PAGE + 15);
    let application = connect(&scene.source, LARGE_PAGE);
    let mut daemon = scene.replicate(&["--checkpoint-interval", "0"]);
    // Some pages on either side of the lock page.
    run(&application, &documents(1, 640_000));
    scene.wait_for_head(&mut daemon, 2);
    assert_no_gaps(&daemon.stop().stderr);
    assert_eq!(query::<u32>(&application, "PRAGMA page_count"), LOCK_PAGE + 15);
    drop(application);
    assert!(pages_are_used(&scene.source, [LOCK_PAGE - 1, LOCK_PAGE + 1]), "on both sides");
    let restored = scene.walrust.restored("app", &[]);
    let compared = Command::new("cmp").args([&scene.source, &restored]).output();
    let compared = compared.expect("cmp is part of every Unix");
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stdout));
    for file in scene.storage.ltx_files("app") {
        let bytes = scene.storage.read(&format!("app/{file}"));
        let mut decoder = Decoder::new(&bytes[..], Mode::Strict).expect("an LTX file");
        let mut page = vec![0; decoder.header().page_size.bytes()];
        while let Some(pgno) = decoder.next_page(&mut page).expect("a whole LTX file") {
            assert_ne!(pgno, LOCK_PAGE, "{file} has the lock page");
        }
    }
}

fn pages_are_used<const N: usize>(path: &Path, pgnos: [u32; N]) -> bool {
    let file = File::open(path).expect("a database");
    let mut bytes = [0; 64];
    pgnos.iter().all(|pgno| {
        let offset = u64::from(pgno - 1) * u64::from(LARGE_PAGE);
        file.read_exact_at(&mut bytes, offset).expect("the page is in the file");
        bytes != [0; 64]
    })
}

#[test]
fn a14_incrementals_fit_the_pages_of_the_snapshot() {
    let scene = Scene::new();
    let application = scene.application();
    // Holes everywhere: a copy that is made row by row has its pages elsewhere.
    run(&application, &documents(200, 3_000));
    run(&application, "DELETE FROM documents WHERE id % 3 = 0; DELETE FROM accounts WHERE id % 2");
    assert!(query::<u32>(&application, "PRAGMA freelist_count") > 10);
    let mut states = States::of(&scene, scene.replicate(&NO_CHECKPOINTS));
    states.reach(&application, "UPDATE accounts SET balance = 7");
    scene.walrust.snapshot(&scene.source, &[]).succeeded();
    states.reach(&application, "UPDATE accounts SET balance = 8");
    states.reach(&application, "DELETE FROM documents WHERE id % 3 = 1");
    assert_eq!(scene.snapshots(), 2);
    states.assert_restorable();
}

#[test]
fn a14_snapshots_of_a_database_that_is_written_are_whole() {
    let scene = Scene::new();
    let options = WriterOptions { vacuums: true, checkpoints: true, ..WriterOptions::default() };
    let mut writer = WriterProcess::spawn(&scene.source, &options);
    for _ in 0..4 {
        let commits = writer.commits();
        writer.wait_for_commit(commits + 20, PATIENCE);
        scene.walrust.snapshot(&scene.source, &[]).succeeded();
        // Every index agrees with its table.
        scene.walrust.restored("app", &["--integrity-check", "full"]);
    }
    writer.stop();
    scene.replicate(&[]).stop();
    scene.assert_restorable();
}
