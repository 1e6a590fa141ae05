//! The workload: it replays, and it does what applications do.

use walrust_testkit::{Prng, Step, TestDatabase, Workload, check_integrity, connect, dump};

#[test]
fn a_seed_replays_page_for_page() {
    for page_size in [512, 4096, 65_536] {
        let first = TestDatabase::with_history(page_size, 7, 60);
        let second = TestDatabase::with_history(page_size, 7, 60);
        let other = TestDatabase::with_history(page_size, 8, 60);
        assert!(first.image() == second.image(), "page size {page_size}");
        assert!(first.image() != other.image(), "the seed makes a difference");
        check_integrity(first.path());
    }
}

#[test]
fn a_step_that_failed_is_taken_again() {
    let mut database = TestDatabase::new(4096);
    let blocker = connect(database.path(), 4096);
    database.connection().busy_timeout(std::time::Duration::ZERO).unwrap();
    let mut workload = Workload::new(3);
    for _ in 0..20 {
        blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(workload.step(database.connection()).is_err());
        blocker.execute_batch("ROLLBACK").unwrap();
        workload.step(database.connection()).unwrap();
    }
    assert_eq!(workload.steps_taken(), 20);
    assert!(database.image() == TestDatabase::with_history(4096, 3, 20).image());
}

#[test]
fn commits_and_rollbacks_are_told_apart() {
    let mut database = TestDatabase::new(4096);
    let mut workload = Workload::new(11).with_vacuums().with_checkpoints();
    let mut seen = [0, 0];
    for _ in 0..150 {
        let before = database.image();
        match workload.step(database.connection()).unwrap() {
            Step::Committed => seen[0] += 1,
            Step::Unchanged => {
                seen[1] += 1;
                assert!(database.image() == before, "step {}", workload.steps_taken());
            }
        }
    }
    assert!(seen.iter().all(|&count| count > 10), "{seen:?}");
}

#[test]
fn a_history_has_all_kinds_of_content() {
    let mut database = TestDatabase::with_history(4096, 5, 300);
    let connection = database.connection();
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap();
    assert!(count("SELECT count(*) FROM accounts") > 50);
    assert!(count("SELECT count(*) FROM attributes") > 50);
    assert!(count("SELECT count(*) FROM audit WHERE account IS NOT NULL") > 10);
    assert!(count("SELECT max(length(body)) FROM documents") > 50_000);
    assert!(count("SELECT count(*) FROM sqlite_schema WHERE name GLOB 'extra_*'") > 1);
    assert!(count("SELECT count(*) FROM debts") > 0);
}

#[test]
fn the_generator_is_splitmix64() {
    // Reference values of the published algorithm for the seed 1234567.
    let mut prng = Prng::new(1_234_567);
    let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
    assert_eq!([prng.next_u64(), prng.next_u64()], expected);
}

#[test]
fn a_ledger_replays_what_two_writers_did_in_turns() {
    let mut database = TestDatabase::new(4096);
    Workload::create_ledger(database.connection()).unwrap();
    let workload = |seed| Workload::new(seed).with_vacuums().with_checkpoints().with_ledger();
    let mut writers = [workload(u64::MAX), workload(2)];
    let mut turns = Prng::new(1);
    for _ in 0..120 {
        database.step(&mut writers[turns.below(2) as usize]);
    }
    let entries: Vec<(i64, i64)> = {
        let mut rows = database
            .connection()
            .prepare("SELECT seed, step FROM ledger ORDER BY id")
            .expect("the ledger");
        let entries = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        entries.collect::<Result<_, _>>().unwrap()
    };
    assert!(entries.len() > 60, "{}", entries.len());

    let mut replayed = TestDatabase::new(4096);
    Workload::create_ledger(replayed.connection()).unwrap();
    for (seed, step) in entries {
        let mut writer = workload(seed.cast_unsigned()).resumed_at(step.cast_unsigned());
        assert_eq!(writer.step(replayed.connection()).unwrap(), Step::Committed);
    }
    assert!(dump(replayed.path()) == dump(database.path()));
}
