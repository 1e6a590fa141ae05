use walrust_wal::{Salts, WalChecksum};

use super::*;

fn page(pgno: Pgno, fill: u8) -> Checksum {
    Checksum::of_page(pgno, &[fill; 512])
}

fn position(txid: u64, pages: &[Checksum]) -> Position {
    Position {
        txid: Txid::new(txid).unwrap(),
        checksum: pages.iter().fold(Checksum::EMPTY, |sum, page| sum.toggle(*page)),
        page_size: PageSize::try_from(512).unwrap(),
        page_count: u32::try_from(pages.len()).unwrap(),
        timestamp_ms: 1_700_000_000_000,
        wal: WalPosition { salts: Salts(1, 2), frames: 3, checksum: WalChecksum { s1: 4, s2: 5 } },
    }
}

struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn database(&self) -> PathBuf {
        self.directory.path().join("app.db")
    }

    fn open(&self) -> StateDirectory {
        StateDirectory::open(&self.database(), None).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        state_path(&self.database(), None).join(name)
    }
}

#[test]
fn a_saved_position_is_loaded_with_its_table() {
    let fixture = Fixture::new();
    let state = fixture.open();
    assert_eq!(state.load().unwrap(), None);
    let first = position(1, &[page(1, 1), page(2, 1)]);
    state.save(&first, &[(1, page(1, 1)), (2, page(2, 1))]).unwrap();
    let second = position(5, &[page(1, 1), page(2, 7), page(3, 7)]);
    state.save(&second, &[(2, page(2, 7)), (3, page(3, 7))]).unwrap();
    drop(state);
    assert_eq!(fixture.open().load().unwrap(), Some(second));
}

#[test]
fn a_crash_before_the_table_was_changed_is_repaired_from_the_redo_file() {
    let fixture = Fixture::new();
    let state = fixture.open();
    state.save(&position(1, &[page(1, 1)]), &[(1, page(1, 1))]).unwrap();
    let old_table = fs::read(fixture.file("pages.crc64")).unwrap();
    let second = position(2, &[page(1, 9)]);
    state.save(&second, &[(1, page(1, 9))]).unwrap();
    fs::write(fixture.file("pages.crc64"), old_table).unwrap();
    assert_eq!(state.load().unwrap(), Some(second));
}

#[test]
fn a_crash_before_the_position_was_replaced_leaves_the_old_state() {
    let fixture = Fixture::new();
    let state = fixture.open();
    let first = position(1, &[page(1, 1)]);
    state.save(&first, &[(1, page(1, 1))]).unwrap();
    let redo = redo_bytes(Txid::new(2).unwrap(), &[(1, page(1, 9))]);
    fs::write(fixture.file("pages.redo"), redo).unwrap();
    assert_eq!(state.load().unwrap(), Some(first));
}

#[test]
fn a_table_that_does_not_add_up_is_lost_not_trusted() {
    let fixture = Fixture::new();
    let state = fixture.open();
    state.save(&position(1, &[page(1, 1)]), &[(1, page(1, 1))]).unwrap();
    fs::remove_file(fixture.file("pages.redo")).unwrap();
    fs::write(fixture.file("pages.crc64"), page(1, 2).raw().to_le_bytes()).unwrap();
    assert_eq!(state.load().unwrap(), None);
}

#[test]
fn damaged_or_foreign_files_are_treated_as_lost() {
    let fixture = Fixture::new();
    let state = fixture.open();
    state.save(&position(1, &[page(1, 1)]), &[(1, page(1, 1))]).unwrap();
    for bytes in [&b"{"[..], b"", b"{\"format\": 99}"] {
        fs::write(fixture.file("position.json"), bytes).unwrap();
        assert_eq!(state.load().unwrap(), None);
    }
}

#[test]
fn a_second_owner_is_refused_and_the_lock_goes_with_its_owner() {
    let fixture = Fixture::new();
    let state = fixture.open();
    let second = StateDirectory::open(&fixture.database(), None);
    assert!(matches!(second, Err(DatabaseError::Owned { .. })));
    drop(state);
    fixture.open();
}

#[test]
fn only_named_files_and_their_notes_stay_in_staging() {
    let fixture = Fixture::new();
    let state = fixture.open();
    let kept = "0000000000000002-0000000000000003";
    let other = "0000000000000004-0000000000000004";
    for name in [kept, other] {
        for suffix in ["ltx", "wal.json", "ltx.tmp"] {
            fs::write(state.staging().join(format!("{name}.{suffix}")), b"x").unwrap();
        }
    }
    state.clear_staging(&[format!("{kept}.ltx").parse().unwrap()]).unwrap();
    let entries = fs::read_dir(state.staging()).unwrap();
    let mut left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [format!("{kept}.ltx").as_str(), format!("{kept}.wal.json").as_str()]);
}
