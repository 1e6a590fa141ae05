//! Merging: what is refused, and what a merged file carries.

use std::io;

use walrust_ltx::{Checksum, Decoder, Error, Header, MergeOptions, Mode, Summary, merge};

use crate::support::{
    Decoded, Pages, apply, decode, encode, header, page_size, pages, rolling, txid, with_frames,
};

fn merge_all(
    files: &[Vec<u8>],
    options: MergeOptions,
) -> Result<(Decoded, Header, Summary), Error> {
    let inputs = files.iter().map(|file| Decoder::new(file.as_slice(), Mode::Strict));
    let inputs = inputs.collect::<Result<_, _>>()?;
    let (file, header, summary) = merge(inputs, Vec::new(), options)?;
    Ok((decode(&file, Mode::Strict)?, header, summary))
}

fn merge_plain(files: &[Vec<u8>]) -> Result<Decoded, Error> {
    merge_all(files, MergeOptions::default()).map(|(decoded, ..)| decoded)
}

fn file(commit: u32, min: u64, max: u64, pages: &Pages) -> Vec<u8> {
    encode(&header(commit, min, max), pages, None).unwrap()
}

/// Files that track checksums: three pages, a change of the second, a fourth page.
fn tracked() -> Vec<Vec<u8>> {
    let mut database = Pages::new();
    let mut files = Vec::new();
    for (number, commit, changed) in
        [(1, 3, pages(1..=3, 1)), (2, 3, pages([2], 2)), (3, 4, pages([1, 4], 3))]
    {
        let mut header = header(commit, number, number);
        header.tracking = true;
        header.pre_apply = (number > 1).then(|| rolling(&database));
        header.node_id = 7;
        header.timestamp_ms = 1000 * i64::try_from(number).unwrap();
        (header.wal_offset, header.wal_size, header.wal_salt1) = (32, 4096, 5);
        database.extend(changed.clone());
        files.push(encode(&header, &changed, Some(rolling(&database))).unwrap());
    }
    files
}

#[test]
fn the_newest_page_wins_and_the_header_is_that_of_the_format() {
    let files = tracked();
    let (merged, header, summary) = merge_all(&files, MergeOptions::default()).unwrap();
    let mut database = Pages::new();
    files.iter().for_each(|file| apply(&mut database, &decode(file, Mode::Strict).unwrap()));
    assert_eq!(merged.pages, database);
    assert_eq!(merged.trailer.post_apply, Some(rolling(&database)));
    let expected = Header {
        tracking: true,
        timestamp_ms: 3000,
        ..Header::new(page_size(512), 4, txid(1), txid(3))
    };
    assert_eq!((&merged.header, &header), (&expected, &expected));
    assert_eq!(summary.pages, 4);
}

#[test]
fn an_increment_keeps_the_checksum_before_it() {
    let files = tracked();
    let first = decode(&files[0], Mode::Strict).unwrap();
    let merged = merge_plain(&files[1..]).unwrap();
    assert_eq!(merged.header.pre_apply, first.trailer.post_apply);
}

#[test]
fn checksums_are_left_out_on_demand_and_when_an_input_has_none() {
    let mut files = tracked();
    let without = MergeOptions { without_checksums: true };
    let expected = merge_plain(&files).unwrap().pages;
    let (merged, ..) = merge_all(&files, without).unwrap();
    assert!(!merged.header.tracking && merged.trailer.post_apply.is_none());
    assert_eq!(merged.pages, expected);
    for index in 0..files.len() {
        let mut mixed = files.clone();
        let decoded = decode(&mixed[index], Mode::Strict).unwrap();
        let plain = Header { tracking: false, pre_apply: None, ..decoded.header };
        mixed[index] = encode(&plain, &decoded.pages, None).unwrap();
        let merged = merge_plain(&mixed).unwrap();
        assert!(!merged.header.tracking && merged.trailer.post_apply.is_none());
        assert_eq!(merged.pages, expected);
    }
    files.truncate(1);
    assert!(merge_plain(&files).unwrap().header.tracking);
}

