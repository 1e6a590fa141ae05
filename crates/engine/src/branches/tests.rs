use super::*;

fn txid(number: u64) -> Txid {
    Txid::new(number).expect("a test uses TXIDs from 1")
}

fn name(min: u64, max: u64) -> FileName {
    FileName { min: txid(min), max: txid(max) }
}

fn checksum(state: u64) -> Checksum {
    Checksum::from_raw(1 << 63 | state).expect("the first bit is set")
}

/// Files as (min, max, the state before, the state after, time); without a state before: snapshots.
type Files<'a> = &'a [(u64, u64, u64, u64, i64)];

fn changes(files: Files) -> StateChanges {
    let change = |&(min, max, from, to, timestamp_ms): &_| {
        let from = (min > 1).then(|| checksum(from));
        (name(min, max), Some(StateChange { from, to: checksum(to), timestamp_ms, is_own: false }))
    };
    files.iter().map(change).collect()
}

fn abandoned(files: Files) -> Vec<(u64, u64)> {
    let names = files.iter().map(|file| name(file.0, file.1));
    match find_branches(names, &changes(files)) {
        Branches::Abandoned(files) => {
            files.iter().map(|file| (file.min.get(), file.max.get())).collect()
        }
        unknown @ Branches::Unknown(_) => panic!("{unknown:?}"),
    }
}

#[test]
fn names_are_enough_for_a_chain() {
    let names = [name(1, 1), name(2, 10), name(1, 10), name(11, 12), name(13, 20)];
    assert_eq!(find_branches(names, &StateChanges::new()), Branches::Abandoned(BTreeSet::new()));
}

#[test]
fn the_ends_of_files_that_overlap_and_of_what_follows_have_to_be_known() {
    let names = [name(1, 1), name(2, 10), name(2, 4), name(11, 12), name(13, 20)];
    let needed = BTreeSet::from([name(1, 1), name(2, 10), name(2, 4), name(11, 12)]);
    assert_eq!(find_branches(names, &StateChanges::new()), Branches::Unknown(needed));
}

#[test]
fn merged_files_beside_their_sources_are_no_branch() {
    let merged =
        [(1, 1, 0, 1, 1), (2, 9, 1, 9, 9), (2, 4, 1, 4, 4), (5, 9, 4, 9, 9), (10, 10, 9, 10, 10)];
    assert_eq!(abandoned(&merged), []);
    assert_eq!(abandoned(&merged[..4]), []);
}

#[test]
fn what_the_owner_vouches_for_goes_on_until_the_other_branch_is_continued() {
    // The clock of the host that has lost the name is ahead.
    let files = [(1, 1, 0, 1, 1), (2, 9, 1, 9, 9), (10, 12, 9, 112, 99), (10, 10, 9, 110, 30)];
    assert_eq!(abandoned(&files), [(10, 10)]);
    let vouched = |files: Files| {
        let mut changes = changes(files);
        let own = changes.get_mut(&name(10, 10)).and_then(Option::as_mut);
        own.expect("it is there").is_own = true;
        find_branches(files.iter().map(|file| name(file.0, file.1)), &changes)
    };
    assert_eq!(vouched(&files), Branches::Abandoned(BTreeSet::from([name(10, 12)])));
    let mut continued = files.to_vec();
    continued.push((13, 13, 112, 113, 40));
    assert_eq!(vouched(&continued), Branches::Abandoned(BTreeSet::from([name(10, 10)])));
}

/// A killed process had counted to 22, its successor begins behind 9 as well.
#[test]
fn an_upload_that_comes_late_is_abandoned_though_its_txid_is_higher() {
    let early = [(1, 1, 0, 1, 1), (2, 9, 1, 9, 9), (10, 22, 9, 122, 22), (10, 10, 9, 110, 30)];
    assert_eq!(abandoned(&early), [(10, 22)]);
    let [a, b, late, begun] = early;
    // The successor goes on; at 22 the names would lead from one branch to the other.
    let further = [a, b, late, begun, (11, 22, 110, 222, 40), (23, 24, 222, 224, 41)];
    assert_eq!(abandoned(&further), [(10, 22)]);
    assert_eq!(abandoned(&further[..5]), [(10, 22)]);
}

#[test]
fn a_branch_that_was_continued_is_the_one_that_goes_on() {
    let files = [
        (1, 1, 0, 1, 1),
        (2, 9, 1, 9, 9),
        (10, 22, 9, 122, 22),
        (10, 10, 9, 110, 30),
        (11, 12, 110, 112, 31),
        (23, 23, 122, 123, 40),
    ];
    assert_eq!(abandoned(&files), [(10, 10), (11, 12)]);
}

#[test]
fn branches_with_equal_txids_are_told_apart_by_their_ends() {
    let files = [
        (1, 1, 0, 1, 1),
        (2, 5, 1, 105, 5),
        (2, 3, 1, 203, 3),
        (4, 5, 203, 205, 6),
        // Both were continued once more.
        (6, 9, 105, 109, 7),
        (6, 8, 205, 208, 8),
        (9, 9, 208, 209, 9),
    ];
    assert_eq!(abandoned(&files), [(2, 5), (6, 9)]);
}

#[test]
fn a_chain_that_begins_anew_leaves_behind_what_is_older() {
    let late = [(1, 1, 0, 1, 1), (2, 9, 1, 9, 9), (10, 22, 9, 122, 22), (1, 10, 0, 110, 30)];
    assert_eq!(abandoned(&late), [(10, 22)]);
    let [a, b, late, begun] = late;
    assert_eq!(abandoned(&[a, b, late, begun, (11, 12, 110, 112, 31)]), [(10, 22)]);
    // A snapshot that comes late.
    assert_eq!(abandoned(&[a, b, (1, 22, 0, 122, 22), (10, 10, 9, 110, 30)]), [(1, 22)]);
    assert_eq!(abandoned(&[a, (1, 22, 0, 122, 22), (1, 10, 0, 110, 30)]), [(1, 22)]);
}

#[test]
fn a_chain_that_begins_anew_behind_another_leaves_it_whole() {
    let files = [(1, 1, 0, 1, 1), (2, 9, 1, 9, 9), (1, 10, 0, 110, 9), (11, 12, 110, 112, 31)];
    assert_eq!(abandoned(&files), []);
    assert_eq!(abandoned(&files[..3]), []);
}

#[test]
fn snapshots_that_merged_files_pass_stay() {
    let files = [(1, 1, 0, 1, 1), (1, 6, 0, 6, 6), (2, 9, 1, 9, 9), (1, 4, 0, 4, 4)];
    assert_eq!(abandoned(&files), []);
}

#[test]
fn a_file_that_continues_another_history_is_not_the_one_that_goes_on() {
    let files = [(1, 1, 0, 1, 1), (2, 9, 1, 9, 9), (2, 12, 501, 512, 90), (10, 10, 9, 10, 10)];
    assert_eq!(abandoned(&files), [(2, 12)]);
}

#[test]
fn nothing_is_abandoned_on_the_word_of_a_file_that_cannot_be_read() {
    let files = [(1, 1, 0, 1, 1), (2, 9, 1, 9, 9), (10, 22, 9, 122, 22), (10, 10, 9, 110, 30)];
    for damaged in [name(10, 22), name(10, 10)] {
        let mut changes = changes(&files);
        changes.insert(damaged, None);
        let names = files.iter().map(|file| name(file.0, file.1));
        assert_eq!(find_branches(names, &changes), Branches::Abandoned(BTreeSet::new()));
    }
}
