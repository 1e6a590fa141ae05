//! What may be restored: states that existed, and nothing else.
//!
//! Every commit leaves a row in the ledger of its database, in the order of the commits. So the
//! ledger of the source names every state that ever existed, and taking its first n steps again in
//! a database in memory gives the content of state n.
//!
//! Invariant: nothing that comes from a backup tells the oracle what is right.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use walrust_testkit::{Step, Workload, assert_same_database, dump_connection};

/// A commit: the seed of its writer and the number of the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    seed: u64,
    step: u64,
}

/// A restored database, and what it must be.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// What was asked for, for messages.
    pub(crate) what: String,
    pub(crate) path: PathBuf,
    /// The TXID that was asked for; later ones have later states.
    pub(crate) txid: Option<u64>,
    /// Whether it must hold every commit.
    pub(crate) complete: bool,
}

/// The workload of every writer of the chaos suite.
pub(crate) fn workload(seed: u64) -> Workload {
    Workload::new(seed).with_vacuums().with_checkpoints().with_ledger()
}

/// Checks a source that nobody writes to any more, and what was restored from its backup.
/// `acknowledged` has the commits of each writer that SQLite has confirmed to it. Returns how many
/// commits there are.
///
/// # Errors
/// What is wrong, in a sentence.
pub(crate) fn check(
    source: &Path,
    acknowledged: &BTreeMap<u64, u64>,
    claims: &[Claim],
) -> Result<u64, String> {
    let (history, content) = read(source).map_err(|error| format!("the source: {error}"))?;
    for (seed, count) in acknowledged {
        let kept = history.iter().filter(|entry| entry.seed == *seed).count() as u64;
        if kept < *count {
            return Err(format!("the source has {kept} of {count} commits of writer {seed}"));
        }
    }
    let mut states =
        vec![State { what: "the source".to_owned(), number: history.len(), txid: None, content }];
    for claim in claims {
        states.push(State::read(claim, &history)?);
    }
    in_order(&states)?;
    replay(&history, states)?;
    Ok(history.len() as u64)
}

/// Asserts that the newest state is the source page for page.
pub(crate) fn check_pages(source: &Path, restored: &Path) {
    assert_same_database(source, restored);
}

/// A database, and how many commits it has.
struct State {
    what: String,
    number: usize,
    txid: Option<u64>,
    content: Vec<String>,
}

impl State {
    fn read(claim: &Claim, history: &[Entry]) -> Result<Self, String> {
        let what = claim.what.clone();
        let (entries, content) = read(&claim.path).map_err(|error| format!("{what}: {error}"))?;
        let number = entries.len();
        if !history.starts_with(&entries) {
            let same = entries.iter().zip(history).take_while(|(one, other)| one == other).count();
            return Err(format!(
                "{what}: its {number} commits are no state that existed: number {} is another, of \
                 {} in the source",
                same + 1,
                history.len()
            ));
        }
        if claim.complete && number < history.len() {
            return Err(format!(
                "{what}: {} of {} commits are lost",
                history.len() - number,
                history.len()
            ));
        }
        Ok(Self { what, number, txid: claim.txid, content })
    }
}

fn in_order(states: &[State]) -> Result<(), String> {
    let mut of_txids: Vec<_> =
        states.iter().filter_map(|state| state.txid.map(|txid| (txid, state.number))).collect();
    of_txids.sort_unstable();
    match of_txids.windows(2).find(|pair| pair[0].1 > pair[1].1) {
        Some(pair) => Err(format!("a later TXID has an earlier state: {pair:?}")),
        None => Ok(()),
    }
}

/// Takes all steps again and compares each state when its turn comes.
fn replay(history: &[Entry], mut states: Vec<State>) -> Result<(), String> {
    states.sort_by_key(|state| state.number);
    let mut model = Connection::open_in_memory().expect("a database in memory");
    create(&model).expect("the schema of a new database");
    let mut taken = 0;
    for state in states {
        for entry in &history[taken..state.number] {
            let step = workload(entry.seed).resumed_at(entry.step).step(&mut model);
            if !matches!(step, Ok(Step::Committed)) {
                return Err(format!("{entry:?} of the ledger is no commit: {step:?}"));
            }
        }
        taken = state.number;
        let expected = dump_connection(&model).expect("the model can be read");
        if let Some(difference) = difference(&expected, &state.content) {
            return Err(format!("{}, commit {taken}: {difference}", state.what));
        }
    }
    Ok(())
}

/// Creates what writers find.
///
/// # Errors
/// SQLite's.
pub(crate) fn create(connection: &Connection) -> rusqlite::Result<()> {
    Workload::create_schema(connection)?;
    Workload::create_ledger(connection)
}

/// Ledger and content of a database, which must be sound.
fn read(path: &Path) -> Result<(Vec<Entry>, Vec<String>), String> {
    let read = || -> rusqlite::Result<_> {
        // Without leave to create: a missing database is no empty one.
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let sound: String =
            connection.query_row("PRAGMA integrity_check(3)", [], |row| row.get(0))?;
        let mut rows = connection.prepare("SELECT id, seed, step FROM ledger ORDER BY id")?;
        let rows = rows.query_map([], |row| {
            let entry = Entry {
                seed: row.get::<_, i64>(1)?.cast_unsigned(),
                step: row.get::<_, i64>(2)?.cast_unsigned(),
            };
            Ok((row.get::<_, i64>(0)?, entry))
        })?;
        let rows: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
        Ok((sound, rows, dump_connection(&connection)?))
    };
    let (sound, rows, content) =
        read().map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    if sound != "ok" {
        return Err(format!("{} is damaged: {sound}", path.display()));
    }
    if let Some((missing, _)) = (1..).zip(&rows).find(|(number, (id, _))| number != id) {
        return Err(format!("{} has no commit {missing}, but later ones", path.display()));
    }
    Ok((rows.into_iter().map(|(_, entry)| entry).collect(), content))
}

fn difference(expected: &[String], found: &[String]) -> Option<String> {
    let show = |rows: &[String], index: usize| {
        rows.get(index)
            .map_or("nothing".to_owned(), |row| row.chars().take(120).collect::<String>())
    };
    let differs = |index: &usize| expected.get(*index) != found.get(*index);
    let first = (0..expected.len().max(found.len())).find(differs)?;
    Some(format!("{} instead of {}", show(found, first), show(expected, first)))
}

#[cfg(test)]
mod tests;
