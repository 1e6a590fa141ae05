//! `restore`: what it says, what it replaces, and what it leaves alone.

use std::fs;
use std::path::Path;

use walrust_testkit::{assert_same_database, connect, image, sidecar};

use crate::small_history::{HEAD, NAME, SmallHistory, assert_empty};
use crate::walrust::names_in;

#[test]
fn the_plan_names_each_file_and_fetches_none() {
    let history = SmallHistory::new();
    // A plan is made from the listing: damage in the files is not its business.
    history.storage.write(&history.key(6, 6), b"no LTX file", &Default::default());
    let files = [history.key(1, 4), history.key(5, 5), history.key(6, 6)];

    let text = history.walrust.run(["restore", NAME, "--plan"]).succeeded().stdout;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 1 + files.len(), "{text}");
    assert!(lines[0].contains("TXID 0000000000000006"), "{text}");
    for (line, file) in lines[1..].iter().zip(&files) {
        assert!(line.contains(file.as_str()), "{text}");
    }
    assert!(lines[1].contains("snapshot") && lines[2].contains("continues"), "{text}");

    let plan = history.walrust.run(["restore", NAME, "--plan", "--json"]).succeeded().json();
    assert_eq!(plan["txid"], "0000000000000006");
    assert_eq!(plan["layout"], "walrust");
    let planned = plan["files"].as_array().unwrap();
    assert!(planned.iter().map(|file| &file["key"]).eq(files.iter()), "{plan:#}");
    let sizes: u64 = planned.iter().map(|file| file["size"].as_u64().unwrap()).sum();
    assert_eq!(plan["size"], sizes);
    assert_empty(&history.walrust.file(""));
}

#[test]
fn the_plan_of_a_txid_begins_at_the_newest_snapshot_before_it() {
    let history = SmallHistory::new();
    let plan = ["restore", NAME, "--plan", "--json", "--txid", "3"];
    let plan = history.walrust.run(plan).succeeded().json();
    let files = [history.key(1, 1), history.key(2, 2), history.key(3, 3)];
    let planned = plan["files"].as_array().unwrap();
    assert!(planned.iter().map(|file| &file["key"]).eq(files.iter()), "{plan:#}");
}

#[test]
fn c11_the_result_says_what_was_restored() {
    let history = SmallHistory::new();
    let output = history.walrust.file("out.db");
    let text = history.walrust.restore(NAME, &output, &[]).succeeded().stdout;
    for phrase in ["restored app", &output.display().to_string(), "TXID 0000000000000006"] {
        assert!(text.contains(phrase), "{phrase} in {text}");
    }
    let second = history.walrust.file("second.db");
    let result = history.walrust.restore(NAME, &second, &["--json"]).succeeded().json();
    assert_eq!(result["txid"], "0000000000000006");
    assert_eq!(result["output"], second.display().to_string());
    let size = result["page_size"].as_u64().unwrap() * result["page_count"].as_u64().unwrap();
    assert_eq!(fs::metadata(&second).unwrap().len(), size);
    assert_eq!(names_in(&history.walrust.file("")), ["out.db", "second.db"]);
    assert_same_database(&history.source, &second);
}

#[test]
fn every_integrity_check_passes_a_sound_database() {
    let history = SmallHistory::new();
    for check in ["quick", "full", "none"] {
        let output = history.walrust.restored(NAME, &["--integrity-check", check]);
        assert_same_database(&history.source, &output);
    }
    let outcome = history.walrust.run(["restore", NAME, "--plan", "--integrity-check", "some"]);
    outcome.failed(2, &["quick", "full", "none"]);
}

#[test]
fn c11_the_restored_database_is_in_wal_mode() {
    let history = SmallHistory::new();
    let output = history.walrust.restored(NAME, &[]);
    let header = fs::read(&output).unwrap();
    assert_eq!(header[18..20], [2, 2], "read and write version of a database in WAL mode");
    let connection = rusqlite::Connection::open(&output).unwrap();
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    connection.execute_batch("INSERT INTO t (x) VALUES ('goes on')").unwrap();
}

#[test]
fn c14_the_directories_above_the_output_are_made() {
    let history = SmallHistory::new();
    let output = history.walrust.file("not/there/yet/out.db");
    history.walrust.restore(NAME, &output, &[]).succeeded();
    assert_same_database(&history.source, &output);
    assert_eq!(names_in(output.parent().unwrap()), ["out.db"]);
}

