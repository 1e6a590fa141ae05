//! Mistakes of a user: each has its exit code and a sentence that helps.

use std::fs;
use std::path::{Path, PathBuf};

use walrust_testkit::{TestDatabase, WriterOptions, WriterProcess, assert_same_database};

use crate::small_history::{NAME, SmallHistory};
use crate::storage::Storage;
use crate::walrust::Walrust;

/// A database that can be replicated, and nobody who has it open.
fn sound_database(directory: &Path) -> PathBuf {
    let (_directory, source) = TestDatabase::with_history(1024, 1, 10).close();
    let path = directory.join("app.db");
    fs::copy(source, &path).expect("nobody has it open");
    path
}

/// Asserts what `watch` and `snapshot` say to a database that cannot be replicated.
#[track_caller]
fn refused(path: &Path, phrases: &[&str]) {
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let shown = path.display().to_string();
    let phrases = [&[shown.as_str()], phrases].concat();
    walrust.run(["watch".as_ref(), path.as_os_str()]).failed(3, &phrases);
    walrust.snapshot(path, &["--json"]).failed(3, &phrases);
    assert_eq!(storage.keys(""), [""; 0]);
}

#[test]
fn a_database_that_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    refused(&directory.path().join("app.db"), &["no such file"]);
    assert!(!directory.path().join("app.db").exists(), "and it is not created");
}

#[test]
fn a_directory_instead_of_a_database() {
    let directory = tempfile::tempdir().unwrap();
    refused(directory.path(), &["not a regular file"]);
}

#[test]
fn a_file_that_is_no_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    for bytes in [b"a short text".to_vec(), b"a long text ".repeat(1000)] {
        fs::write(&path, &bytes).unwrap();
        refused(&path, &["not a SQLite database"]);
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn an_empty_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    fs::write(&path, "").unwrap();
    refused(&path, &["empty", "journal_mode=WAL"]);
}

#[test]
fn a_database_without_a_wal() {
    let directory = tempfile::tempdir().unwrap();
    let path = sound_database(directory.path());
    let application = rusqlite::Connection::open(&path).unwrap();
    application.pragma_update(None, "journal_mode", "DELETE").unwrap();
    drop(application);
    let before = fs::read(&path).unwrap();
    refused(&path, &["not in WAL mode", "PRAGMA journal_mode=WAL"]);
    assert!(before == fs::read(&path).unwrap(), "walrust never changes the mode");
}

#[test]
fn one_bad_database_does_not_stop_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let source = sound_database(directory.path());
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let missing = directory.path().join("missing.db");
    let mut daemon = walrust.watch(&[&missing, &source]);
    daemon.wait_for_line(&["missing", "no such file"]);
    storage.wait_for_txid(&mut daemon, "app", 1);
    WriterProcess::spawn(&source, &WriterOptions { commits: Some(5), ..Default::default() })
        .finish();
    storage.wait_for_txid(&mut daemon, "app", 2);
    daemon.terminate().failed(1, &["missing"]);
    assert_same_database(&source, &walrust.restored("app", &[]));
}

#[test]
fn an_output_that_cannot_be_written() {
    let history = SmallHistory::new();
    let file = history.walrust.file("file");
    fs::write(&file, "in the way").unwrap();
    let outcome = history.walrust.restore(NAME, &file.join("out.db"), &[]);
    outcome.failed(1, &["/file", "cannot create the directory"]);
    assert_eq!(history.walrust.files(), ["file"]);
}

#[test]
fn a_name_that_is_unknown() {
    let history = SmallHistory::new();
    let walrust = &history.walrust;
    walrust.run(["list", "other"]).failed(6, &["\"other\"", "walrust list"]);
    walrust.run(["restore", "other", "--plan"]).failed(6, &["\"other\"", "walrust list"]);
}

/// Asserts what the commands that use storage say when it cannot be used.
#[track_caller]
fn storage_refused(walrust: &Walrust, source: &Path, phrases: &[&str]) {
    let output = walrust.file("out.db");
    walrust.restore("app", &output, &[]).failed(4, phrases);
    walrust.run(["list"]).failed(4, phrases);
    walrust.run(["list", "app", "--json"]).failed(4, phrases);
    walrust.snapshot(source, &[]).failed(4, phrases);
    assert_eq!(walrust.files(), [""; 0]);
}

#[test]
fn a_bucket_that_does_not_exist() {
    let directory = tempfile::tempdir().unwrap();
    let source = sound_database(directory.path());
    let mut walrust = Walrust::with_access_to(&Storage::s3());
    walrust.set_bucket("s3://no-such-bucket/prefix");
    let phrases = ["no-such-bucket", "NoSuchBucket"];
    storage_refused(&walrust, &source, &phrases);
    walrust.run(["watch".as_ref(), source.as_os_str()]).failed(4, &phrases);
}

