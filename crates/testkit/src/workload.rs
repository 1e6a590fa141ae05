//! What an application does to its database, replayable from a seed.
//!
//! Invariant: what step n does follows from the seed, n and the database alone, so a step that
//! failed because the database was busy can be taken again, and two databases that took the same
//! steps and no others are equal page for page. Blobs come from the generator, never from SQLite's `randomblob`.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::Prng;

/// The steps of an application, one after the other.
#[derive(Clone, Debug)]
pub struct Workload {
    seed: u64,
    taken: u64,
    vacuums: bool,
    checkpoints: bool,
    ledger: bool,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The database has a new commit.
    Committed,
    /// The step was rolled back, or was a checkpoint: the content is as before.
    Unchanged,
}

impl Workload {
    /// A workload without `VACUUM` and without checkpoints of its own.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, taken: 0, vacuums: false, checkpoints: false, ledger: false }
    }

    /// The same workload, when it has taken so many steps.
    #[must_use]
    pub fn resumed_at(mut self, taken: u64) -> Self {
        self.taken = taken;
        self
    }

    /// Lets one step in thirty or so be a `VACUUM`.
    #[must_use]
    pub fn with_vacuums(mut self) -> Self {
        self.vacuums = true;
        self
    }

    /// Lets some steps be checkpoints of any mode, which a replicator must survive.
    #[must_use]
    pub fn with_checkpoints(mut self) -> Self {
        self.checkpoints = true;
        self
    }

    /// Lets every step that commits leave a row in the table `ledger`: the seed and the number of
    /// the step. All commits stand there in order, also when writers share the database, so taking
    /// the steps of the first n rows again gives the content of the n-th state.
    #[must_use]
    pub fn with_ledger(mut self) -> Self {
        self.ledger = true;
        self
    }

    /// Creates the table of [`Workload::with_ledger`] unless it is there.
    ///
    /// # Errors
    /// SQLite's.
    pub fn create_ledger(connection: &Connection) -> rusqlite::Result<()> {
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS ledger (
                 id INTEGER PRIMARY KEY, seed INTEGER NOT NULL, step INTEGER NOT NULL)",
        )
    }

    /// Creates the tables of the workload unless they are there.
    ///
    /// # Errors
    /// SQLite's.
    pub fn create_schema(connection: &Connection) -> rusqlite::Result<()> {
        connection.execute_batch(
            "BEGIN IMMEDIATE;
             CREATE TABLE IF NOT EXISTS accounts (
                 id INTEGER PRIMARY KEY, name TEXT NOT NULL, balance INTEGER NOT NULL);
             CREATE INDEX IF NOT EXISTS accounts_by_name ON accounts (name, balance);
             CREATE TABLE IF NOT EXISTS attributes (
                 account INTEGER, key TEXT, value, PRIMARY KEY (account, key)) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS documents (id INTEGER PRIMARY KEY, body BLOB);
             CREATE TABLE IF NOT EXISTS audit (
                 id INTEGER PRIMARY KEY AUTOINCREMENT, account INTEGER, change INTEGER);
             CREATE TRIGGER IF NOT EXISTS accounts_change AFTER UPDATE ON accounts BEGIN
                 INSERT INTO audit (account, change) VALUES (new.id, new.balance - old.balance);
             END;
             CREATE VIEW IF NOT EXISTS debts AS SELECT * FROM accounts WHERE balance < 0;
             COMMIT;",
        )
    }

    /// Steps taken so far.
    #[must_use]
    pub fn steps_taken(&self) -> u64 {
        self.taken
    }

    /// Takes the next step.
    ///
    /// # Errors
    /// SQLite's. Then nothing has changed and the next call takes the same step again.
    pub fn step(&mut self, connection: &mut Connection) -> rusqlite::Result<Step> {
        // Each step has a generator of its own, or a retry would not repeat it.
        let mut prng = Prng::new(self.seed ^ self.taken.wrapping_mul(0xd134_2543_de82_ef95));
        let step = match prng.below(100) {
            0..=2 if self.vacuums => self.vacuum(connection),
            3..=9 if self.checkpoints => checkpoint(connection, &mut prng),
            _ => self.transact(connection, &mut prng),
        }?;
        self.taken += 1;
        Ok(step)
    }

    fn vacuum(&self, connection: &Connection) -> rusqlite::Result<Step> {
        connection.execute_batch("VACUUM")?;
        self.enter(connection)?;
        Ok(Step::Committed)
    }

    fn enter(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.ledger {
            // SQLite has no unsigned integers; the bits of the seed are what counts.
            connection.execute(
                "INSERT INTO ledger (seed, step) VALUES (?1, ?2)",
                [self.seed.cast_signed(), self.taken.cast_signed()],
            )?;
        }
        Ok(())
    }

    fn transact(&self, connection: &mut Connection, prng: &mut Prng) -> rusqlite::Result<Step> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match prng.below(100) {
            0..=34 => insert_accounts(&transaction, prng, 5)?,
            35..=49 => update_accounts(&transaction, prng)?,
            50..=64 => insert_document(&transaction, prng)?,
            65..=76 => delete(&transaction, prng)?,
            77..=79 => insert_accounts(&transaction, prng, 400)?,
            80..=84 => self.change_schema(&transaction)?,
            85..=92 => partly_roll_back(&transaction, prng)?,
            _ => {
                insert_accounts(&transaction, prng, 50)?;
                transaction.rollback()?;
                return Ok(Step::Unchanged);
            }
        }
        // Makes every step a commit, also one that finds nothing to update or delete.
        transaction.execute("INSERT INTO audit (account, change) VALUES (NULL, 0)", [])?;
        self.enter(&transaction)?;
        transaction.commit()?;
        Ok(Step::Committed)
    }

    /// Adds a table with an index, and drops one that was added before, if there are several.
    fn change_schema(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        // Both grow with every change of the schema, so writers that share a database share no name.
        // The version also follows from what is in no ledger.
        let sql = match self.ledger {
            true => "SELECT count(*) FROM ledger",
            false => "PRAGMA schema_version",
        };
        let version: u32 = transaction.query_row(sql, [], |row| row.get(0))?;
        transaction.execute_batch(&format!(
            "CREATE TABLE extra_{version} (id INTEGER PRIMARY KEY, value TEXT);
             ALTER TABLE extra_{version} ADD COLUMN unit TEXT DEFAULT 'none';
             CREATE INDEX extra_{version}_by_value ON extra_{version} (value);
             INSERT INTO extra_{version} (value) SELECT name FROM accounts LIMIT 40;"
        ))?;
        let mut extras = transaction.prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'extra_*' ORDER BY rowid",
        )?;
        let names: Vec<String> =
            extras.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        match names.as_slice() {
            [oldest, _, _, ..] => transaction.execute_batch(&format!("DROP TABLE {oldest}")),
            _ => Ok(()),
        }
    }
}

