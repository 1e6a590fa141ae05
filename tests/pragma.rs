//! `pragma`: what it prints is SQL that does what it says.

use std::fs;

use rusqlite::Connection;
use rusqlite::types::Value;

use crate::walrust::Walrust;

#[test]
fn what_it_prints_is_sql_that_makes_a_database_ready() {
    let walrust = Walrust::alone();
    let sql = walrust.run(["pragma"]).succeeded().stdout;
    assert!(sql.contains("-- "), "it explains itself: {sql}");
    let path = walrust.file("app.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(&sql).unwrap();
    let value = |pragma: &str| -> String {
        let sql = format!("PRAGMA {pragma}");
        let value = connection.query_row(&sql, [], |row| row.get::<_, Value>(0)).unwrap();
        match value {
            Value::Integer(number) => number.to_string(),
            Value::Text(text) => text,
            other => panic!("{pragma} is {other:?}"),
        }
    };
    assert_eq!(value("journal_mode"), "wal");
    assert_eq!(value("synchronous"), "1");
    assert_eq!(value("foreign_keys"), "1");
    assert_eq!(value("wal_autocheckpoint"), "1000");
    connection.execute_batch("CREATE TABLE t (x)").unwrap();

    let storage = crate::storage::Storage::directory();
    Walrust::on(&storage).snapshot(&path, &[]).succeeded();
}

#[test]
fn it_writes_to_a_file_without_comments() {
    let walrust = Walrust::alone();
    let arguments = ["pragma", "--comments", "false", "-o", "pragmas.sql"];
    assert_eq!(walrust.run(arguments).succeeded().stdout, "");
    let sql = fs::read_to_string(walrust.file("pragmas.sql")).unwrap();
    assert!(!sql.contains("--"), "{sql}");
    assert!(sql.lines().all(|line| line.starts_with("PRAGMA ") && line.ends_with(';')), "{sql}");
    assert_eq!(walrust.run(["pragma", "--comments", "false"]).succeeded().stdout, sql);
    Connection::open_in_memory().unwrap().execute_batch(&sql).unwrap();
    walrust.run(["pragma", "-o", "not/there.sql"]).failed(1, &["not/there.sql"]);
}

#[test]
fn it_speaks_json() {
    let result = Walrust::alone().run(["pragma", "--json"]).succeeded().json();
    let pragmas = result["pragmas"].as_array().unwrap();
    assert!(pragmas.iter().any(|it| it["pragma"] == "journal_mode" && it["value"] == "WAL"));
    assert!(pragmas.iter().all(|it| it["why"].is_string()), "{result:#}");
}