/// A database in use, with a WAL that SQLite would replay into anything of its name.
fn another_database(path: &Path) {
    let connection = connect(path, 512);
    connection
        .execute_batch("CREATE TABLE other (y); INSERT INTO other VALUES (1);")
        .expect("a new database");
    let wal = fs::read(sidecar(path, "-wal")).expect("the database is open");
    drop(connection);
    fs::write(sidecar(path, "-wal"), wal).expect("the directory is writable");
    fs::write(sidecar(path, "-shm"), "stale").expect("the directory is writable");
}

#[test]
fn c03_an_output_that_exists_is_left_alone() {
    let history = SmallHistory::new();
    let output = history.walrust.file("out.db");
    fs::write(&output, "precious").unwrap();
    let outcome = history.walrust.restore(NAME, &output, &[]);
    outcome.failed(6, &["out.db", "exists", "--force"]);
    assert_eq!(fs::read(&output).unwrap(), b"precious");
    assert_eq!(history.walrust.files(), ["out.db"]);
}

#[test]
fn c01_a_stale_wal_beside_the_output_is_in_the_way_too() {
    let history = SmallHistory::new();
    let output = history.walrust.file("out.db");
    for suffix in ["-wal", "-shm", "-journal"] {
        let stale = sidecar(&output, suffix);
        fs::write(&stale, "stale").unwrap();
        let outcome = history.walrust.restore(NAME, &output, &[]);
        outcome.failed(6, &[&stale.display().to_string(), "--force"]);
        assert_eq!(history.walrust.files().len(), 1);
        fs::remove_file(stale).unwrap();
    }
}

#[test]
fn c01_force_replaces_the_output_and_what_sqlite_would_replay_into_it() {
    let history = SmallHistory::new();
    let output = history.walrust.file("out.db");
    another_database(&output);
    fs::write(sidecar(&output, "-journal"), "stale").unwrap();
    history.walrust.restore(NAME, &output, &["--force"]).succeeded();
    assert_eq!(history.walrust.files(), ["out.db"]);
    assert_same_database(&history.source, &output);
}

#[test]
fn c03_a_restore_that_fails_keeps_what_force_would_have_replaced() {
    let history = SmallHistory::new();
    let output = history.walrust.file("out.db");
    another_database(&output);
    let before = (image(&output), history.walrust.files());
    // The last file fails: everything before it was fetched and written already.
    let mut bytes = history.bytes(&history.key(6, 6)).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    history.storage.write(&history.key(6, 6), &bytes, &Default::default());
    let outcome = history.walrust.restore(NAME, &output, &["--force"]);
    outcome.failed(5, &[&history.key(6, 6)]);
    assert!(before == (image(&output), history.walrust.files()));
}

#[test]
fn c02_a_txid_that_is_no_state_names_its_neighbours() {
    let history = SmallHistory::new();
    let newest = format!("{HEAD:016x}");
    let beyond = history.restore_fails(&["--txid", "7"]);
    beyond.failed(6, &["7", "the newest", &newest]);

    for txid in [4, 5] {
        history.storage.delete(&history.key(txid, txid));
    }
    history.storage.delete(&history.key(1, 4));
    let middle = history.restore_fails(&["--txid", "0000000000000005"]);
    middle.failed(6, &["0000000000000005", "0000000000000003"]);
    let zero = history.walrust.run(["restore", NAME, "--plan", "--txid", "0"]);
    zero.failed(2, &["TXID", "at least 1"]);
}

#[test]
fn a_name_that_is_unknown_is_told_with_the_way_to_the_names() {
    let history = SmallHistory::new();
    let outcome = history.walrust.restore("ap", &history.walrust.file("out.db"), &[]);
    outcome.failed(6, &["\"ap\"", "walrust list"]);
    assert_eq!(history.walrust.files(), [""; 0]);
}

#[test]
fn an_output_that_is_a_directory_is_left_alone() {
    let history = SmallHistory::new();
    let output = history.walrust.file("folder");
    fs::create_dir(&output).unwrap();
    for more in [&[][..], &["--force"]] {
        history.walrust.restore(NAME, &output, more).failed(6, &["folder", "is a directory"]);
    }
    assert_empty(&output);
}
