//! The fixtures: found by name from any test, copied whole.

use std::fs;

use walrust_testkit::Fixture;

#[test]
fn every_litestream_replica_says_what_it_restores_to() {
    let names = Fixture::names("litestream-replica-");
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let fixture = Fixture::named(&name);
        assert!(fixture.expected().contains("restored_db_sha256"), "{name}");
    }
}

#[test]
fn a_copy_can_be_changed() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = Fixture::named("litestream-replica-0517-ps512");
    fixture.copy_to(directory.path());
    let level = directory.path().join("replica/ltx/0");
    let original = fixture.path().join("replica/ltx/0");
    let count = |path| fs::read_dir(path).unwrap().count();
    assert!(count(&level) > 0);
    assert_eq!(count(&level), count(&original));
    fs::write(directory.path().join("expected.json"), "changed").unwrap();
    assert_ne!(fixture.expected(), "changed");
}

#[test]
#[should_panic(expected = "no fixture \"litestream-0.1\"; there are [")]
fn a_missing_fixture_is_named() {
    let _ = Fixture::named("litestream-0.1");
}
