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

fn named(names: &mut Names, tenants: &[Tenant], state: Option<&Path>) -> Vec<String> {
    names.assign(tenants, state).unwrap().into_iter().map(|name| name.name).collect()
}

/// The names as a process assigns them whose actors keep them.
fn run(tenants: &[Tenant], state: Option<&Path>) -> Vec<String> {
    let names = Names::default().assign(tenants, state).unwrap();
    for (tenant, name) in tenants.iter().zip(&names) {
        if let Some(kept) = &name.kept {
            walrust_sqlite::keep_name(&tenant.section.path, state, kept).unwrap();
        }
    }
    names.into_iter().map(|name| name.name).collect()
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
fn d06_names_stay_while_the_process_runs_wherever_local_state_is() {
    let place = Place::new();
    let (first, second) = (place.tenant("x/app.db", None), place.tenant("y/app.db", None));
    let mut names = Names::default();
    assert_eq!(named(&mut names, std::slice::from_ref(&first), None), ["app"]);
    let elsewhere = place.0.path().join("state");
    assert_eq!(named(&mut names, &[second, first], Some(&elsewhere)), ["y/app", "app"]);
}

#[test]
fn d07_names_of_databases_that_are_gone_are_forgotten() {
    let place = Place::new();
    let mut names = Names::default();
    names.assign(&[place.tenant("x/app.db", None)], None).unwrap();
    names.assign(&[], None).unwrap();
    assert!(names.0.is_empty());
}
