//! A running daemon follows its configuration file and the files that patterns name.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::host::{Host, all_stored};
use crate::storage::Storage;
use crate::walrust::{QUICK, Walrust};

#[test]
fn d06_new_files_of_a_pattern_are_shipped_within_seconds_and_vanished_ones_retired() {
    let host = Host::new();
    let first = host.create("smiths/app.db");
    let pattern = host.path("**/*.db").display().to_string();
    let mut daemon = host.walrust.watch_with([&[pattern.as_str()][..], &QUICK].concat());
    host.wait_until(&mut daemon, "the first is stored", |it| it.len() == 1 && all_stored(it));

    let begun = Instant::now();
    let second = host.create("romneys/deep/app.db");
    host.wait_until(&mut daemon, "the second is stored", |it| it.len() == 2 && all_stored(it));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let names: Vec<_> = host.databases().into_keys().collect();
    assert_eq!(names, ["app", "deep/app"], "the first keeps the name that it was given");
    assert_eq!(host.databases()["app"]["incarnation"], 1, "nobody touched it");

    let copy = host.path("copy");
    fs::copy(&second, &copy).unwrap();
    // Out of the way in one step: local state is made anew while the database is still there.
    let gone = host.walrust.file("gone");
    fs::rename(host.path("romneys"), &gone).and_then(|()| fs::remove_dir_all(gone)).unwrap();
    host.wait_until(&mut daemon, "the second is retired", |it| it.len() == 1);
    host.assert_restorable("deep/app", &copy);
    daemon.stop();
    host.assert_restorable("app", &first);
}

#[test]
fn d06_a_name_is_kept_although_a_file_with_the_same_stem_comes() {
    let host = Host::new();
    host.create("smiths/app.db");
    let pattern = host.path("*/*.db").display().to_string();
    let start = || host.walrust.watch_with([&[pattern.as_str()][..], &QUICK].concat());
    let mut daemon = start();
    host.wait_until(&mut daemon, "it is stored", |it| it.contains_key("app") && all_stored(it));
    daemon.stop();
    host.create("romneys/app.db");
    let mut daemon = start();
    host.wait_until(&mut daemon, "both are stored", |it| it.len() == 2 && all_stored(it));
    let names: Vec<_> = host.databases().into_keys().collect();
    assert_eq!(names, ["app", "romneys/app"]);
    daemon.stop();
}

/// A configuration of these databases, and more text for some of them.
fn configuration(paths: &[PathBuf], more: impl Fn(usize) -> &'static str) -> String {
    let mut text = String::from("[sync]\nwal_sync_interval = \"20ms\"\n");
    for (index, path) in paths.iter().enumerate() {
        text += &format!("[[databases]]\npath = {path:?}\n{}", more(index));
    }
    text
}

#[test]
fn a_changed_file_touches_the_databases_it_concerns_and_no_other() {
    const DATABASES: usize = 60;
    let host = Host::new();
    let paths: Vec<_> = (0..DATABASES + 3).map(|it| host.create(&format!("t{it:02}.db"))).collect();
    host.walrust.configure(&configuration(&paths[..DATABASES], |_| ""));
    let mut daemon = host.walrust.watch_with(Vec::<String>::new());
    host.wait_until(&mut daemon, "all are stored", |it| it.len() == DATABASES && all_stored(it));

    // Three come, two go, five are changed.
    let changed = configuration(&paths[2..], |index| match index {
        0..5 => "max_changes = 1000000\n",
        _ => "",
    });
    host.walrust.configure(&changed);
    let begun = Instant::now();
    daemon.signal(Signal::SIGHUP);
    host.wait_until(&mut daemon, "the change is applied", |it| {
        it.len() == DATABASES + 1
            && it.contains_key("t62")
            && !it.contains_key("t00")
            && all_stored(it)
    });
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    for (name, status) in host.databases() {
        let expected = match &name[1..] {
            "02" | "03" | "04" | "05" | "06" => (1, 2),
            _ => (1, 1),
        };
        let found = (status["incarnation"].as_u64(), status["revision"].as_u64());
        assert_eq!(found, (Some(expected.0), Some(expected.1)), "{name}");
    }
    host.assert_restorable("t00", &paths[0]);
    daemon.stop();
    host.assert_restorable("t62", &paths[62]);
}

