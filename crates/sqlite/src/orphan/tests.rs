use std::time::UNIX_EPOCH;

use rusqlite::Connection;
use walrust_engine::Position;

use super::*;
use crate::{Capture, CaptureOptions, keep_name, kept_name};

const DAY: Duration = Duration::from_secs(86_400);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// A database whose state is beside it, or in a directory for all.
struct Place {
    directory: tempfile::TempDir,
    state: Option<PathBuf>,
}

impl Place {
    fn both() -> [Self; 2] {
        let place = || tempfile::tempdir().unwrap();
        let (beside, apart) = (place(), place());
        let state = Some(apart.path().join("state"));
        [Self { directory: beside, state: None }, Self { directory: apart, state }]
    }

    fn database(&self) -> PathBuf {
        self.directory.path().join("smiths/app.db")
    }

    fn state_path(&self) -> PathBuf {
        state_path(&self.database(), self.state.as_deref())
    }

    /// Creates the database and has it replicated, with its first snapshot in storage.
    fn replicate(&self) {
        fs::create_dir_all(self.database().parent().unwrap()).unwrap();
        let application = Connection::open(self.database()).unwrap();
        application.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
        let mut capture = self.open();
        capture.sync(1_000).unwrap();
        let staged = capture.staged();
        capture.confirm(staged[0].name).unwrap();
        let kept = KeptName { name: "app".to_owned(), below: None };
        keep_name(&self.database(), self.state.as_deref(), &kept).unwrap();
    }

    fn open(&self) -> Capture {
        let options =
            CaptureOptions { state_directory: self.state.clone(), ..CaptureOptions::default() };
        Capture::open(&self.database(), &options).unwrap()
    }

    fn delete(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let path = crate::sidecar(&self.database(), suffix);
            if path.exists() {
                fs::remove_file(path).unwrap();
            }
        }
    }

    fn orphan(&self) -> Option<Orphan> {
        match &self.state {
            None => Orphan::beside(&self.database()),
            Some(state) => {
                let mut found = Orphan::all_in(state).unwrap();
                assert!(found.len() <= 1, "{found:?}");
                found.pop()
            }
        }
    }
}

fn day(number: u32) -> SystemTime {
    UNIX_EPOCH + DAY * (20_000 + number)
}

#[test]
fn d07_state_goes_when_its_database_has_been_gone_for_long_enough() {
    for place in Place::both() {
        place.replicate();
        assert!(place.orphan().is_none(), "the database is there");
        place.delete();
        let orphan = place.orphan().expect("the database is gone");
        assert_eq!(orphan.database(), place.database());
        assert_eq!(orphan.kept_name().unwrap().unwrap().name, "app");
        for (now, fate) in
            [(0, OrphanFate::Waiting), (6, OrphanFate::Waiting), (7, OrphanFate::Removed)]
        {
            assert_eq!(orphan.remove_after(WEEK, day(now)).unwrap(), fate, "day {now}");
            assert_eq!(place.state_path().exists(), fate != OrphanFate::Removed, "day {now}");
        }
        assert!(place.orphan().is_none());
    }
}

#[test]
fn d07_a_database_that_comes_back_keeps_its_state_and_is_waited_for_anew() {
    for place in Place::both() {
        place.replicate();
        let away = place.directory.path().join("away.db");
        for round in [0, 100] {
            fs::rename(place.database(), &away).unwrap();
            let orphan = place.orphan().unwrap();
            assert_eq!(orphan.remove_after(WEEK, day(round)).unwrap(), OrphanFate::Waiting);
            fs::rename(&away, place.database()).unwrap();
            // It is there, although nobody has opened it yet.
            assert_eq!(orphan.remove_after(WEEK, day(round + 50)).unwrap(), OrphanFate::Adopted);
            let before = place.open().position().map(|position: &Position| position.txid);
            assert!(before.is_some(), "the position is known");
        }
        let kept = kept_name(&place.database(), place.state.as_deref()).unwrap();
        assert_eq!(kept.unwrap().name, "app");
    }
}

