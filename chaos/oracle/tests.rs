//! An oracle that cannot fail proves nothing: each kind of wrong state must be noticed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;
use walrust_testkit::{Step, connect};

use super::{Claim, check, create, read, workload};

const SEEDS: [u64; 2] = [3, u64::MAX];
const PAGE: u32 = 1024;

/// A source that two writers filled in turns, and a file for each state that it went through.
struct History {
    directory: TempDir,
    source: PathBuf,
    /// Index n holds n commits.
    states: Vec<Vec<u8>>,
}

impl History {
    fn new(commits: usize) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let source = directory.path().join("source.db");
        let mut connection = connect(&source, PAGE);
        create(&connection).unwrap();
        let mut writers = SEEDS.map(workload);
        let mut states = vec![state(&mut connection)];
        let mut turn = 0;
        while states.len() <= commits {
            turn += 1;
            if writers[turn % 2].step(&mut connection).unwrap() == Step::Committed {
                states.push(state(&mut connection));
            }
        }
        Self { directory, source, states }
    }

    /// A restored database with these bytes.
    fn claim(&self, bytes: &[u8], txid: u64) -> Claim {
        let path = self.directory.path().join(format!("{txid}.db"));
        fs::write(&path, bytes).unwrap();
        Claim { what: format!("TXID {txid}"), path, txid: Some(txid), complete: false }
    }

    fn state(&self, number: usize) -> Claim {
        self.claim(&self.states[number], number as u64)
    }

    /// The newest state, changed by SQL.
    fn changed(&self, sql: &str) -> Claim {
        let claim = self.state(self.states.len() - 1);
        Connection::open(&claim.path).unwrap().execute_batch(sql).unwrap();
        claim
    }

    fn check(&self, claims: &[Claim]) -> Result<u64, String> {
        check(&self.source, &BTreeMap::new(), claims)
    }

    #[track_caller]
    fn refuses(&self, claims: &[Claim], phrase: &str) {
        let reason = self.check(claims).expect_err("it is wrong");
        assert!(reason.contains(phrase), "{phrase:?} is not in: {reason}");
    }
}

/// The database as it would be after a checkpoint.
fn state(connection: &mut Connection) -> Vec<u8> {
    connection.serialize("main").unwrap().to_vec()
}

fn history() -> History {
    History::new(40)
}

#[test]
fn every_state_that_existed_passes() {
    let history = history();
    let mut claims: Vec<_> = (0..=40).map(|number| history.state(number)).collect();
    claims[40].complete = true;
    assert_eq!(history.check(&claims), Ok(40));
}

#[test]
fn a_lost_commit_is_noticed_where_all_must_be_there() {
    let history = history();
    let claim = Claim { complete: true, ..history.state(39) };
    history.refuses(&[claim], "1 of 40 commits are lost");
}

#[test]
fn a_hole_in_the_ledger_is_noticed() {
    let history = history();
    let claim = history.changed("DELETE FROM ledger WHERE id = 20");
    history.refuses(&[claim], "has no commit 20");
}

#[test]
fn a_history_of_others_is_noticed() {
    let history = history();
    let claim = history.changed("UPDATE ledger SET seed = 4 WHERE id = 7");
    history.refuses(&[claim], "number 7 is another");
}

#[test]
fn a_commit_too_many_is_noticed() {
    let history = history();
    let claim = history.changed("INSERT INTO ledger (seed, step) VALUES (3, 1000)");
    history.refuses(&[claim], "number 41 is another");
}

#[test]
fn content_that_no_commit_made_is_noticed() {
    let history = history();
    history.refuses(&[history.changed("UPDATE accounts SET balance = 7")], " instead of ");
    history.refuses(&[history.changed("DELETE FROM audit WHERE id = 1")], " instead of ");
    history.refuses(&[history.changed("CREATE TABLE another (id)")], " instead of ");
}

#[test]
fn a_commit_whose_effect_was_left_out_is_noticed() {
    let history = history();
    let (entries, _) = read(&history.source).unwrap();
    let beside_the_ledger = |number: usize| {
        let (_, content) = read(&history.state(number).path).unwrap();
        content.into_iter().filter(|row| !row.starts_with("ledger ")).collect::<Vec<_>>()
    };
    // A VACUUM has no effect that could be missing.
    let has_effect = |&number: &usize| beside_the_ledger(number) != beside_the_ledger(number + 1);
    for left_out in [0, 10, 11, 20, 38, 39].into_iter().filter(has_effect) {
        let claim = history.claim(&[], left_out as u64);
        let mut connection = connect(&claim.path, PAGE);
        create(&connection).unwrap();
        for (index, entry) in entries.iter().enumerate() {
            // As if all files of a commit but that with the ledger were missing.
            if index == left_out {
                let row = [entry.seed.cast_signed(), entry.step.cast_signed()];
                let sql = "INSERT INTO ledger (seed, step) VALUES (?1, ?2)";
                connection.execute(sql, row).unwrap();
            } else {
                workload(entry.seed).resumed_at(entry.step).step(&mut connection).unwrap();
            }
        }
        drop(connection);
        history.refuses(&[claim], " instead of ");
    }
}

#[test]
fn a_later_txid_with_an_earlier_state_is_noticed() {
    let history = history();
    let claims = [history.state(10), history.claim(&history.states[9], 11)];
    history.refuses(&claims, "a later TXID has an earlier state");
}

#[test]
fn a_restore_that_brought_nothing_is_noticed() {
    let history = history();
    let mut claim = history.state(1);
    claim.path = PathBuf::from("/nowhere.db");
    history.refuses(&[claim], "cannot be read");
    history.refuses(&[history.claim(b"", 5)], "cannot be read");
}

#[test]
fn a_source_that_lost_what_was_acknowledged_is_noticed() {
    let history = history();
    let entered = |seed: u64| {
        let connection = Connection::open(&history.source).unwrap();
        let sql = "SELECT count(*) FROM ledger WHERE seed = ?1";
        connection.query_row(sql, [seed.cast_signed()], |row| row.get::<_, i64>(0)).unwrap() as u64
    };
    let counts = SEEDS.map(|seed| (seed, entered(seed)));
    let mut acknowledged = BTreeMap::from(counts);
    assert_eq!(check(&history.source, &acknowledged, &[]), Ok(40));
    *acknowledged.get_mut(&SEEDS[1]).unwrap() += 1;
    let reason = check(&history.source, &acknowledged, &[]).expect_err("one is missing");
    assert!(reason.contains("the source has"), "{reason}");
}

#[test]
fn a_source_that_was_changed_behind_the_back_of_its_writers_is_noticed() {
    let history = history();
    let change = |path: &Path| {
        Connection::open(path)
            .unwrap()
            .execute_batch("DELETE FROM documents WHERE id < 5")
            .unwrap();
    };
    change(&history.source);
    history.refuses(&[], "the source, commit 40");
}
