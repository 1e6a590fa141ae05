//! Databases that come, go and come back while a daemon follows them, and what becomes of their names.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::daemon::Daemon;
use crate::host::{Host, all_stored};
use crate::walrust::{QUICK, names_in};

/// Starts a daemon that follows all databases named `app.db`.
fn watch(host: &Host) -> Daemon {
    let pattern = host.path("*/app.db").display().to_string();
    host.walrust.watch_with([&[pattern.as_str()][..], &QUICK].concat())
}

/// The state directories of a host whose local state is beside the databases, or in one directory.
fn states(host: &Host, apart: bool) -> Vec<PathBuf> {
    let parents = match apart {
        true => vec![host.path("state")],
        false => vec![host.path("smiths"), host.path("romneys")],
    };
    let entries = parents.iter().filter_map(|parent| fs::read_dir(parent).ok()).flatten();
    let paths = entries.map(|entry| entry.expect("an entry of the directory").path());
    let mut states: Vec<_> = paths.filter(|path| path.is_dir()).collect();
    states.sort();
    states
}

/// Has a host keep its local state where it is wanted, for as long as by default.
fn keep_state(host: &Host, apart: bool) {
    let state = host.path("state");
    let dir = if apart { format!("[state]\ndir = {state:?}\n") } else { String::new() };
    host.walrust.configure(&dir);
}

/// Deletes a database with its WAL.
fn delete(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let path = walrust_testkit::sidecar(path, suffix);
        if path.exists() {
            fs::remove_file(path).expect("nobody holds the directory");
        }
    }
}

/// Puts the clock back by which a database has been gone, by some days.
fn gone_for_days(state: &Path, days: u64) {
    let record = state.join("database");
    let bytes = fs::read(&record).expect("the record is there");
    let mut owner: Value = serde_json::from_slice(&bytes).expect("the record is JSON");
    let since = owner["gone_since"].as_u64().expect("it was noted that it is gone");
    owner["gone_since"] = (since - days * 86_400).into();
    fs::write(&record, owner.to_string()).expect("it is writable");
}

fn is_noted_as_gone(state: &Path) -> bool {
    let owner = fs::read(state.join("database")).unwrap_or_default();
    String::from_utf8_lossy(&owner).contains("\"gone_since\": 1")
}

#[test]
fn d07_local_state_of_a_deleted_tenant_goes_after_a_while_and_its_name_waits_until_then() {
    for apart in [false, true] {
        let host = Host::new();
        keep_state(&host, apart);
        let smiths = host.create("smiths/app.db");
        let mut daemon = watch(&host);
        host.wait_until(&mut daemon, "smiths are stored", |it| it.len() == 1 && all_stored(it));
        daemon.stop();
        let state = states(&host, apart).remove(0);
        // While nobody watches one goes and another comes.
        delete(&smiths);
        host.create("romneys/app.db");
        let mut daemon = watch(&host);
        host.wait_until(&mut daemon, "romneys are stored", |it| it.len() == 1 && all_stored(it));
        assert_eq!(names(&host), ["romneys/app"]);
        daemon.wait_until("it is noted", |_| is_noted_as_gone(&state));
        daemon.stop();
        gone_for_days(&state, 6);
        let mut daemon = watch(&host);
        host.wait_until(&mut daemon, "romneys are stored", |it| it.len() == 1 && all_stored(it));
        daemon.stop();
        assert!(state.join("position.json").exists(), "not yet");
        gone_for_days(&state, 1);
        let mut daemon = watch(&host);
        daemon.wait_for_line(&["removed the local state", "smiths/app.db"]);
        assert!(!state.exists());
        assert_eq!(states(&host, apart).len(), 1, "that of romneys");
        daemon.stop();
    }
}

#[test]
fn d07_local_state_with_files_that_storage_may_not_have_stays() {
    let host = Host::new();
    keep_state(&host, false);
    let smiths = host.create("smiths/app.db");
    let mut daemon = watch(&host);
    host.wait_until(&mut daemon, "smiths are stored", |it| it.len() == 1 && all_stored(it));
    daemon.stop();
    let state = states(&host, false).remove(0);
    let staged = state.join("staging/0000000000000002-0000000000000002.ltx");
    fs::write(&staged, "the only copy").unwrap();
    delete(&smiths);
    let mut daemon = watch(&host);
    daemon.wait_until("it is noted", |_| is_noted_as_gone(&state));
    daemon.stop();
    gone_for_days(&state, 100);
    let mut daemon = watch(&host);
    daemon.wait_for_line(&["WARN", "smiths/app.db", "may not be in storage"]);
    assert!(staged.exists() && state.join("name").exists());
    daemon.stop();
}

