//! The oracle: what a database holds, page for page and row for row.
//!
//! Invariant: looking at a database leaves it alone. Its files are copied by another process,
//! because closing any descriptor of a database file drops all POSIX locks that this process holds
//! on it, also those of SQLite connections that are still open.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use walrust_wal::DatabaseHeader;

use crate::{sidecar, wait_for};

/// How long a busy database may take to hold still for two copies.
const STABLE_WITHIN: Duration = Duration::from_secs(20);

/// The database file as it would be after a full checkpoint.
///
/// Nobody may write for the moment that two copies take; a writer that pauses now and then is
/// waited for.
///
/// # Panics
/// If the database cannot be read, never holds still, or SQLite cannot open the copy.
#[must_use]
pub fn image(database: &Path) -> Vec<u8> {
    let (_directory, path) = checkpointed_copy(database);
    read(&path)
}

/// Asserts that two databases are equal page for page and row for row, and that SQLite finds no
/// fault in the second.
///
/// # Panics
/// If they are not, with the first pages and rows that differ.
#[track_caller]
pub fn assert_same_database(source: &Path, restored: &Path) {
    let (_source_directory, source_copy) = checkpointed_copy(source);
    let (_restored_directory, restored_copy) = checkpointed_copy(restored);
    let pages = differing_pages(&read(&source_copy), &read(&restored_copy));
    let rows = differing_rows(&dump_file(&source_copy), &dump_file(&restored_copy));
    assert!(
        pages.is_none() && rows.is_none(),
        "{} is not the same database as {}: {}; {}",
        restored.display(),
        source.display(),
        pages.unwrap_or_else(|| "the pages are equal".to_owned()),
        rows.unwrap_or_else(|| "the rows are equal".to_owned()),
    );
    check_file(&restored_copy, restored);
}

/// Asserts that two databases hold the same schema and rows, however their pages lie.
///
/// # Panics
/// If they do not, with the first rows that differ.
#[track_caller]
pub fn assert_same_content(source: &Path, restored: &Path) {
    if let Some(rows) = differing_rows(&dump(source), &dump(restored)) {
        panic!("{} does not hold what {} holds: {rows}", restored.display(), source.display());
    }
}

/// Asserts that SQLite finds no fault in a database.
///
/// # Panics
/// With the report of `PRAGMA integrity_check`.
#[track_caller]
pub fn check_integrity(database: &Path) {
    let (_directory, path) = checkpointed_copy(database);
    check_file(&path, database);
}

/// Schema and rows of a database, one line each, in an order that does not depend on its pages.
///
/// # Panics
/// If the database cannot be read.
#[must_use]
pub fn dump(database: &Path) -> Vec<String> {
    let (_directory, path) = checkpointed_copy(database);
    dump_file(&path)
}

/// Copies a database and runs a full checkpoint on the copy.
fn checkpointed_copy(database: &Path) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("copy.db");
    let again = directory.path().join("again.db");
    wait_for(STABLE_WITHIN, &format!("{} holds still", database.display()), || {
        // Two equal copies in a row: nothing changed from the end of the first to the second.
        copy(database, &path) && copy(database, &again) && same_files(&path, &again)
    });
    let connection = Connection::open(&path).expect("a connection to the copy");
    let busy = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, u32>(0))
        .unwrap_or_else(|error| panic!("cannot open a copy of {}: {error}", database.display()));
    assert_eq!(busy, 0, "nobody else has the copy open");
    drop(connection);
    (directory, path)
}

/// Copies the database and its WAL; `false` if the WAL vanished on the way.
fn copy(from: &Path, to: &Path) -> bool {
    assert!(from.is_file(), "{}: no such database", from.display());
    let run = |from: &Path, to: &Path| {
        let output = Command::new("cp").arg("--").arg(from).arg(to).output();
        output.expect("cp is part of every Unix").status.success()
    };
    let (wal, wal_copy) = (sidecar(from, "-wal"), sidecar(to, "-wal"));
    if wal_copy.exists() {
        fs::remove_file(&wal_copy).expect("the copy belongs to this process");
    }
    run(from, to) && (!wal.exists() || run(&wal, &wal_copy))
}

fn same_files(one: &Path, other: &Path) -> bool {
    let wal = |path: &Path| fs::read(sidecar(path, "-wal")).ok();
    read(one) == read(other) && wal(one) == wal(other)
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

fn differing_pages(source: &[u8], restored: &[u8]) -> Option<String> {
    const SHOWN: usize = 10;
    if source == restored {
        return None;
    }
    let page_size = DatabaseHeader::parse(source).map_or(4096, |header| header.page_size as usize);
    let differing: Vec<usize> = (source.chunks(page_size).zip(restored.chunks(page_size)))
        .enumerate()
        .filter_map(|(index, (source, restored))| (source != restored).then_some(index + 1))
        .collect();
    Some(format!(
        "{} pages instead of {}, {} of the common pages differ, first {:?}",
        restored.len() / page_size,
        source.len() / page_size,
        differing.len(),
        &differing[..differing.len().min(SHOWN)],
    ))
}

fn differing_rows(source: &[String], restored: &[String]) -> Option<String> {
    const SHOWN: usize = 300;
    if source == restored {
        return None;
    }
    let differs = |index: &usize| source.get(*index) != restored.get(*index);
    let first = (0..source.len().max(restored.len())).find(differs)?;
    let show = |rows: &[String]| -> String {
        rows.get(first).map_or("nothing".to_owned(), |row| row.chars().take(SHOWN).collect())
    };
    Some(format!(
        "{} rows instead of {}, the first difference is {} instead of {}",
        restored.len(),
        source.len(),
        show(restored),
        show(source),
    ))
}

fn open_read_only(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()))
}

fn check_file(copy: &Path, database: &Path) {
    let report: String = open_read_only(copy)
        .query_row("PRAGMA integrity_check(5)", [], |row| row.get(0))
        .unwrap_or_else(|error| panic!("cannot check {}: {error}", database.display()));
    assert_eq!(report, "ok", "integrity check of {}", database.display());
}

fn dump_file(path: &Path) -> Vec<String> {
    dump_connection(&open_read_only(path))
        .unwrap_or_else(|error| panic!("cannot dump {}: {error}", path.display()))
}

/// Schema and rows as [`dump`] tells them, of a database that this process has open.
///
/// # Errors
/// SQLite's.
pub fn dump_connection(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut lines = rows(connection, "sqlite_schema", "type, name, tbl_name, sql")?;
    let mut tables =
        connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let tables: Vec<String> =
        tables.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    for table in tables {
        lines.extend(rows(connection, &table, "*")?);
    }
    Ok(lines)
}

fn rows(connection: &Connection, table: &str, columns: &str) -> rusqlite::Result<Vec<String>> {
    let quoted = table.replace('"', "\"\"");
    let sql = format!("SELECT {columns} FROM \"{quoted}\"");
    let width = connection.prepare(&sql)?.column_count();
    let order: Vec<String> = (1..=width).map(|column| column.to_string()).collect();
    let mut statement = connection.prepare(&format!("{sql} ORDER BY {}", order.join(", ")))?;
    let lines = statement.query_map([], |row| {
        let mut line = table.to_owned();
        for column in 0..width {
            write!(line, " | {:?}", row.get_ref(column)?).expect("a String takes all text");
        }
        Ok(line)
    })?;
    lines.collect()
}