#[test]
fn d07_what_storage_may_not_have_is_never_thrown_away() {
    for place in Place::both() {
        place.replicate();
        let application = Connection::open(place.database()).unwrap();
        application.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        let mut capture = place.open();
        capture.sync(2_000).unwrap();
        let staged = capture.staged();
        assert_eq!(staged.len(), 1);
        drop((capture, application));
        place.delete();
        let orphan = place.orphan().unwrap();
        orphan.remove_after(WEEK, day(0)).unwrap();
        assert_eq!(orphan.remove_after(WEEK, day(1000)).unwrap(), OrphanFate::Staged(1));
        assert!(staged[0].is_whole());
        // A file that was never complete is nothing.
        staged[0].remove().unwrap();
        fs::write(staged[0].path.with_extension("ltx.tmp"), "torn").unwrap();
        assert_eq!(orphan.remove_after(WEEK, day(1000)).unwrap(), OrphanFate::Removed);
    }
}

#[test]
fn d07_state_that_somebody_holds_is_left_alone() {
    for place in Place::both() {
        place.replicate();
        place.delete();
        let orphan = place.orphan().unwrap();
        orphan.remove_after(WEEK, day(0)).unwrap();
        let lock = File::open(place.state_path().join("lock")).unwrap();
        lock.lock().unwrap();
        assert_eq!(orphan.remove_after(WEEK, day(1000)).unwrap(), OrphanFate::Adopted);
        drop(lock);
        // A process that replicates it holds the wal-index instead.
        let shm = File::create(crate::sidecar(&place.database(), "-shm")).unwrap();
        shm.lock().unwrap();
        assert_eq!(orphan.remove_after(WEEK, day(1000)).unwrap(), OrphanFate::Adopted);
        drop(shm);
        assert_eq!(orphan.remove_after(WEEK, day(1000)).unwrap(), OrphanFate::Removed);
    }
}

#[test]
fn d07_a_database_on_a_disk_that_is_not_mounted_is_not_gone() {
    for place in Place::both() {
        place.replicate();
        let record = place.state_path().join("database");
        let mut owner: serde_json::Value =
            serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
        place.delete();
        // As if the directory of the tenants had been the top of a disk.
        owner["mount"] = place.directory.path().to_str().unwrap().into();
        fs::write(&record, owner.to_string()).unwrap();
        assert!(place.orphan().is_none());
    }
}

#[test]
fn d07_the_state_of_another_place_is_none_of_ours() {
    let [beside, apart] = Place::both();
    beside.replicate();
    // A copy of a directory whose database was not copied.
    let copy = beside.directory.path().join("copy");
    fs::create_dir_all(copy.join(".app.db-walrust")).unwrap();
    for name in ["database", "name"] {
        let from = beside.state_path().join(name);
        fs::copy(from, copy.join(".app.db-walrust").join(name)).unwrap();
    }
    beside.delete();
    assert!(Orphan::beside(&copy.join("app.db")).is_none());
    apart.replicate();
    let renamed = apart.state.as_ref().unwrap().join("other");
    fs::rename(apart.state_path(), &renamed).unwrap();
    apart.delete();
    assert!(apart.orphan().is_none());
    for damaged in ["", "{", "{\"given\": 1}"] {
        fs::write(renamed.join("database"), damaged).unwrap();
        fs::rename(&renamed, apart.state_path()).unwrap();
        assert!(apart.orphan().is_none());
        fs::rename(apart.state_path(), &renamed).unwrap();
    }
}

#[test]
fn a_clock_that_was_wrong_costs_no_state() {
    for place in Place::both() {
        place.replicate();
        place.delete();
        let orphan = place.orphan().unwrap();
        // Noted in the future: it is noted again.
        orphan.remove_after(WEEK, day(1000)).unwrap();
        assert_eq!(orphan.remove_after(WEEK, day(0)).unwrap(), OrphanFate::Waiting);
        assert_eq!(orphan.remove_after(WEEK, day(3)).unwrap(), OrphanFate::Waiting);
        assert_eq!(orphan.remove_after(WEEK, day(8)).unwrap(), OrphanFate::Removed);
    }
}