#[test]
fn b14_an_invalid_file_changes_nothing_and_is_shown_with_its_line() {
    let host = Host::new();
    let paths = [host.create("one.db"), host.create("two.db")];
    let valid = configuration(&paths[..1], |_| "");
    host.walrust.configure(&valid);
    let mut daemon = host.walrust.watch_with(Vec::<String>::new());
    host.wait_until(&mut daemon, "it is stored", |it| it.len() == 1 && all_stored(it));

    // Without a signal: the file itself is followed, also if it is written where it is.
    let invalid = format!("{valid}[retry]\nmax_retrys = 3\n");
    daemon.while_suspended(|| fs::write(host.walrust.file("walrust.toml"), invalid).unwrap());
    daemon.wait_for_line(&["not applied", "line 6", "did you mean `max_retries`"]);
    daemon.wait_until("the status shows it", |_| {
        host.status()["config_error"].as_str().is_some_and(|error| error.contains("line 6"))
    });
    assert_eq!(host.databases()["one"]["revision"], 1);
    // Two databases cannot have one name, and no other storage is used before it was seen to work.
    let mut clash = configuration(&paths, |_| "prefix = \"same\"\n");
    host.walrust.configure(&clash);
    daemon.wait_for_line(&["not applied", "one.db", "two.db", "same"]);
    clash = configuration(&paths, |_| "");
    host.walrust.configure(&clash);
    host.wait_until(&mut daemon, "the second is stored", |it| it.len() == 2 && all_stored(it));
    daemon.wait_until("nothing is wrong", |_| host.status()["config_error"].is_null());
    daemon.stop();
    host.assert_restorable("two", &paths[1]);
}

#[test]
fn another_storage_is_used_once_it_was_seen_to_work() {
    let mut host = Host::new();
    let other = Storage::directory();
    let path = host.create("one.db");
    // The storage comes from the file, not from a flag.
    host.walrust = Walrust::with_access_to(&host.storage);
    let entries = configuration(std::slice::from_ref(&path), |_| "");
    let with = |url: &str| format!("{entries}[s3]\nbucket = \"{url}\"\n");
    host.walrust.configure(&with(&host.storage.url()));
    let mut daemon = host.walrust.watch_with(Vec::<String>::new());
    host.wait_until(&mut daemon, "it is stored", |it| it.len() == 1 && all_stored(it));
    host.walrust.configure(&with("s3://"));
    daemon.wait_for_line(&["not applied"]);
    assert_eq!(host.status()["storage"], host.storage.url());
    host.walrust.configure(&with(&other.url()));
    daemon.wait_until("the other storage has it", |_| !other.ltx_files("one").is_empty());
    host.wait_until(&mut daemon, "it is stored there", all_stored);
    daemon.wait_until("the status shows it", |_| host.status()["storage"] == other.url());
    daemon.stop();
    host.walrust.set_bucket(&other.url());
    host.assert_restorable("one", &path);
}

#[test]
fn e04_what_is_secret_is_not_shown() {
    let host = Host::new();
    host.walrust.configure(
        "[[webhooks]]\nurl = \"https://user:word@example.com/services/token\"\nsecret = \"hush\"\n\
         [[webhooks]]\nurl = \"https://other.example.com?token=abc\"\n\
         [sync]\non_idle = 60\n",
    );
    for more in [&["--json"][..], &[]] {
        let arguments = ["config", "show", "--endpoint", "http://user:word@store.example.com"];
        let outcome = host.walrust.ask([&arguments[..], more].concat()).succeeded();
        for hidden in ["word", "token", "abc", "hush"] {
            assert!(!outcome.stdout.contains(hidden), "{hidden} is in {}", outcome.stdout);
        }
        for shown in [
            "https://example.com/[redacted]",
            "https://other.example.com/[redacted]",
            "http://[redacted]@store.example.com",
            "walrust.toml:7",
            "default",
        ] {
            assert!(outcome.stdout.contains(shown), "{shown} is not in {}", outcome.stdout);
        }
    }
    host.walrust.ask(["config", "check"]).succeeded();
    let checked = host.walrust.ask(["config", "check", "--json"]).succeeded().json();
    assert_eq!(checked["file"], "walrust.toml");
    assert_eq!((&checked["valid"], &checked["databases"]), (&Value::from(true), &Value::from(0)));
    host.walrust.configure("[sync]\non_idle = \"soon\"\n");
    for more in [&[][..], &["--json"]] {
        let outcome = host.walrust.ask([&["config", "check"][..], more].concat());
        outcome.failed(2, &["walrust.toml", "line 2", "on_idle"]);
    }
}

#[test]
fn d06_matches_whose_names_would_collide_hide_no_other() {
    let host = Host::new();
    let main = host.create("main.db");
    host.create("x/log.db");
    let pattern = host.path("x/*.*");
    host.walrust.configure(&format!(
        "[sync]\nwal_sync_interval = \"20ms\"\n\
         [[databases]]\npath = {main:?}\nprefix = \"app\"\n\
         [[databases]]\npath = {pattern:?}\n"
    ));
    let mut daemon = host.walrust.watch_with(Vec::<String>::new());
    host.wait_until(&mut daemon, "two are stored", |it| it.len() == 2 && all_stored(it));
    host.create("x/app.db");
    let last = host.create("x/log.sqlite");
    host.wait_until(&mut daemon, "all are stored", |it| it.len() == 4 && all_stored(it));
    let names: Vec<_> = host.databases().into_keys().collect();
    assert_eq!(names, ["app", "log", "log.sqlite", "x/app"]);
    daemon.stop();
    host.assert_restorable("log.sqlite", &last);
}

