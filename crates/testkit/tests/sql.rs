//! The application that runs the SQL it is told to, with both libraries.

use walrust_testkit::{SqlProcess, SqliteLibrary, sidecar};

const LIBRARIES: [SqliteLibrary; 2] = [SqliteLibrary::Bundled, SqliteLibrary::System];

#[test]
fn rows_and_errors_come_back() {
    for library in LIBRARIES {
        let directory = tempfile::tempdir().unwrap();
        let mut application = SqlProcess::open(library, &directory.path().join("a.db"));
        assert!(application.run("CREATE TABLE t (a, b)").is_empty());
        application.run("INSERT INTO t VALUES (1, 'one'), (-2, NULL)");
        assert_eq!(application.run("SELECT * FROM t"), [["1", "one"], ["-2", "None"]]);
        assert_eq!(application.numbers("SELECT sum(a), count(*) FROM t"), [-1, 2]);
        let error = application.try_run("SELECT * FROM missing").unwrap_err();
        assert!(error.contains("no such table: missing"), "{library:?}: {error}");
        application.close();
    }
}

#[test]
fn locks_are_not_waited_for_and_go_with_the_process() {
    for library in LIBRARIES {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        let mut first = SqlProcess::open(library, &path);
        assert_eq!(first.run("PRAGMA journal_mode = WAL"), [["wal"]]);
        first.run("CREATE TABLE t (a)");
        first.run("BEGIN IMMEDIATE");
        let mut second = SqlProcess::open(library, &path);
        let error = second.try_run("INSERT INTO t VALUES (1)").unwrap_err();
        assert!(error.contains("database is locked"), "{library:?}: {error}");
        first.kill();
        second.run("INSERT INTO t VALUES (1)");
        second.close();
        assert!(!sidecar(&path, "-wal").exists(), "the last close deletes the WAL");
    }
}
