//! `docs/faults.md` names the tests that there are, and all that are named after a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::layout::{root, sources};

/// How many faults of each kind there are.
const FAULTS: [(char, usize); 5] = [('A', 27), ('B', 20), ('C', 17), ('D', 7), ('E', 12)];

/// The tests of each fault, such as `A1`.
fn page() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("docs/faults.md")).expect("the page");
    let mut page = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [fault, _, tests] = cells[..] else { panic!("three cells: {line}") };
        if fault.is_empty() {
            continue;
        }
        let names: BTreeSet<_> = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let says_why = tests.ends_with("and so no test.");
        assert_eq!(names.is_empty(), says_why, "tests, or that there are none: {line}");
        assert!(page.insert(fault.to_owned(), names).is_none(), "{fault} is there twice");
    }
    page
}

/// The names of all functions, and those that a macro makes tests of.
fn functions() -> BTreeSet<String> {
    let is_part = |c: char| c == '_' || c.is_ascii_alphanumeric();
    let first = |text: &str| text.split(|c| !is_part(c)).next().unwrap_or_default().to_owned();
    let mut names = BTreeSet::new();
    for path in sources() {
        for line in fs::read_to_string(path).expect("a source").lines().map(str::trim_start) {
            if line.starts_with("//") {
                continue;
            }
            names.extend(line.split("fn ").skip(1).map(first));
            // `name: what it does,` within a macro.
            let named = line.split_once(": ").filter(|(name, _)| !faults_of(name).is_empty());
            names.extend(named.map(|(name, _)| first(name)));
        }
    }
    names
}

/// The faults that a test is named after: `A1` and `A2` for `a01_a02_and_so_on`.
fn faults_of(name: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for part in name.split('_') {
        let mut letters = part.chars();
        let kind = letters.next().filter(|letter| ('a'..='e').contains(letter));
        let (Some(kind), Ok(number)) = (kind, letters.as_str().parse::<u32>()) else { break };
        faults.push(format!("{}{number}", kind.to_ascii_uppercase()));
    }
    faults
}

#[test]
fn each_fault_has_its_tests_and_each_test_its_fault() {
    let (page, functions) = (page(), functions());
    let all =
        FAULTS.iter().flat_map(|(kind, most)| (1..=*most).map(move |it| format!("{kind}{it}")));
    assert_eq!(page.keys().cloned().collect::<BTreeSet<_>>(), all.collect());
    let named: BTreeSet<_> = page.values().flatten().cloned().collect();
    assert_eq!(named.difference(&functions).collect::<Vec<_>>(), [""; 0], "no such test");
    let mut missing = Vec::new();
    for name in &functions {
        for fault in faults_of(name) {
            if !page.get(&fault).is_some_and(|tests| tests.contains(name)) {
                missing.push(format!("{fault}: {name}"));
            }
        }
    }
    assert_eq!(missing, [""; 0], "tests that are named after a fault and not on the page");
}

#[test]
fn names_of_faults_are_read_as_they_are_written() {
    assert_eq!(faults_of("a01_a_tail"), ["A1"]);
    assert_eq!(faults_of("c06_c07_every_restore_point"), ["C6", "C7"]);
    assert_eq!(faults_of("a_tail"), [""; 0]);
    assert_eq!(faults_of("f01_a_tail"), [""; 0]);
}