#[test]
fn a_secret_key_that_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let source = sound_database(directory.path());
    let mut walrust = Walrust::on(&Storage::s3());
    walrust.set("AWS_SECRET_ACCESS_KEY", "not-the-secret");
    let phrases = ["SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"];
    storage_refused(&walrust, &source, &phrases);
    let outcome = walrust.run(["watch".as_ref(), source.as_os_str()]);
    assert!(!outcome.stderr.contains("not-the-secret"), "a secret is never shown");
    outcome.failed(4, &phrases);
}

#[test]
fn no_credentials_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let source = sound_database(directory.path());
    let mut walrust = Walrust::on(&Storage::s3());
    walrust.set("AWS_ACCESS_KEY_ID", "");
    walrust.set("AWS_SECRET_ACCESS_KEY", "");
    storage_refused(&walrust, &source, &["credentials"]);
}

#[test]
fn a_server_that_refuses_connections() {
    let directory = tempfile::tempdir().unwrap();
    let source = sound_database(directory.path());
    let mut walrust = Walrust::on(&Storage::s3());
    // Nothing listens on the first of all ports.
    walrust.set("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1");
    storage_refused(&walrust, &source, &["127.0.0.1:1"]);

    let mut daemon = walrust.watch(&[&source]);
    daemon.wait_for_line(&["WARN", "storage cannot be reached", "127.0.0.1:1"]);
    // Trying again is what it does then.
    daemon.wait_for_line(&["retrying"]);
    daemon.assert_running();
    let outcome = daemon.terminate();
    outcome.failed(1, &["app"]);
}

#[test]
fn a_configuration_key_that_does_not_exist() {
    let walrust = Walrust::on(&Storage::directory());
    let cases = [
        ("[sync]\nwal_sync_intervall = 1\n", "wal_sync_interval"),
        ("[s3]\nbuckets = \"b\"\n", "bucket"),
        ("[retry]\nmax_retry = 1\n", "max_retries"),
        ("[snyc]\n", "sync"),
        ("[[databases]]\npath = \"/a.db\"\nprefiks = \"b\"\n", "prefix"),
    ];
    for (text, meant) in cases {
        walrust.configure(text);
        let hint = format!("did you mean `{meant}`?");
        walrust.run(["list"]).failed(2, &["walrust.toml", "unknown key", &hint]);
    }
}

#[test]
fn a_configuration_value_that_makes_no_sense() {
    let walrust = Walrust::on(&Storage::directory());
    let cases = [
        ("[sync]\nwal_sync_interval = \"soon\"\n", "wal_sync_interval"),
        ("[sync]\ncheckpoint_interval = -1\n", "checkpoint_interval"),
        ("[sync]\nmin_checkpoint_page_count = \"many\"\n", "min_checkpoint_page_count"),
        ("[s3]\nbucket = 7\n", "bucket"),
        ("[[databases]]\nprefix = \"b\"\n", "path"),
        ("[sync\n", "walrust.toml"),
    ];
    for (text, phrase) in cases {
        walrust.configure(text);
        walrust.run(["list"]).failed(2, &["walrust.toml", phrase]);
    }
    walrust.run(["list", "--config", "missing.toml"]).failed(2, &["missing.toml", "no such"]);
}

#[test]
fn arguments_that_do_not_exist_or_are_missing() {
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    walrust.run(["list", "--jason"]).failed(2, &["--jason", "--json"]);
    walrust.run(["lists"]).failed(2, &["lists", "list"]);
    walrust.run(["restore", "app"]).failed(2, &["--output"]);
    walrust.run(["watch"]).failed(2, &["no databases given", "[[databases]]"]);
    walrust.run(["watch", "a.db", "--wal-sync-interval", "soon"]).failed(2, &["soon", "30s"]);

    let walrust = Walrust::alone();
    for command in [&["list"][..], &["restore", "app", "--plan"], &["restore", "a", "-o", "b.db"]] {
        walrust.run(command).failed(2, &["no storage given", "-b URL", "[s3]"]);
    }
    assert_eq!(Walrust::alone().run([""; 0]).code, Some(2), "no command at all");
}

#[test]
fn a_storage_url_that_makes_no_sense() {
    for url in ["http://host/bucket", "s3://", "file://relative", "ftp://x", ""] {
        let mut walrust = Walrust::alone();
        walrust.set_bucket(url);
        walrust.run(["list"]).failed(2, &["s3://"]);
    }
    let mut walrust = Walrust::alone();
    walrust.set_bucket("s3://bucket");
    let outcome = walrust.run(["list", "--endpoint", "localhost:9000"]);
    outcome.failed(2, &["localhost:9000", "http://"]);
}