#[test]
fn what_a_deleted_tenant_left_behind_can_be_stored_by_hand_and_restored() {
    let host = Host::new();
    let smiths = host.create("smiths/app.db");
    let mut daemon = watch(&host);
    host.wait_until(&mut daemon, "smiths are stored", |it| it.len() == 1 && all_stored(it));
    let name = names(&host).remove(0);
    let bucket = PathBuf::from(host.storage.url().strip_prefix("file://").unwrap());
    let aside = bucket.with_extension("aside");
    daemon.while_suspended(|| {
        fs::rename(&bucket, &aside).unwrap();
        fs::write(&bucket, "a file where the directory was").unwrap();
    });
    let connection = rusqlite::Connection::open(&smiths).unwrap();
    connection.execute_batch("INSERT INTO t VALUES ('the last commit')").unwrap();
    host.wait_until(&mut daemon, "it is staged", |it| it[&name]["staged_files"] == 1);
    daemon.kill();
    drop(connection);
    let state = states(&host, false).remove(0);
    delete(&smiths);
    fs::remove_file(&bucket).unwrap();
    fs::rename(&aside, &bucket).unwrap();
    let mut daemon = watch(&host);
    daemon.wait_until("it is noted", |_| is_noted_as_gone(&state));
    daemon.stop();
    gone_for_days(&state, 100);
    let mut daemon = watch(&host);
    daemon.wait_for_line(&["WARN", "smiths/app.db", "copy the .ltx files", "staging"]);
    for file in names_in(&state.join("staging")).iter().filter(|file| file.ends_with(".ltx")) {
        fs::copy(state.join("staging").join(file), bucket.join(&name).join(file)).unwrap();
    }
    let restored = host.walrust.restored(&name, &[]);
    let restored = rusqlite::Connection::open(restored).unwrap();
    let last = restored.query_row("SELECT x FROM t ORDER BY rowid DESC LIMIT 1", [], |row| {
        row.get::<_, String>(0)
    });
    assert_eq!(last.unwrap(), "the last commit");
    daemon.stop();
}

#[test]
fn d07_local_state_stays_if_it_is_to_stay_for_ever_or_an_entry_names_the_database() {
    let host = Host::new();
    let smiths = host.create("smiths/app.db");
    let romneys = host.create("romneys/app.db");
    let named = host.create("named.db");
    let pattern = host.path("*/app.db");
    let configure = |keep: &str| {
        host.walrust.configure(&format!(
            "[sync]\nwal_sync_interval = \"20ms\"\n[state]\nkeep_deleted = \"{keep}\"\n\
             [[databases]]\npath = {pattern:?}\n[[databases]]\npath = {named:?}\n"
        ));
    };
    configure("1m");
    let mut daemon = host.walrust.watch_with([""; 0]);
    host.wait_until(&mut daemon, "all are stored", |it| it.len() == 3 && all_stored(it));
    daemon.stop();
    let state = host.path("smiths/.app.db-walrust");
    let of_named = named.with_file_name(".named.db-walrust");
    delete(&smiths);
    delete(&named);
    let mut daemon = host.walrust.watch_with([""; 0]);
    daemon.wait_until("it is noted", |_| is_noted_as_gone(&state));
    daemon.terminate();
    assert!(!is_noted_as_gone(&of_named));
    gone_for_days(&state, 1);
    configure("0");
    let mut daemon = host.walrust.watch_with([""; 0]);
    daemon.wait_for_line(&["replicating"]);
    // Before the second look finds it, the first has looked at local state.
    host.create("later/app.db");
    host.wait_until(&mut daemon, "a later one is stored", |it| {
        it.get("later/app").is_some_and(|it| it["up_to_date"] == true)
    });
    assert!(state.join("name").exists() && of_named.join("name").exists());
    daemon.terminate();
    configure("1m");
    let mut daemon = host.walrust.watch_with([""; 0]);
    daemon.wait_until("it is removed", |_| !state.exists());
    assert!(of_named.join("name").exists() && romneys.with_file_name(".app.db-walrust").exists());
    daemon.terminate();
}

