//! Databases that come, go and come back while a daemon follows them, and what becomes of their names.

use std::fs;

use serde_json::Value;

use crate::daemon::Daemon;
use crate::host::{Host, all_stored};
use crate::walrust::QUICK;

/// Starts a daemon that follows all databases named `app.db`.
fn watch(host: &Host) -> Daemon {
    let pattern = host.path("*/app.db").display().to_string();
    host.walrust.watch_with([&[pattern.as_str()][..], &QUICK].concat())
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
    daemon.wait_for_line(&["WARN", "smiths/app.db", "another database has the name"]);
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
    assert_eq!(host.status()["left_out"], serde_json::json!([]));
    daemon.stop();
    assert_eq!(host.storage.keys("app/"), keys, "nothing was stored anew");
    fs::write(&file, "{").unwrap();
    host.walrust.run(["watch".as_ref(), smiths.as_os_str()]).failed(3, &["damaged"]);
}
