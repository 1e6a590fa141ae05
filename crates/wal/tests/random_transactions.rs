//! Random histories, judged by SQLite.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use walrust_wal::frame_offset;

use crate::live_database::{LiveDatabase, PAGE_SIZES};

#[derive(Clone, Debug)]
enum Step {
    Insert { rows: u32, bytes: u32 },
    Update { modulus: u32 },
    Delete { modulus: u32 },
    RollBack { rows: u32, bytes: u32 },
    PartlyRollBack { rows: u32, bytes: u32 },
    NewTable,
    Vacuum,
    Checkpoint(&'static str),
}

fn step() -> impl Strategy<Value = Step> {
    let rows = || (1..60_u32, 1..2000_u32);
    prop_oneof![
        6 => rows().prop_map(|(rows, bytes)| Step::Insert { rows, bytes }),
        3 => (2..6_u32).prop_map(|modulus| Step::Update { modulus }),
        3 => (2..6_u32).prop_map(|modulus| Step::Delete { modulus }),
        3 => rows().prop_map(|(rows, bytes)| Step::RollBack { rows, bytes }),
        2 => rows().prop_map(|(rows, bytes)| Step::PartlyRollBack { rows, bytes }),
        1 => Just(Step::NewTable),
        1 => Just(Step::Vacuum),
        1 => select(vec!["PASSIVE", "FULL", "RESTART", "TRUNCATE"]).prop_map(Step::Checkpoint),
    ]
}

fn take(database: &LiveDatabase, step: &Step) {
    match *step {
        Step::Insert { rows, bytes } => database.insert(rows, bytes),
        Step::Update { modulus } => {
            database
                .run(&format!("UPDATE notes SET body = randomblob(90) WHERE id % {modulus} = 0"));
        }
        Step::Delete { modulus } => {
            database.run(&format!("DELETE FROM notes WHERE id % {modulus} > 0; DELETE FROM tags"));
        }
        Step::RollBack { rows, bytes } => {
            database.run("BEGIN");
            database.insert(rows, bytes);
            database.run("ROLLBACK");
        }
        Step::PartlyRollBack { rows, bytes } => {
            database.run("BEGIN");
            database.insert(2, 40);
            database.run("SAVEPOINT inner");
            database.insert(rows, bytes);
            database.run("ROLLBACK TO inner; COMMIT");
        }
        Step::NewTable => {
            database.run("CREATE TABLE IF NOT EXISTS extra (value); DROP TABLE extra");
        }
        Step::Vacuum => database.run("VACUUM"),
        Step::Checkpoint(mode) => {
            database.checkpoint(mode);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_scan_is_the_database_that_sqlite_sees(
        page_size in select(&PAGE_SIZES[..]),
        small_cache in any::<bool>(),
        steps in vec(step(), 1..15),
        cuts in vec(any::<Index>(), 3),
    ) {
        let database = LiveDatabase::with_tables(page_size);
        if small_cache {
            database.run("PRAGMA cache_size = 5");
        }
        for step in &steps {
            take(&database, step);
        }
        let snapshot = database.snapshot();
        snapshot.assert_like_sqlite();
        let frames = snapshot.scan().map_or(0, |scanned| scanned.committed.frames);
        let index = database.wal_index().unwrap();
        // A restarted WAL keeps its old header and frames until the next transaction.
        if index.header.mx_frame == 0 {
            return Ok(());
        }
        prop_assert_eq!(frames, index.header.mx_frame);
        // A crash cannot tear what a checkpoint has copied: that was synced before.
        let backfilled = frame_offset(page_size, index.backfilled) as usize;
        for cut in cuts {
            let length = backfilled + cut.index(snapshot.wal.len() - backfilled + 1);
            snapshot.cut(length).assert_like_sqlite();
        }
    }
}