fn names(host: &Host) -> Vec<String> {
    host.databases().into_keys().collect()
}

#[test]
fn d06_the_name_of_a_tenant_that_is_away_waits_for_it() {
    let host = Host::new();
    let smiths = host.create("smiths/app.db");
    let mut daemon = watch(&host);
    host.wait_until(&mut daemon, "smiths are stored", |it| {
        it.contains_key("app") && all_stored(it)
    });
    fs::rename(host.path("smiths"), host.path("away")).unwrap();
    fs::rename(host.path("away/app.db"), host.path("away/other.db")).unwrap();
    host.wait_until(&mut daemon, "smiths are retired", |it| it.is_empty());
    let romneys = host.create("romneys/app.db");
    host.wait_until(&mut daemon, "romneys are stored", |it| it.len() == 1 && all_stored(it));
    assert_eq!(names(&host), ["romneys/app"]);
    fs::rename(host.path("away/other.db"), host.path("away/app.db")).unwrap();
    fs::rename(host.path("away"), host.path("smiths")).unwrap();
    host.wait_until(&mut daemon, "both are stored", |it| it.len() == 2 && all_stored(it));
    assert_eq!(names(&host), ["app", "romneys/app"]);
    daemon.stop();
    host.assert_restorable("app", &smiths);
    host.assert_restorable("romneys/app", &romneys);
}

/// Starts a daemon that may have so many files open, with a configuration that it finds.
fn watch_with_files(host: &Host, files: u32) -> Daemon {
    let watch = host.walrust.command(["watch"]);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]);
    command.arg(watch.get_program()).args(watch.get_args()).env_clear();
    command.envs(watch.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(watch.get_current_dir().expect("a working directory"));
    Daemon::start(command)
}

/// Makes a directory with databases of these numbers appear at once.
fn appear(host: &Host, directory: &str, numbers: Range<u32>) {
    let template = host.create(&format!("templates/{directory}"));
    let hidden = host.path("hidden");
    fs::create_dir(&hidden).expect("a new directory");
    for number in numbers {
        fs::copy(&template, hidden.join(format!("t{number:02}.db"))).expect("a copy");
    }
    fs::rename(hidden, host.path(directory)).expect("a new directory");
}

fn disappear(host: &Host, directory: &str, numbers: Range<u32>) {
    for number in numbers {
        fs::remove_file(host.path(directory).join(format!("t{number:02}.db"))).expect("a file");
    }
}

/// 50 databases fit into 200 files.
#[test]
fn d01_tenants_that_are_too_many_harm_none_of_those_that_run() {
    let host = Host::new();
    appear(&host, "a1", 0..40);
    let configure = |patterns: &[&str]| {
        let mut text = "[sync]\nwal_sync_interval = \"20ms\"\n".to_owned();
        for pattern in patterns {
            text += &format!("[[databases]]\npath = {:?}\n", host.path(pattern));
        }
        host.walrust.configure(&text);
    };
    configure(&["a?/*.db"]);
    let mut daemon = watch_with_files(&host, 200);
    host.wait_until(&mut daemon, "all are stored", |it| it.len() == 40 && all_stored(it));
    let refused = |daemon: &mut Daemon, databases: usize| {
        let phrase = format!("{databases} databases need");
        daemon.wait_until("it is refused", |_| {
            host.status()["config_error"].as_str().is_some_and(|it| it.contains(&phrase))
        });
        assert_eq!(host.databases().len(), 40);
    };
    let accepted = |daemon: &mut Daemon, databases: usize| {
        host.wait_until(daemon, "it fits", |it| it.len() == databases && all_stored(it));
        daemon.wait_until("nothing is wrong", |_| host.status()["config_error"].is_null());
    };
    // Matches of a pattern.
    appear(&host, "a2", 40..60);
    refused(&mut daemon, 60);
    let connection = rusqlite::Connection::open(host.path("a1/t07.db")).unwrap();
    connection.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    host.storage.wait_for_txid(&mut daemon, "t07", 2);
    assert!(host.databases().values().all(|it| it["incarnation"] == 1 && it["error"].is_null()));
    disappear(&host, "a2", 45..60);
    accepted(&mut daemon, 45);
    disappear(&host, "a2", 40..45);
    accepted(&mut daemon, 40);
    // A changed file.
    appear(&host, "b", 60..90);
    configure(&["a?/*.db", "b/*.db"]);
    refused(&mut daemon, 70);
    disappear(&host, "b", 61..90);
    accepted(&mut daemon, 41);
    assert!(!daemon.log().contains("Too many open files"), "{}", daemon.log());
    daemon.stop();
}

