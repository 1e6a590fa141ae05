//! The command line: help, documentation and program agree; results and logs stay apart.

use std::collections::BTreeSet;
use std::fs;

use walrust_testkit::TestDatabase;

use crate::daemon::Daemon;
use crate::small_history::{NAME, SmallHistory};
use crate::storage::Storage;
use crate::walrust::{QUICK, Walrust};

/// The commands that `walrust --help` lists, without `help` itself.
fn commands() -> Vec<String> {
    let help = Walrust::alone().run(["--help"]).succeeded().stdout;
    let section = help.split_once("Commands:\n").expect("a list of commands").1;
    let lines = section.lines().take_while(|line| !line.is_empty());
    // A description may go on in a further line, which begins with more spaces.
    let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| {
        let name = line.split_whitespace().next()?;
        (name != "help").then(|| name.to_owned())
    });
    names.collect()
}

/// All words of a text that look like long flags.
fn flags_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c == '-' || c.is_ascii_lowercase();
    let words = text.split(|c: char| !is_part(c));
    let flags = words.filter(|word| word.starts_with("--")).map(|word| word.trim_end_matches('-'));
    flags.filter(|flag| !flag.is_empty()).map(str::to_owned).collect()
}

fn repository_file(name: &str) -> String {
    fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).expect(name)
}

#[test]
fn every_flag_that_help_mentions_exists() {
    let walrust = Walrust::alone();
    for command in commands() {
        let help = walrust.run([command.as_str(), "--help"]).succeeded();
        assert_eq!(help.stderr, "", "help is a result");
        assert_eq!(walrust.run(["help", &command]).succeeded().stdout, help.stdout);
        let flags = flags_in(&help.stdout);
        assert!(flags.contains("--help") && flags.contains("--config"), "{command}: {flags:?}");
        for flag in flags {
            let outcome = walrust.run([command.as_str(), &flag, "--help"]);
            assert!(!outcome.stderr.contains("unexpected argument"), "{command} {flag}");
        }
    }
}

#[test]
fn the_readme_lists_the_commands_that_there_are() {
    let readme = repository_file("README.md");
    let table = readme.split_once("| command | does |\n").expect("the table of commands").1;
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let listed: Vec<_> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    assert_eq!(listed, commands());
}

#[test]
fn the_documents_name_flags_that_exist() {
    let walrust = Walrust::alone();
    let helps = commands().into_iter().map(|command| walrust.run([command, "--help".to_owned()]));
    let known: BTreeSet<String> = helps.flat_map(|help| flags_in(&help.stdout)).collect();
    for document in ["README.md", "config/walrust.toml"] {
        // Cargo has flags too: they stand where it is called.
        let text = repository_file(document);
        let lines = text.lines().filter(|line| !line.starts_with("$ cargo "));
        let flags = flags_in(&lines.collect::<Vec<_>>().join("\n"));
        let unknown: Vec<_> = flags.difference(&known).cloned().collect();
        assert_eq!(unknown, [""; 0], "{document}");
    }
}

#[test]
fn the_readme_lists_the_variables_that_there_are() {
    let walrust = Walrust::alone();
    let mut known = BTreeSet::new();
    for command in commands() {
        let help = walrust.run([command.as_str(), "--help"]).succeeded().stdout;
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let named = help.split("[env: ").skip(1).filter_map(|rest| rest.split('=').next());
        known.extend(named.map(str::to_owned));
    }
    let readme = repository_file("README.md");
    let table = readme.split_once("| variable | flag |\n").expect("the table of variables").1;
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| -> Vec<String> { row.split('`').map(str::to_owned).collect() };
    let rows: Vec<_> = rows.map(cells).collect();
    let listed: BTreeSet<_> = rows.iter().map(|cells| cells[1].clone()).collect();
    assert_eq!(listed, known);
    for cells in rows {
        let (variable, flag) = (&cells[1], cells[3].trim_start_matches("--"));
        assert_eq!(*variable, format!("WALRUST_{}", flag.replace('-', "_").to_uppercase()));
    }
}