#[test]
fn lz4_frames_come_out_as_blocks() {
    let snapshot = with_frames(&header(3, 1, 1), &pages(1..=3, 1), None);
    assert_eq!(snapshot[104..106], [0, 0]);
    let inputs = vec![Decoder::new(snapshot.as_slice(), Mode::Strict).unwrap()];
    let (file, ..) = merge(inputs, Vec::new(), MergeOptions::default()).unwrap();
    assert_eq!(file[104..106], [0, 1]);
    assert_eq!(decode(&file, Mode::Strict).unwrap().pages, pages(1..=3, 1));
}

#[test]
fn inputs_must_follow_each_other() {
    let one = |min, max| file(9, min, max, &pages([2], 1));
    assert!(matches!(merge_plain(&[]), Err(Error::NothingToMerge)));
    let gap = merge_plain(&[one(2, 3), one(5, 6)]).unwrap_err();
    assert!(matches!(gap, Error::NotContiguous { after, .. } if after == txid(3)), "{gap}");
    for (first, second) in [((2, 3), (2, 3)), ((2, 4), (3, 4)), ((5, 5), (2, 4))] {
        let files = [one(first.0, first.1), one(second.0, second.1)];
        assert!(matches!(merge_plain(&files), Err(Error::NotContiguous { .. })));
    }
    for second in [(2, 4), (3, 4), (4, 4)] {
        merge_plain(&[one(2, 3), one(second.0, second.1)]).unwrap();
    }
}

#[test]
fn page_sizes_must_be_equal() {
    let large = Header::new(page_size(1024), 3, txid(3), txid(3));
    let large = encode(&large, &Pages::from([(1, vec![1; 1024])]), None).unwrap();
    let error = merge_plain(&[file(3, 2, 2, &pages([1], 1)), large]).unwrap_err();
    assert!(matches!(error, Error::MixedPageSizes { first: 512, other: 1024 }));
}

#[test]
fn a_damaged_input_fails_the_merge_even_if_none_of_its_pages_is_used() {
    let good = file(3, 3, 3, &pages([1], 2));
    for damage in [-1_isize, -40, 120] {
        let mut bad = file(3, 2, 2, &pages([1], 1));
        let at = if damage < 0 { bad.len() - damage.unsigned_abs() } else { damage.unsigned_abs() };
        bad[at] ^= 1;
        merge_plain(&[bad, good.clone()]).unwrap_err();
    }
}

#[test]
fn a_broken_chain_of_checksums_is_refused() {
    let mut files = tracked();
    let decoded = decode(&files[1], Mode::Strict).unwrap();
    let wrong = Header { pre_apply: Some(Checksum::EMPTY), ..decoded.header };
    files[1] = encode(&wrong, &decoded.pages, decoded.trailer.post_apply).unwrap();
    let error = merge_plain(&files).unwrap_err();
    assert!(matches!(error, Error::BrokenChain { expected, .. } if expected == Checksum::EMPTY));
    assert!(error.is_corruption());
    // Where ranges overlap there is no state between the files to compare.
    let later = Header { min_txid: txid(3), max_txid: txid(4), ..wrong };
    let overlapping = encode(&later, &decoded.pages, decoded.trailer.post_apply).unwrap();
    merge_plain(&[files[2].clone(), overlapping]).unwrap();
}

#[test]
fn pages_cut_off_by_a_later_file_are_dropped() {
    let files = [file(9, 2, 2, &pages([1, 8, 9], 1)), file(5, 3, 3, &pages([1], 2))];
    let merged = merge_plain(&files).unwrap();
    assert_eq!((merged.header.commit, merged.pages), (5, pages([1], 2)));
}

