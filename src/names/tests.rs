use std::fs;

use super::*;
use crate::config::DatabaseSection;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn tenant(&self, name: &str, below: Option<&str>) -> Tenant {
        let path = self.0.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        let section = DatabaseSection { path, ..DatabaseSection::default() };
        Tenant { section, below: below.map(str::to_owned) }
    }
}

/// The names as a process assigns them that ends when they are kept.
fn run(tenants: &[Tenant], state: Option<&Path>) -> Vec<String> {
    let mut names = Names::default();
    let assigned = names.assign(tenants, state).unwrap();
    while names.keep_some(1) {}
    assigned
}

#[test]
fn d06_a_kept_name_gives_way_to_the_configuration() {
    let place = Place::new();
    let mut app = place.tenant("x/app.db", None);
    assert_eq!(run(std::slice::from_ref(&app), None), ["app"]);
    // Another prefix of its pattern.
    app.below = Some("tenants".to_owned());
    assert_eq!(run(std::slice::from_ref(&app), None), ["tenants/app"]);
    let other = place.tenant("y/app.db", Some("tenants"));
    assert_eq!(run(&[other, app.clone()], None), ["tenants/y/app", "tenants/app"]);
    // A name of its own, and back.
    app.section.prefix = Some("mine".to_owned());
    assert_eq!(run(std::slice::from_ref(&app), None), ["mine"]);
    app.section.prefix = None;
    assert_eq!(run(std::slice::from_ref(&app), None), ["tenants/app"]);
}

#[test]
fn d06_a_copy_with_its_local_state_gets_a_name_of_its_own() {
    let place = Place::new();
    let first = place.tenant("x/app.db", None);
    assert_eq!(run(std::slice::from_ref(&first), None), ["app"]);
    let copy = place.tenant("a/app.db", None);
    let state = |tenant: &Tenant| walrust_sqlite::state_path(&tenant.section.path, None);
    fs::create_dir_all(state(&copy)).unwrap();
    fs::copy(state(&first).join("name"), state(&copy).join("name")).unwrap();
    assert_eq!(run(&[copy.clone(), first.clone()], None), ["a/app", "app"]);
    assert_eq!(run(&[first, copy], None), ["app", "a/app"]);
}

#[test]
fn d06_names_stay_where_no_local_state_can_be_written() {
    let place = Place::new();
    let first = place.tenant("x/app.db", None);
    let state = place.0.path().join("x/app.db/not-a-directory");
    let mut names = Names::default();
    assert_eq!(names.assign(std::slice::from_ref(&first), Some(&state)).unwrap(), ["app"]);
    assert!(!names.keep_some(10));
    let second = place.tenant("y/app.db", None);
    assert_eq!(names.assign(&[first, second], Some(&state)).unwrap(), ["app", "y/app"]);
}

#[test]
fn d06_names_move_with_the_place_of_local_state() {
    let place = Place::new();
    let (first, second) = (place.tenant("x/app.db", None), place.tenant("y/app.db", None));
    let state = place.0.path().join("state");
    let mut names = Names::default();
    names.assign(std::slice::from_ref(&first), None).unwrap();
    while names.keep_some(1) {}
    assert_eq!(names.assign(std::slice::from_ref(&first), Some(&state)).unwrap(), ["app"]);
    while names.keep_some(1) {}
    assert_eq!(run(&[second, first], Some(&state)), ["y/app", "app"]);
}

#[test]
fn d07_names_of_databases_that_are_gone_are_forgotten() {
    let place = Place::new();
    let mut names = Names::default();
    names.assign(&[place.tenant("x/app.db", None)], None).unwrap();
    names.assign(&[], None).unwrap();
    assert!(names.assigned.is_empty());
}