#[test]
fn d06_two_tenants_that_kept_one_name_hold_up_nobody() {
    let host = Host::new();
    host.create("smiths/app.db");
    let mut daemon = watch(&host);
    host.wait_until(&mut daemon, "smiths are stored", |it| {
        it.contains_key("app") && all_stored(it)
    });
    daemon.stop();
    // Their local state goes with them, so that nobody knows whose name it was.
    fs::rename(host.path("smiths"), host.path("away")).unwrap();
    fs::rename(host.path("away/app.db"), host.path("away/other.db")).unwrap();
    host.create("romneys/app.db");
    let mut daemon = watch(&host);
    host.wait_until(&mut daemon, "romneys are stored", |it| {
        it.contains_key("app") && all_stored(it)
    });
    fs::rename(host.path("away/other.db"), host.path("away/app.db")).unwrap();
    fs::rename(host.path("away"), host.path("smiths")).unwrap();
    let later = host.create("later/app.db");
    let all = ["app", "later/app", "smiths/app"];
    host.wait_until(&mut daemon, "all are stored", |it| it.len() == 3 && all_stored(it));
    assert_eq!(names(&host), all);
    daemon.wait_for_line(&["WARN", "smiths/app.db", "is used by another one"]);
    assert_eq!(host.status()["config_error"], Value::Null);
    daemon.stop();
    // What was found stays.
    let mut daemon = watch(&host);
    host.wait_until(&mut daemon, "all are stored", |it| it.len() == 3 && all_stored(it));
    assert_eq!(names(&host), all);
    daemon.stop();
    host.assert_restorable("later/app", &later);
}

#[test]
fn d06_a_tenant_whose_name_cannot_be_read_waits_and_the_others_do_not() {
    let host = Host::new();
    let smiths = host.create("smiths/app.db");
    let mut daemon = watch(&host);
    host.wait_until(&mut daemon, "smiths are stored", |it| it.len() == 1 && all_stored(it));
    daemon.stop();
    let file = host.path("smiths/.app.db-walrust/name");
    let written = fs::read(&file).unwrap();
    fs::write(&file, &written[..10]).unwrap();
    host.create("romneys/app.db");
    let mut daemon = watch(&host);
    host.wait_until(&mut daemon, "romneys are stored", |it| {
        it.contains_key("romneys/app") && all_stored(it)
    });
    daemon.wait_until("it is left out", |_| host.status()["left_out"][0].is_object());
    let left_out = &host.status()["left_out"];
    assert_eq!(left_out[0]["path"], smiths.to_str().unwrap());
    let error = left_out[0]["error"].as_str().unwrap();
    assert!(error.contains(file.to_str().unwrap()) && error.contains("damaged"), "{error}");
    let told = host.walrust.ask(["status"]).succeeded().stdout;
    assert!(told.contains(error), "{told}");
    host.walrust.snapshot(&smiths, &[]).failed(3, &["damaged", file.to_str().unwrap()]);
    let keys = host.storage.keys("app/");
    fs::write(&file, &written).unwrap();
    host.wait_until(&mut daemon, "both are stored", |it| it.len() == 2 && all_stored(it));
    assert_eq!(names(&host), ["app", "romneys/app"]);
    daemon
        .wait_until("nothing is left out", |_| host.status()["left_out"] == serde_json::json!([]));
    daemon.stop();
    assert_eq!(host.storage.keys("app/"), keys, "nothing was stored anew");
    fs::write(&file, "{").unwrap();
    host.walrust.run(["watch".as_ref(), smiths.as_os_str()]).failed(3, &["damaged"]);
    // Entries are looked at again as well as patterns.
    let mut daemon = host.walrust.watch(&[&smiths, &host.path("romneys/app.db")]);
    host.wait_until(&mut daemon, "romneys are stored", |it| it.len() == 1 && all_stored(it));
    fs::write(&file, &written).unwrap();
    host.wait_until(&mut daemon, "both are stored", |it| it.len() == 2 && all_stored(it));
    assert_eq!(names(&host), ["app", "romneys/app"]);
    daemon.stop();
}
