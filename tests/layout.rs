//! The shape of the workspace, as ARCHITECTURE.md draws it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What each package depends on. Arrows point down only.
const ARROWS: [(&str, &[&str]); 9] = [
    ("walrust-ltx", &[]),
    ("walrust-wal", &[]),
    ("walrust-engine", &["walrust-ltx", "walrust-wal"]),
    ("walrust-sqlite", &["walrust-engine", "walrust-ltx", "walrust-wal"]),
    ("walrust-storage", &["walrust-engine"]),
    ("walrust-history", &["walrust-engine", "walrust-ltx", "walrust-sqlite", "walrust-storage"]),
    (
        "walrust-actors",
        &["walrust-engine", "walrust-history", "walrust-ltx", "walrust-sqlite", "walrust-storage"],
    ),
    (
        "walrust",
        &[
            "walrust-actors",
            "walrust-engine",
            "walrust-history",
            "walrust-ltx",
            "walrust-sqlite",
            "walrust-storage",
        ],
    ),
    // For tests only: nothing may depend on it but tests.
    ("walrust-testkit", &["walrust-wal"]),
];

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The packages of the workspace with their dependencies, as cargo reads the manifests.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let output = Command::new(cargo).args(arguments).current_dir(root()).output();
    let output = output.expect("cargo has built this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    metadata["packages"].as_array().expect("a list of packages").clone()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Names of the dependencies of a kind: `Some("dev")`, or `None` for those of the package itself.
fn dependencies<'a>(package: &'a Value, kind: Option<&str>) -> BTreeSet<&'a str> {
    let all = package["dependencies"].as_array().expect("a list of dependencies");
    let of_kind = all.iter().filter(|dependency| dependency["kind"].as_str() == kind);
    of_kind.map(|dependency| text(dependency, "name")).collect()
}

#[test]
fn dependencies_are_those_of_the_map() {
    let arrows = BTreeMap::from(ARROWS);
    let packages = packages();
    let names: BTreeSet<&str> = packages.iter().map(|package| text(package, "name")).collect();
    assert_eq!(names, arrows.keys().copied().collect(), "a package without a place in the map");
    for package in &packages {
        let name = text(package, "name");
        let all = &dependencies(package, None) | &dependencies(package, Some("build"));
        // An arrow that nothing needs would be an invitation.
        let mapped = arrows[name].iter().copied().collect();
        assert_eq!(&all & &names, mapped, "dependencies of {name}, and the map");
    }
    // A package stands behind those that it depends on: no circle, and none points up.
    for (place, (name, dependencies)) in ARROWS.iter().enumerate() {
        let before: Vec<_> = ARROWS[..place].iter().map(|(name, _)| name).collect();
        let points_up = dependencies.iter().find(|dependency| !before.contains(dependency));
        assert_eq!(points_up, None, "a dependency of {name}");
    }
}

#[test]
fn actors_alone_import_ractor() {
    for package in packages() {
        for kind in [None, Some("dev"), Some("build")] {
            let imports = dependencies(&package, kind).contains("ractor");
            let is_actors = text(&package, "name") == "walrust-actors";
            assert!(!imports || is_actors, "{} imports ractor", text(&package, "name"));
        }
    }
}

/// All Rust files of the repository.
pub(crate) fn sources() -> Vec<PathBuf> {
    fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("a directory of the repository") {
            let path = entry.expect("an entry of the repository").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_hidden = name.starts_with('.') || name == "target";
            match path.extension() {
                _ if is_hidden => {}
                _ if path.is_dir() => collect(&path, found),
                Some(extension) if extension == "rs" => found.push(path),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    collect(root(), &mut found);
    assert!(found.len() > 100, "all sources, not {}", found.len());
    found
}

#[test]
fn no_file_is_longer_than_one_can_read() {
    const MOST: usize = 500;
    for path in sources() {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= MOST, "{} has {lines} lines", path.display());
    }
}

/// The modules of the root package that a source of it imports.
fn imports(text: &str) -> BTreeSet<String> {
    let outside_tests = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut imports = BTreeSet::new();
    for path in outside_tests.split("crate::").skip(1) {
        let names = match path.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap_or_default(),
            None => path,
        };
        let is_part = |c: char| c == '_' || c.is_ascii_alphanumeric();
        let first = |name: &str| name.trim().split(|c| !is_part(c)).next().map(str::to_owned);
        match path.starts_with('{') {
            true => imports.extend(names.split(',').filter_map(first)),
            false => imports.extend(first(names)),
        }
    }
    imports
}

#[test]
fn the_modules_of_the_program_import_in_no_circle() {
    let mut modules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let source = root().join("src");
    for path in sources().iter().filter(|path| path.file_stem().is_some_and(|it| it != "tests")) {
        let Ok(inside) = path.strip_prefix(&source) else { continue };
        let module = inside.iter().next().expect("a file has a name").to_string_lossy();
        let module = module.trim_end_matches(".rs").to_owned();
        let imports = imports(&fs::read_to_string(path).unwrap());
        modules.entry(module).or_default().extend(imports);
    }
    // What begins with a capital is the error type, which imports nothing.
    let names: BTreeSet<String> = modules.keys().cloned().collect();
    for (module, imports) in &mut modules {
        imports.retain(|import| import != module && names.contains(import));
    }
    assert!(modules["follower"].contains("settings") && modules["error"].is_empty(), "{modules:?}");
    while let Some(leaf) = modules.keys().find(|module| modules[*module].is_empty()).cloned() {
        modules.remove(&leaf);
        modules.values_mut().for_each(|imports| imports.retain(|import| *import != leaf));
    }
    assert_eq!(modules, BTreeMap::new(), "these import one another");
}

#[test]
fn panics_unwind_in_every_profile() {
    for package in packages() {
        let manifest = fs::read_to_string(text(&package, "manifest_path")).unwrap();
        assert!(!manifest.contains("\"abort\""), "supervision catches panics, aborts end all");
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let caught = std::panic::catch_unwind(|| panic!("to be caught"));
    std::panic::set_hook(hook);
    assert!(caught.is_err());
}
