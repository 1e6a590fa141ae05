use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::*;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn database(&self, name: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), MAGIC.repeat(7)).unwrap();
    }

    fn entry(&self, pattern: &str) -> DatabaseSection {
        DatabaseSection { path: self.path(pattern), ..DatabaseSection::default() }
    }

    fn names(&self, tenants: &mut Tenants, patterns: &[&str]) -> Vec<String> {
        let entries: Vec<_> = patterns.iter().map(|pattern| self.entry(pattern)).collect();
        let found = tenants.look(&entries).unwrap().into_iter();
        let name = |tenant: Tenant| {
            tenant.section.path.strip_prefix(self.0.path()).unwrap().display().to_string()
        };
        found.map(name).collect()
    }
}

#[test]
fn d06_patterns_find_databases_and_nothing_else() {
    let place = Place::new();
    for name in ["a/one.db", "a/deep/er/two.db", "b/three.db", "three.db"] {
        place.database(name);
    }
    for sidecar in ["a/one.db-wal", "a/one.db-shm", "a/one.db-journal"] {
        place.database(sidecar);
    }
    place.database("a/.one.db-walrust/staging/x.db");
    place.database("a/.one.db-walrust-replica/incoming.db");
    place.database("a/.hidden.db");
    fs::write(place.path("a/empty.db"), "").unwrap();
    fs::write(place.path("a/text.db"), "this is no database").unwrap();
    fs::create_dir(place.path("a/directory.db")).unwrap();
    symlink(place.path("a"), place.path("a/loop")).unwrap();
    let mut tenants = Tenants::default();
    let found = |tenants: &mut _, pattern: &str| place.names(tenants, &[pattern]);
    assert_eq!(
        found(&mut tenants, "**/*.db"),
        ["a/deep/er/two.db", "a/one.db", "b/three.db", "three.db"]
    );
    assert_eq!(found(&mut tenants, "*/*.db"), ["a/one.db", "b/three.db"]);
    assert_eq!(found(&mut tenants, "?/t*.db"), ["b/three.db"]);
    assert_eq!(found(&mut tenants, "[ab]/*e.db*"), ["a/one.db", "b/three.db"]);
    assert_eq!(found(&mut tenants, "*.sqlite"), Vec::<String>::new());
    // A file that is there is no pattern, whatever its name.
    place.database("odd[1].db");
    assert_eq!(found(&mut tenants, "odd[1].db"), ["odd[1].db"]);
}

#[test]
fn d06_files_come_and_go() {
    let place = Place::new();
    place.database("a/one.db");
    let mut tenants = Tenants::default();
    let mut found = || place.names(&mut tenants, &["**/*.db"]);
    assert_eq!(found(), ["a/one.db"]);
    place.database("new/deep/two.db");
    assert_eq!(found(), ["a/one.db", "new/deep/two.db"]);
    fs::remove_file(place.path("a/one.db")).unwrap();
    assert_eq!(found().len(), 2, "it may be about to be replaced");
    assert_eq!(found(), ["new/deep/two.db"]);
}

#[test]
fn a_directory_that_cannot_be_read_retires_nobody() {
    let place = Place::new();
    place.database("a/one.db");
    let mut tenants = Tenants::default();
    assert_eq!(place.names(&mut tenants, &["*/*.db"]), ["a/one.db"]);
    // As root every directory can be read: one that leads in circles cannot.
    fs::remove_dir_all(place.path("a")).unwrap();
    fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o700)).unwrap();
    symlink(place.path("base"), place.path("base")).unwrap();
    let mut broken = Tenants::default();
    place.database("x/one.db");
    let pattern = place.entry("x/../base/*.db").path;
    let known = Match { file: (0, 0), is_link: false, missed: 0 };
    broken.matches.insert(pattern.clone(), BTreeMap::from([(place.path("x/one.db"), known)]));
    let entry = DatabaseSection { path: pattern, ..DatabaseSection::default() };
    for _ in 0..5 {
        assert_eq!(broken.look(std::slice::from_ref(&entry)).unwrap().len(), 1);
    }
}

#[test]
fn a_file_that_is_named_wins_over_a_pattern_that_matches_it() {
    let place = Place::new();
    place.database("one.db");
    place.database("two.db");
    let pattern = DatabaseSection { prefix: Some("all".to_owned()), ..place.entry("*.db") };
    let named = DatabaseSection { prefix: Some("mine".to_owned()), ..place.entry("two.db") };
    let found = Tenants::default().look(&[pattern, named]).unwrap();
    let told: Vec<_> =
        found.iter().map(|it| (it.section.prefix.as_deref(), it.below.as_deref())).collect();
    assert_eq!(told, [(Some("mine"), None), (None, Some("all"))]);
}