#[test]
fn every_flag_of_watch_has_a_variable() {
    let help = Walrust::alone().run(["watch", "--help"]).succeeded().stdout;
    // Lines are broken where they are too long.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for flag in flags_in(&help) {
        if !matches!(flag.as_str(), "--help" | "--version") {
            let variable = flag.trim_start_matches('-').replace('-', "_").to_uppercase();
            assert!(help.contains(&format!("[env: WALRUST_{variable}=")), "{flag}\n{help}");
        }
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    let version = Walrust::alone().run(["--version"]).succeeded().stdout;
    assert_eq!(version.trim(), concat!("walrust ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_demonstration_shows_its_steps_and_ends_with_the_proof() {
    let walrust = Walrust::alone();
    let outcome = walrust.run(["demo"]).succeeded();
    let lines: Vec<_> = outcome.stdout.lines().collect();
    let steps: Vec<_> = lines.iter().filter(|line| !line.starts_with(' ')).collect();
    for (number, step) in (1..).zip(&steps[..steps.len() - 1]) {
        assert!(step.starts_with(&format!("{number}. ")), "{}", outcome.stdout);
    }
    assert!(steps.len() >= 6, "{}", outcome.stdout);
    assert_eq!(lines.last(), Some(&"restored database is identical"));
    assert_eq!(outcome.stderr, "", "nothing went wrong on the way");
    let result = walrust.run(["demo", "--json"]).succeeded().json();
    assert_eq!((&result["commits"], &result["identical"]), (&50.into(), &true.into()));
    assert_eq!(walrust.files(), [""; 0]);
}

#[test]
fn a_demonstration_that_fails_is_no_mistake_in_its_arguments() {
    let directory = tempfile::tempdir().unwrap();
    // No file may grow beyond some kilobytes, as on a disk that is full.
    let demo = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" demo"])
        .arg(env!("CARGO_BIN_EXE_walrust"))
        .env("TMPDIR", directory.path())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&demo.stderr);
    assert!(error.contains("shop.db"), "{error}");
    assert_eq!(demo.status.code(), Some(1), "{error}");
}

#[test]
fn results_are_one_json_document_and_logs_are_elsewhere() {
    let history = SmallHistory::new();
    let mut walrust = Walrust::on(&history.storage);
    walrust.set("WALRUST_LOG_LEVEL", "trace");
    let output = walrust.file("out.db");
    let results = [
        walrust.snapshot(&history.source, &["--json"]),
        walrust.restore(NAME, &output, &["--json"]),
        walrust.run(["restore", NAME, "--plan", "--json"]),
        walrust.run(["list", NAME, "--json"]),
    ];
    for outcome in results.map(crate::walrust::Outcome::succeeded) {
        let result = outcome.json();
        assert_eq!(result["name"], NAME);
    }
    let listing = walrust.run(["list", "--json"]).succeeded().json();
    assert_eq!(listing["databases"][0]["name"], NAME);

    let mut daemon = walrust.watch(&[&history.source]);
    daemon.wait_for_line(&["continues"]);
    let log = daemon.stop().stderr;
    for line in log.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("{error}: {line:?} is not JSON, as a log that nobody watches must be")
        });
        assert!(entry["level"].is_string() && entry["message"].is_string(), "{line}");
    }
}

#[test]
fn the_listing_for_people_says_what_the_one_for_programs_says() {
    let history = SmallHistory::new();
    let all = history.walrust.run(["list"]).succeeded().stdout;
    let row = all.lines().map(str::trim).find(|line| line.starts_with(NAME)).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!((cells[1], cells[2]), ("2", "7"), "snapshots and files: {all}");
    assert!(row.ends_with("0000000000000006"), "{all}");

    let one = history.walrust.run(["list", NAME]).succeeded().stdout;
    let rows = |kind: &str| one.lines().filter(|line| line.trim().starts_with(kind)).count();
    assert_eq!((rows("snapshot"), rows("incremental")), (2, 5), "{one}");
    let listing = history.walrust.list(NAME);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let range = &listing["ranges"][0];
    let range = format!(
        "6 states can be restored, TXID 0000000000000001 (1) of {} to TXID 0000000000000006 (6) of {}",
        text(&range["first_time"]),
        text(&range["last_time"])
    );
    let lineage = text(&listing["lineage"]);
    let (host, stored) = (text(&listing["writer"]["host"]), text(&listing["last_stored"]));
    for phrase in [&range, &lineage, &host, &stored] {
        assert!(one.contains(phrase.as_str()), "{phrase} is not in {one}");
    }

    let nothing = Walrust::on(&Storage::directory());
    assert!(nothing.run(["list"]).succeeded().stdout.contains("no databases"));
    let listing = nothing.run(["list", "--json"]).succeeded().json();
    assert_eq!(listing["databases"], serde_json::json!([]));
}