fn insert_accounts(
    transaction: &Transaction<'_>,
    prng: &mut Prng,
    most: u64,
) -> rusqlite::Result<()> {
    let mut account =
        transaction.prepare("INSERT INTO accounts (name, balance) VALUES (?1, ?2)")?;
    let mut attribute = transaction.prepare("INSERT INTO attributes VALUES (?1, ?2, ?3)")?;
    for _ in 0..prng.between(1, most) {
        let balance = prng.below(2_000) as i64 - 500;
        account.execute(params![format!("name {:016x}", prng.next_u64()), balance])?;
        let id = transaction.last_insert_rowid();
        for key in ["city", "note", "weight"].iter().take(prng.below(4) as usize) {
            let length = prng.between(1, 120) as usize;
            // A rowid can come back after a delete, its attributes went with the old row.
            attribute.execute(params![id, key, prng.bytes(length)])?;
        }
    }
    Ok(())
}

fn update_accounts(transaction: &Transaction<'_>, prng: &mut Prng) -> rusqlite::Result<()> {
    let modulus = prng.between(3, 40) as i64;
    let amount = prng.below(300) as i64 - 150;
    transaction.execute(
        "UPDATE accounts SET balance = balance + ?2 WHERE id % ?1 = 0",
        [modulus, amount],
    )?;
    Ok(())
}

fn insert_document(transaction: &Transaction<'_>, prng: &mut Prng) -> rusqlite::Result<()> {
    // Most fill a few pages; some need more overflow pages than SQLite's cache would spill.
    let length =
        if prng.chance(10) { prng.between(50_000, 400_000) } else { prng.between(1, 9_000) };
    let body = prng.bytes(length as usize);
    transaction.execute("INSERT INTO documents (body) VALUES (?1)", [body])?;
    Ok(())
}

fn delete(transaction: &Transaction<'_>, prng: &mut Prng) -> rusqlite::Result<()> {
    let modulus = prng.between(2, 6) as i64;
    let table = prng.below(3);
    let statements: &[&str] = match table {
        0 => &["DELETE FROM documents WHERE id % ?1 = 0"],
        1 => &["DELETE FROM audit WHERE id % ?1 = 0"],
        _ => &[
            "DELETE FROM attributes WHERE account % ?1 = 0",
            "DELETE FROM accounts WHERE id % ?1 = 0",
        ],
    };
    for statement in statements {
        transaction.execute(statement, [modulus])?;
    }
    Ok(())
}

fn partly_roll_back(transaction: &Transaction<'_>, prng: &mut Prng) -> rusqlite::Result<()> {
    insert_accounts(transaction, prng, 5)?;
    transaction.execute_batch("SAVEPOINT undone")?;
    insert_accounts(transaction, prng, 100)?;
    insert_document(transaction, prng)?;
    transaction.execute_batch("ROLLBACK TO undone; RELEASE undone; SAVEPOINT kept")?;
    update_accounts(transaction, prng)?;
    transaction.execute_batch("RELEASE kept")
}

fn checkpoint(connection: &Connection, prng: &mut Prng) -> rusqlite::Result<Step> {
    let mode = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][prng.below(4) as usize];
    let patience: u32 = connection.pragma_query_value(None, "busy_timeout", |row| row.get(0))?;
    // A reader that stays would hold up every mode but PASSIVE for the whole busy timeout.
    connection.execute_batch("PRAGMA busy_timeout = 100")?;
    let result = connection.execute_batch(&format!("PRAGMA wal_checkpoint({mode})"));
    connection.execute_batch(&format!("PRAGMA busy_timeout = {patience}"))?;
    result.map(|()| Step::Unchanged)
}