/// Closing any descriptor of a file drops the locks that SQLite has on it in this process.
#[test]
fn a_database_that_is_known_is_never_opened_again() {
    let place = Place::new();
    place.database("a/named.db");
    place.database("a/one.db");
    symlink(place.path("a/one.db"), place.path("a/link.db")).unwrap();
    let mut tenants = Tenants::default();
    assert_eq!(place.names(&mut tenants, &["a/named.db", "a/o*.db"]), ["a/named.db", "a/one.db"]);
    let opened = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    opened.add_watch(&place.path("a"), AddWatchFlags::IN_OPEN).unwrap();
    // Another pattern matches the same files, and an alias of one of them.
    let found = place.names(&mut tenants, &["a/named.db", "**/*.db"]);
    assert_eq!(found, ["a/named.db", "a/one.db"]);
    place.names(&mut tenants, &["**/[no]*.db"]);
    let files: Vec<_> = match opened.read_events() {
        Ok(events) => events.into_iter().filter_map(|event| event.name).collect(),
        Err(_) => Vec::new(),
    };
    let databases = files.iter().filter(|name| name.to_string_lossy().ends_with(".db"));
    assert_eq!(databases.collect::<Vec<_>>(), Vec::<&OsString>::new());
}

#[test]
fn one_file_is_one_database_whatever_leads_to_it() {
    let place = Place::new();
    place.database("m/one.db");
    let mut tenants = Tenants::default();
    assert_eq!(place.names(&mut tenants, &["**/*.db"]), ["m/one.db"]);
    // One comes first by name, the other is outside of the pattern.
    symlink(place.path("m/one.db"), place.path("m/a.db")).unwrap();
    fs::hard_link(place.path("m/one.db"), place.path("m/b.db")).unwrap();
    assert_eq!(place.names(&mut tenants, &["**/*.db"]), ["m/one.db"]);
    assert_eq!(place.names(&mut Tenants::default(), &["m/[ao]*.db"]), ["m/one.db"]);
    assert_eq!(place.names(&mut tenants, &["m/a.db", "m/*.db"]), ["m/a.db"]);
}

#[test]
fn d06_a_file_without_a_usable_name_hides_no_other() {
    let place = Place::new();
    place.database("one.db");
    let odd = place.0.path().join(OsString::from_vec(b"\xff.db".to_vec()));
    fs::write(odd, MAGIC).unwrap();
    assert_eq!(place.names(&mut Tenants::default(), &["*.db"]), ["one.db"]);
}

#[test]
fn d06_files_that_change_places_stay_databases() {
    let place = Place::new();
    for name in ["a.db", "b.db", "app.db", "new.db"] {
        place.database(name);
    }
    let rename = |from: &str, to: &str| fs::rename(place.path(from), place.path(to)).unwrap();
    let mut tenants = Tenants::default();
    let mut found = || place.names(&mut tenants, &["*.db"]);
    assert_eq!(found(), ["a.db", "app.db", "b.db", "new.db"]);
    rename("a.db", "x");
    rename("b.db", "a.db");
    rename("x", "b.db");
    assert_eq!(found(), ["a.db", "app.db", "b.db", "new.db"]);
    rename("app.db", "old.db");
    rename("new.db", "app.db");
    assert_eq!(found(), ["a.db", "app.db", "b.db", "old.db"]);
}

#[test]
fn d07_what_is_gone_for_long_is_forgotten() {
    let place = Place::new();
    place.database("kept.db");
    for name in ["a.db", "b.db"] {
        place.database(name);
        fs::write(place.path(&format!("text-{name}")), "this is no database").unwrap();
    }
    let mut tenants = Tenants::default();
    let remembered = |tenants: &Tenants| (tenants.owners.len(), tenants.refused.len());
    assert_eq!(place.names(&mut tenants, &["*.db"]), ["a.db", "b.db", "kept.db"]);
    assert_eq!(remembered(&tenants), (3, 2));
    for name in ["a.db", "b.db", "text-a.db", "text-b.db"] {
        fs::remove_file(place.path(name)).unwrap();
    }
    place.names(&mut tenants, &["*.db"]);
    assert_eq!(remembered(&tenants), (3, 0), "they may still be open");
    for _ in 0..FORGOTTEN_AFTER {
        place.names(&mut tenants, &["*.db"]);
    }
    assert_eq!(remembered(&tenants), (1, 0));
    assert_eq!(place.names(&mut tenants, &["*.db"]), ["kept.db"]);
}

#[test]
fn a_match_that_cannot_be_looked_at_stays_and_is_told_once() {
    let place = Place::new();
    place.database("one.db");
    let mut tenants = Tenants::default();
    assert_eq!(place.names(&mut tenants, &["*.db"]), ["one.db"]);
    // As root every file can be looked at: a link that leads to itself cannot.
    fs::remove_file(place.path("one.db")).unwrap();
    symlink("one.db", place.path("one.db")).unwrap();
    symlink("other.db", place.path("other.db")).unwrap();
    place.database("two.db");
    for _ in 0..5 {
        assert_eq!(place.names(&mut tenants, &["*.db"]), ["one.db", "two.db"]);
        let places = ["one.db", "other.db"].map(|name| place.path(name));
        assert_eq!(tenants.unreadable, HashSet::from(places));
    }
    // It hides nothing of the others.
    fs::remove_file(place.path("two.db")).unwrap();
    place.names(&mut tenants, &["*.db"]);
    assert_eq!(place.names(&mut tenants, &["*.db"]), ["one.db"]);
    fs::remove_file(place.path("one.db")).unwrap();
    place.names(&mut tenants, &["*.db"]);
    assert_eq!(place.names(&mut tenants, &["*.db"]), [""; 0]);
    assert_eq!(tenants.unreadable, HashSet::from([place.path("other.db")]));
}