#[test]
fn pages_from_before_a_shrink_do_not_come_back() {
    let before = file(9, 2, 2, &pages(5..=9, 1));
    let shrink = file(5, 3, 3, &pages([1], 2));
    let grow = |numbers: &[u32]| file(9, 4, 4, &pages(numbers.iter().copied(), 3));
    let merged = merge_plain(&[before.clone(), shrink.clone(), grow(&[6, 7, 8, 9])]).unwrap();
    let mut expected = pages(6..=9, 3);
    expected.extend(pages([5], 1));
    expected.extend(pages([1], 2));
    assert_eq!(merged.pages, expected);
    for (numbers, missing) in [(&[7, 8, 9][..], 6), (&[6, 8, 9], 7), (&[6, 7, 8], 9), (&[], 6)] {
        let files = [before.clone(), shrink.clone(), grow(numbers)];
        let error = merge_plain(&files).unwrap_err();
        assert!(matches!(error, Error::MissingGrowth { pgno } if pgno == missing), "{error}");
    }
}

#[test]
fn growth_without_pages_is_refused() {
    let small = file(3, 2, 2, &pages([1], 1));
    for (numbers, missing) in [(vec![5], 4), (vec![4], 5), (vec![], 4)] {
        let error = merge_plain(&[small.clone(), file(5, 3, 3, &pages(numbers, 2))]).unwrap_err();
        assert!(matches!(error, Error::MissingGrowth { pgno } if pgno == missing), "{error}");
    }
    merge_plain(&[small.clone(), file(5, 3, 3, &pages([4, 5], 2))]).unwrap();
    // A file alone does not tell how large the database was before it.
    merge_plain(&[file(5, 3, 3, &pages([5], 2))]).unwrap();
    // Nor do files that begin with the growth.
    merge_plain(&[file(5, 3, 3, &pages([5], 2)), file(5, 4, 4, &pages([1], 2))]).unwrap();
}

#[test]
fn growth_goes_over_the_lock_page() {
    let size = page_size(65536);
    let lock_page = size.lock_page();
    let page = vec![1; size.bytes()];
    let write = |commit, number, numbers: &[u32]| {
        let pages: Pages = numbers.iter().map(|&pgno| (pgno, page.clone())).collect();
        encode(&Header::new(size, commit, txid(number), txid(number)), &pages, None).unwrap()
    };
    let small = write(lock_page - 1, 2, &[1]);
    let large = write(lock_page + 1, 3, &[lock_page + 1]);
    assert_eq!(merge_plain(&[small, large]).unwrap().pages.len(), 2);
}

#[test]
fn the_highest_page_number_is_no_special_case() {
    let files = [file(u32::MAX, 2, 2, &pages([u32::MAX], 1)), file(u32::MAX, 3, 3, &pages([1], 2))];
    assert_eq!(merge_plain(&files).unwrap().pages.len(), 2);
}

#[test]
fn a_merged_snapshot_must_have_all_pages() {
    let files = [file(2, 1, 1, &pages(1..=2, 1)), file(2, 2, 2, &pages([], 1))];
    merge_plain(&files).unwrap();
    let grown = [file(2, 1, 1, &pages(1..=2, 1)), file(4, 2, 2, &pages([4], 1))];
    merge_plain(&grown).unwrap_err();
}

#[test]
fn memory_is_that_of_a_page_and_a_decoder_per_input() {
    // Every input has every page: a merge that collected them would need 50 times as much.
    let (count, length) = (16_u8, 4000_u32);
    let files: Vec<Vec<u8>> = (0..count)
        .map(|version| {
            let number = u64::from(version) + 2;
            file(length, number, number, &pages(1..=length, version))
        })
        .collect();
    let mut merged = None;
    let info = allocation_counter::measure(|| {
        let inputs = files.iter().map(|file| Decoder::new(file.as_slice(), Mode::Strict).unwrap());
        merged = Some(merge(inputs.collect(), io::sink(), MergeOptions::default()).unwrap());
    });
    let (_, _, summary) = merged.unwrap();
    assert_eq!(summary.pages, length);
    let inputs = u64::from(count) * (17 * 1024 + 2 * 1024);
    // The index of the output, in a vector that doubles and is then copied behind the pages.
    let output = 4 * 10 * u64::from(length) + 32 * 1024;
    assert!(info.bytes_max <= inputs + output, "{} > {inputs} + {output}", info.bytes_max);
}