#[test]
fn levels_and_forms_of_the_log() {
    let history = SmallHistory::new();
    let watch = |arguments: &[&str]| {
        let source = history.source.display().to_string();
        let arguments = [&[source.as_str()], arguments].concat();
        history.walrust.watch_with(arguments)
    };
    let mut daemon = watch(&["--log-format", "human"]);
    let line = daemon.wait_for_line(&["replicating", "INFO"]);
    assert!(!line.starts_with('{') && !line.contains('\u{1b}'), "plain text: {line}");
    daemon.stop();

    let (_directory, source) = TestDatabase::with_history(1024, 1, 5).close();
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let mut daemon = walrust.watch_with([source.as_os_str(), "--log-level=error".as_ref()]);
    storage.wait_for_txid(&mut daemon, "app", 1);
    assert_eq!(daemon.stop().stderr, "", "all went well");
    let other = Walrust::on(&Storage::directory());
    let mut daemon = other.watch_with([source.as_os_str(), "--log-level=debug".as_ref()]);
    daemon.wait_for_line(&["DEBUG"]);
    daemon.stop();
}

#[test]
fn e12_commits_that_are_shipped_fill_no_log_and_txids_have_one_form() {
    let database = TestDatabase::with_history(1024, 1, 5);
    let storage = Storage::directory();
    let walrust = Walrust::on(&storage);
    let ship = |daemon: &mut Daemon, txids: std::ops::RangeInclusive<u64>| {
        for txid in txids {
            database.run("UPDATE accounts SET balance = balance + 1");
            storage.wait_for_txid(daemon, "app", txid);
        }
    };
    let mut daemon = walrust.watch(&[database.path()]);
    storage.wait_for_manifest(&mut daemon, "app");
    ship(&mut daemon, 2..=2);
    // The last that it has to say.
    daemon.wait_for_line(&["continues"]);
    let before = daemon.log();
    ship(&mut daemon, 3..=7);
    assert_eq!(daemon.log(), before);
    daemon.stop();
    let path = database.path().display().to_string();
    let mut daemon =
        walrust.watch_with([&[path.as_str(), "--log-level=debug"][..], &QUICK].concat());
    daemon.wait_for_line(&["continues", "\"txid\":\"0000000000000007\""]);
    ship(&mut daemon, 8..=8);
    daemon.wait_for_line(&["shipped", "\"txid\":\"0000000000000008\""]);
    daemon.stop();
}

#[test]
fn more_databases_than_the_process_may_have_files_open_are_refused_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let template = directory.path().join("template");
    let connection = rusqlite::Connection::open(&template).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
    connection.close().unwrap();
    let walrust = Walrust::on(&Storage::directory());
    let mut text = String::new();
    for number in 0..60 {
        let path = directory.path().join(format!("t{number}.db"));
        std::fs::copy(&template, &path).unwrap();
        text += &format!("[[databases]]\npath = {path:?}\n");
    }
    walrust.configure(&text);
    let limited = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 200; exec \"$0\" watch -b \"$1\""])
        .args([env!("CARGO_BIN_EXE_walrust"), &Storage::directory().url()])
        .current_dir(walrust.file("."))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&limited.stderr);
    assert_eq!(limited.status.code(), Some(1), "{error}");
    for phrase in ["60 databases", "220 open files", "may have 200", "LimitNOFILE"] {
        assert!(error.contains(phrase), "{phrase:?} is not in: {error}");
    }
}