#[test]
fn d06_another_prefix_of_a_pattern_is_applied_while_running() {
    let host = Host::new();
    let one = host.create("x/one.db");
    let pattern = host.path("x/*.db");
    let with = |prefix: &str| {
        let prefix = format!("prefix = \"{prefix}\"\n");
        configuration(std::slice::from_ref(&pattern), |_| "") + &prefix
    };
    host.walrust.configure(&with("old"));
    let mut daemon = host.walrust.watch_with(Vec::<String>::new());
    host.wait_until(&mut daemon, "it is stored", |it| it.contains_key("old/one") && all_stored(it));
    host.walrust.configure(&with("new"));
    host.wait_until(&mut daemon, "it has moved", |it| it.contains_key("new/one") && it.len() == 1);
    host.wait_until(&mut daemon, "it is stored there", all_stored);
    daemon.stop();
    host.assert_restorable("new/one", &one);
}

#[test]
fn a_file_that_is_replaced_by_name_or_behind_a_link_is_followed() {
    let host = Host::new();
    let paths = ["one", "two", "three"].map(|name| host.create(&format!("{name}.db")));
    // As Kubernetes mounts a ConfigMap: a link to a link that is swapped.
    for (version, databases) in [("v1", 1), ("v2", 2)] {
        fs::create_dir(host.path(version)).unwrap();
        let text = configuration(&paths[..databases], |_| "");
        fs::write(host.path(version).join("walrust.toml"), text).unwrap();
    }
    let swap = |version: &str| {
        symlink(version, host.path("data.new")).unwrap();
        fs::rename(host.path("data.new"), host.path("data")).unwrap();
    };
    swap("v1");
    symlink("data/walrust.toml", host.path("walrust.toml")).unwrap();
    let file = host.path("walrust.toml").display().to_string();
    let mut daemon = host.walrust.watch_with(["--config", &file]);
    host.wait_until(&mut daemon, "one is stored", |it| it.len() == 1 && all_stored(it));
    swap("v2");
    host.wait_until(&mut daemon, "two are stored", |it| it.len() == 2 && all_stored(it));
    // As editors save: a new file that is renamed.
    fs::write(host.path("new.toml"), configuration(&paths, |_| "")).unwrap();
    fs::rename(host.path("new.toml"), &file).unwrap();
    host.wait_until(&mut daemon, "three are stored", |it| it.len() == 3 && all_stored(it));
    // A file that is gone for a while changes nothing.
    fs::rename(&file, host.path("away")).unwrap();
    let begun = Instant::now();
    daemon.wait_until("it was looked for", |_| begun.elapsed() > Duration::from_secs(2));
    assert_eq!(host.databases().len(), 3);
    assert_eq!(host.status()["config_error"], Value::Null);
    daemon.stop();
}

#[test]
fn e04_a_rejected_file_shows_no_secret() {
    let host = Host::new();
    let valid = configuration(&[host.create("one.db")], |_| "");
    host.walrust.configure(&valid);
    let mut daemon = host.walrust.watch_with(Vec::<String>::new());
    host.wait_until(&mut daemon, "it is stored", |it| it.len() == 1 && all_stored(it));
    let webhook = "[[webhooks]]\nurl = \"https://example.com/token\"\nsecret = \"hush\n";
    host.walrust.configure(&format!("{valid}{webhook}"));
    daemon.wait_for_line(&["not applied", "line 7"]);
    let told = format!("{}{}", daemon.log(), host.status());
    assert!(!told.contains("hush") && !told.contains("token"), "{told}");
    daemon.stop();
}

