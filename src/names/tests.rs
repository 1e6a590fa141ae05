use std::fs;

use super::*;
use crate::config::DatabaseSection;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        // A pattern does not enter directories whose names begin with a dot.
        Self(tempfile::Builder::new().prefix("names").tempdir().unwrap())
    }

    fn tenant(&self, name: &str, below: Option<&str>) -> Tenant {
        let path = self.0.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        let section = DatabaseSection { path, ..DatabaseSection::default() };
        Tenant { section, below: below.map(str::to_owned) }
    }
}

/// Every tenant is a match of it.
fn pattern() -> FilePattern {
    FilePattern::new(Path::new("/**/*.db")).unwrap()
}

fn assigned(names: &mut Names, tenants: &[Tenant], state: Option<&Path>) -> Vec<Name> {
    names.assign(tenants, &[pattern()], state).unwrap().into_iter().map(Result::unwrap).collect()
}

fn named(names: &mut Names, tenants: &[Tenant], state: Option<&Path>) -> Vec<String> {
    assigned(names, tenants, state).into_iter().map(|name| name.name).collect()
}

/// The names as a process assigns them whose actors keep them.
fn run(tenants: &[Tenant], state: Option<&Path>) -> Vec<String> {
    let names = assigned(&mut Names::default(), tenants, state);
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
fn d06_the_name_of_a_database_that_is_gone_waits_for_it() {
    let place = Place::new();
    let (smiths, romneys) =
        (place.tenant("smiths/app.db", None), place.tenant("romneys/app.db", None));
    let mut names = Names::default();
    assert_eq!(named(&mut names, std::slice::from_ref(&smiths), None), ["app"]);
    assert_eq!(named(&mut names, &[], None), [""; 0]);
    assert_eq!(named(&mut names, std::slice::from_ref(&romneys), None), ["romneys/app"]);
    assert_eq!(named(&mut names, &[romneys, smiths], None), ["romneys/app", "app"]);
}

#[test]
fn d07_the_name_of_a_database_that_was_forgotten_is_free() {
    let place = Place::new();
    let (smiths, romneys) =
        (place.tenant("smiths/app.db", None), place.tenant("romneys/app.db", None));
    let gone = |names: &mut Names| {
        assert_eq!(named(names, std::slice::from_ref(&smiths), None), ["app"]);
        assert_eq!(named(names, &[], None), [""; 0]);
    };
    let mut names = Names::default();
    gone(&mut names);
    names.forget_after(Duration::from_secs(3600));
    assert_eq!(named(&mut names, std::slice::from_ref(&romneys), None), ["romneys/app"]);
    let mut names = Names::default();
    gone(&mut names);
    names.forget_after(Duration::ZERO);
    assert_eq!(named(&mut names, std::slice::from_ref(&romneys), None), ["app"]);
}

#[test]
fn d06_the_name_of_a_database_that_no_pattern_matches_goes_with_it() {
    let place = Place::new();
    let (before, moved) = (place.tenant("old/app.db", None), place.tenant("new/app.db", None));
    let mut names = Names::default();
    let mut assign =
        |tenants: &[Tenant]| names.assign(tenants, &[], None).unwrap().remove(0).unwrap().name;
    assert_eq!(assign(&[before]), "app");
    assert_eq!(assign(&[moved]), "app");
}

#[test]
fn d06_a_name_that_cannot_be_read_is_no_reason_for_another_and_concerns_nobody_else() {
    let place = Place::new();
    let (smiths, romneys) =
        (place.tenant("smiths/app.db", None), place.tenant("romneys/app.db", None));
    assert_eq!(run(std::slice::from_ref(&smiths), None), ["app"]);
    let file = walrust_sqlite::state_path(&smiths.section.path, None).join("name");
    let written = fs::read(&file).unwrap();
    for damaged in [&b""[..], b"{", b"{\"name\":\"\",\"path\":\"\"}", &written[..written.len() / 2]]
    {
        fs::write(&file, damaged).unwrap();
        let mut names = Names::default();
        let assigned =
            names.assign(&[smiths.clone(), romneys.clone()], &[pattern()], None).unwrap();
        let [Err(error), Ok(other)] = assigned.as_slice() else { panic!("{assigned:?}") };
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
        // Not `app`, which the first may have had.
        assert_eq!(other.name, "romneys/app");
    }
    // What it is called is known while the process runs.
    let mut names = Names::default();
    fs::write(&file, &written).unwrap();
    assert_eq!(named(&mut names, std::slice::from_ref(&smiths), None), ["app"]);
    fs::write(&file, "{").unwrap();
    assert_eq!(named(&mut names, &[smiths], None), ["app"]);
}

#[test]
fn d06_a_file_that_is_about_to_be_replaced_keeps_its_name() {
    let place = Place::new();
    let (smiths, romneys) =
        (place.tenant("smiths/app.db", None), place.tenant("romneys/app.db", None));
    assert_eq!(run(std::slice::from_ref(&smiths), None), ["app"]);
    fs::remove_file(&smiths.section.path).unwrap();
    assert_eq!(run(&[romneys, smiths.clone()], None), ["romneys/app", "app"]);
    // Not even its directory is there.
    let parent = smiths.section.path.parent().unwrap();
    fs::remove_dir_all(parent).unwrap();
    assert_eq!(run(std::slice::from_ref(&smiths), None), ["app"]);
    fs::remove_dir_all(parent).unwrap();
    fs::write(parent, "a file").unwrap();
    let name = Names::default().assign(&[smiths], &[], None).unwrap().remove(0).unwrap();
    assert_eq!(name.name, "app");
}
