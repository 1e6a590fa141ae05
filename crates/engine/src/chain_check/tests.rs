use super::*;

/// A database of pages, each with a number as its checksum.
type Pages = Vec<u64>;

fn checksum(page: usize, value: u64) -> Checksum {
    let mixed = (value + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(page as u32);
    Checksum::from_raw(mixed | 1 << 63).unwrap()
}

fn rolling(pages: &Pages) -> Checksum {
    let each = pages.iter().enumerate();
    each.fold(Checksum::EMPTY, |sum, (page, value)| sum.toggle(checksum(page, *value)))
}

/// The file that leads from one state to another.
fn file(min: u64, max: u64, before: &Pages, after: &Pages) -> FileChanges {
    let name = format!("{min:016x}-{max:016x}.ltx").parse::<FileName>().unwrap();
    let changed = |(page, value): &(usize, &u64)| min == 1 || before.get(*page) != Some(*value);
    let pages = after.iter().enumerate().filter(changed);
    FileChanges {
        name,
        page_size: PageSize::ALL[0],
        commit: after.len() as u32,
        pre_apply: (min > 1).then(|| rolling(before)),
        post_apply: rolling(after),
        pages: pages.map(|(page, value)| (page as u32 + 1, checksum(page, *value))).collect(),
    }
}

/// States 1 to 6: the database grows and shrinks.
fn states() -> Vec<Pages> {
    let states: [&[u64]; 6] =
        [&[1, 2, 3], &[1, 4, 3], &[1, 4, 3, 9, 9], &[7, 4], &[7, 5, 8], &[7, 5, 8, 8]];
    states.iter().map(|pages| pages.to_vec()).collect()
}

fn between(min: u64, max: u64) -> FileChanges {
    let states = states();
    let before = if min == 1 { Pages::new() } else { states[min as usize - 2].clone() };
    file(min, max, &before, &states[max as usize - 1])
}

/// A history with a merged file beside its parts and a second snapshot.
fn history() -> Vec<FileChanges> {
    let names = [(1, 1), (2, 2), (3, 3), (4, 4), (2, 4), (1, 4), (5, 5), (6, 6)];
    names.iter().map(|(min, max)| between(*min, *max)).collect()
}

/// The files with problems, by their last and first TXIDs.
fn problems(mut files: Vec<FileChanges>) -> Vec<((u64, u64), ChainProblem)> {
    files.sort_by_key(|file| ChainCheck::order(file.name));
    let mut check = ChainCheck::new(files.iter().map(|file| file.name));
    let name = |file: &FileChanges| (file.name.min.get(), file.name.max.get());
    let added = files.iter().map(|file| (name(file), check.add(file)));
    added.filter_map(|(name, result)| Some((name, result.err()?))).collect()
}

#[track_caller]
fn assert_only(mut found: Vec<((u64, u64), ChainProblem)>, name: (u64, u64), problem: &str) {
    found.retain(|(_, problem)| !matches!(problem, ChainProblem::LostBase { .. }));
    let texts: Vec<String> = found.iter().map(|(name, it)| format!("{name:?} {it}")).collect();
    assert!(!texts.is_empty(), "no problem");
    assert!(
        found.iter().all(|(found, _)| *found == name) && texts[0].contains(problem),
        "{texts:?}"
    );
}

#[test]
fn a_sound_history_has_no_problem_and_keeps_no_pages() {
    let mut files = history();
    assert_eq!(problems(files.clone()), []);
    files.sort_by_key(|file| ChainCheck::order(file.name));
    let mut check = ChainCheck::new(files.iter().map(|file| file.name));
    for file in &files {
        check.add(file).unwrap();
    }
    assert!(check.states.values().all(|state| state.pages.is_none()));
}

#[test]
fn a_page_that_is_not_what_the_checksum_says_is_found_where_it_came_in() {
    for index in 0..history().len() {
        let mut files = history();
        let name = (files[index].name.min.get(), files[index].name.max.get());
        files[index].pages[0].1 = checksum(70, 70);
        assert_only(problems(files), name, "should have checksum");
    }
}

#[test]
fn a_page_less_is_found() {
    let mut files = history();
    files[2].pages.remove(1);
    assert_only(problems(files), (3, 3), "are in no file");
    let mut files = history();
    files[1].pages.pop();
    assert_only(problems(files), (2, 2), "should have checksum");
}

#[test]
fn a_file_that_continues_another_database_is_found() {
    let mut files = history();
    files[6].pre_apply = Some(checksum(70, 70));
    assert_only(problems(files), (5, 5), "continues a database with checksum");
    let mut files = history();
    files[6].pre_apply = None;
    assert_only(problems(files), (5, 5), "does not say");
    let mut files = history();
    files[6].page_size = PageSize::ALL[1];
    assert_eq!(problems(files)[0].0, (5, 5));
}

#[test]
fn two_databases_of_one_txid_are_found() {
    let mut files = history();
    let other = vec![7, 7];
    files[4] = file(2, 4, &states()[0], &other);
    assert_eq!(problems(files)[0].1, ChainProblem::OtherState { txid: Txid::new(4).unwrap() });
}

#[test]
fn a_file_behind_a_gap_is_found_once() {
    let mut files = history();
    files.remove(7);
    files.push(between(6, 6));
    files.remove(6);
    let after = Txid::new(4).unwrap().next();
    assert_eq!(problems(files), [((6, 6), ChainProblem::Unreachable { after })]);
}

#[test]
fn files_that_only_follow_one_with_a_problem_are_all_found() {
    let after = |txid| ChainProblem::LostBase { after: Txid::new(txid).unwrap() };
    let files: Vec<_> = (1..=6).map(|txid| between(txid, txid)).collect();
    for lost in 2..=4 {
        let mut damaged = files.clone();
        damaged[lost as usize - 1].pages.clear();
        let found = problems(damaged);
        assert_eq!(found[0].0, (lost, lost));
        let behind: Vec<_> = (lost + 1..=6).map(|txid| ((txid, txid), after(txid - 1))).collect();
        assert_eq!(found[1..], behind);
        let mut gone = files.clone();
        gone.remove(lost as usize - 1);
        let found = problems(gone);
        assert!(matches!(found[0].1, ChainProblem::Unreachable { .. }), "{found:?}");
        assert_eq!(found[1..], behind[1..]);
    }
    // Another way leads there.
    let mut files = history();
    files[1].pages.clear();
    let found = problems(files);
    assert_eq!(found[1..], [((3, 3), after(2)), ((4, 4), after(3))]);
}

#[test]
fn behind_a_file_that_cannot_be_read_links_are_still_checked() {
    let mut files = history();
    files.sort_by_key(|file| ChainCheck::order(file.name));
    let mut check = ChainCheck::new(files.iter().map(|file| file.name));
    for file in &mut files {
        match (file.name.min.get(), file.name.max.get()) {
            (5, 5) => check.skip(file.name),
            (6, 6) => {
                assert!(matches!(check.add(file), Err(ChainProblem::LostBase { .. })));
            }
            _ => check.add(file).unwrap(),
        }
    }
    let mut check = ChainCheck::new(files.iter().map(|file| file.name));
    check.skip(between(1, 1).name);
    assert!(matches!(check.add(&between(2, 2)), Err(ChainProblem::LostBase { .. })));
    let mut wrong = between(3, 3);
    wrong.pre_apply = Some(checksum(1, 1));
    assert!(matches!(check.add(&wrong), Err(ChainProblem::BrokenLink { .. })));
}