#[test]
fn e01_what_is_shown_says_where_it_comes_from() {
    let mut host = Host::new();
    host.walrust.configure(
        "[sync]\non_idle = 60\nmax_changes = 5\n\
         [[databases]]\npath = \"/a.db\"\nmax_changes = 6\nmax_interval = 7\n",
    );
    host.walrust.set("WALRUST_MAX_CHANGES", "8");
    host.walrust.set("WALRUST_WAL_SYNC_INTERVAL", "9");
    let arguments = ["config", "show", "--json", "--wal-sync-interval", "10s"];
    let shown = host.walrust.ask(arguments).succeeded().json();
    for (key, value, source) in [
        ("sync.on_idle", "60", "walrust.toml:2"),
        ("sync.max_changes", "8", "$WALRUST_MAX_CHANGES"),
        ("databases.0.max_changes", "8", "$WALRUST_MAX_CHANGES"),
        ("databases.0.max_interval", "7", "walrust.toml:7"),
        ("sync.wal_sync_interval", "10s", "--wal-sync-interval"),
        ("sync.on_startup", "false", "default"),
    ] {
        let shown = &shown[key];
        let text = shown["value"].to_string();
        assert_eq!(text.trim_matches('"'), value, "{key}");
        assert_eq!(shown["source"], source, "{key}");
    }
    // What every S3 client reads gives way to the file, and that to our own variable.
    host.walrust.set("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9");
    host.walrust.set("AWS_REGION", "");
    host.walrust.set("AWS_DEFAULT_REGION", "mars-north-1");
    let place = |key: &str| {
        let shown = host.walrust.ask(["config", "show", "--json"]).succeeded().json();
        (shown[key]["value"].clone(), shown[key]["source"].clone())
    };
    let is = |value: &str, source: &str| (Value::from(value), Value::from(source));
    assert_eq!(place("s3.endpoint"), is("http://127.0.0.1:9", "$AWS_ENDPOINT_URL_S3"));
    assert_eq!(place("s3.region"), is("mars-north-1", "$AWS_DEFAULT_REGION"));
    host.walrust.configure("[s3]\nendpoint = \"http://127.0.0.1:8\"\n");
    assert_eq!(place("s3.endpoint"), is("http://127.0.0.1:8", "walrust.toml:2"));
    host.walrust.set("WALRUST_ENDPOINT", "http://127.0.0.1:7");
    let place = host.walrust.ask(["config", "show", "--json"]).succeeded().json();
    assert_eq!(place["s3.endpoint"]["source"], "$WALRUST_ENDPOINT");
    host.walrust.set("WALRUST_MAX_CHANGES", "many");
    host.walrust.ask(["config", "show"]).failed(2, &["many", "--max-changes"]);
}

/// One of each kind that cannot be replicated, by name, and what its status says in words.
fn broken_databases(host: &Host) -> BTreeMap<&'static str, &'static str> {
    let in_mode = |name: &str, mode: &str| {
        let connection = rusqlite::Connection::open(host.path(name)).expect("a new database");
        let sql = format!("PRAGMA journal_mode = {mode}; CREATE TABLE t (x)");
        connection.execute_batch(&sql).expect("valid statements");
    };
    in_mode("rollback.db", "DELETE");
    fs::write(host.path("text.db"), "this is no database at all ".repeat(200)).expect("a new file");
    fs::write(host.path("empty.db"), "").expect("a new file");
    fs::create_dir(host.path("directory.db")).expect("a new directory");
    std::os::unix::fs::symlink(host.path("nowhere"), host.path("dangling.db")).expect("a new link");
    in_mode("cut.db", "WAL");
    let start = fs::read(host.path("cut.db")).expect("a database")[..600].to_vec();
    fs::write(host.path("cut.db"), start).expect("it is writable");
    BTreeMap::from([
        ("rollback", "WAL mode"),
        ("text", "not a SQLite database"),
        ("empty", "empty"),
        ("directory", "not a regular file"),
        ("dangling", "no such"),
        ("missing", "no such"),
        ("cut", "malformed"),
    ])
}

#[test]
fn b14_of_each_kind_one_that_is_broken_beside_a_hundred_that_are_not() {
    const HEALTHY: usize = 100;
    let host = Host::new();
    let healthy: Vec<_> = (0..HEALTHY).map(|it| host.create(&format!("t{it:03}.db"))).collect();
    let broken = broken_databases(&host);
    let mut paths = healthy.clone();
    paths.extend(broken.keys().map(|name| host.path(&format!("{name}.db"))));
    host.walrust.configure(&configuration(&paths, |_| ""));
    let mut daemon = host.walrust.watch_with(Vec::<String>::new());
    let is_broken = |name: &str| broken.contains_key(name);
    host.wait_until(&mut daemon, "the healthy are stored, the broken told", |it| {
        it.len() == paths.len()
            && it.iter().all(|(name, it)| match is_broken(name) {
                true => it["state"] == "degraded" && it["error"].is_string(),
                false => it["up_to_date"] == true,
            })
    });
    for path in &healthy {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    }
    let begun = Instant::now();
    host.wait_until(&mut daemon, "every commit is stored", |_| {
        (0..HEALTHY).all(|it| host.storage.head(&format!("t{it:03}")) >= 2)
    });
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for (name, status) in host.databases() {
        let Some(words) = broken.get(name.as_str()) else {
            assert_eq!(status["incarnation"], 1, "{name} was left alone");
            continue;
        };
        let error = status["error"].as_str().unwrap();
        assert!(error.contains(words) && error.contains(&name), "{name}: {error}");
    }
    daemon.terminate();
    host.assert_restorable("t007", &healthy[7]);
}
