//! Names, TXIDs and checksums as text, and the known values of checksums.

use walrust_ltx::{Checksum, FileName, PageSize, Txid};

use crate::support::{header, txid};

#[test]
fn page_checksums_have_their_known_values() {
    let all_bytes: Vec<u8> = (0..=255).collect();
    let cases = [
        (1, vec![0; 512], "efb1f44fecd99000"),
        (2, vec![0; 512], "ef63e89fecd99000"),
        (1, vec![0; 4096], "d9328f592d9e733d"),
        (1, vec![0x81; 1024], "eb953fc47685d740"),
        (0x0102_0304, all_bytes.repeat(16), "b436a83b4a6631ea"),
    ];
    for (pgno, page, expected) in cases {
        assert_eq!(Checksum::of_page(pgno, &page).to_string(), expected);
    }
}

#[test]
fn rolling_checksums_have_their_known_values() {
    let rolling = |pages: &[(u32, Vec<u8>)]| {
        pages
            .iter()
            .fold(Checksum::EMPTY, |sum, (pgno, page)| sum.toggle(Checksum::of_page(*pgno, page)))
    };
    let small: Vec<_> = (1..=3).map(|n| (u32::from(n), vec![n; 512])).collect();
    assert_eq!(rolling(&small).to_string(), "efffffffecd99000");
    let large: Vec<_> = (1..=3).map(|n| (u32::from(n), vec![0x80 + n; 1024])).collect();
    assert_eq!(rolling(&large).to_string(), "8a249272ad9f7dea");
    assert_eq!(Checksum::EMPTY.to_string(), "8000000000000000");
}

#[test]
fn the_rolling_checksum_of_a_gigabyte_skips_the_lock_page() {
    let page = [b'x'; 4096];
    let lock_page = PageSize::try_from(4096).unwrap().lock_page();
    let pages = (1..=262_155).filter(|&pgno| pgno != lock_page);
    let sum = pages.fold(Checksum::EMPTY, |sum, pgno| sum.toggle(Checksum::of_page(pgno, &page)));
    assert_eq!(sum.to_string(), "c19b668c376662c7");
}

#[test]
fn checksums_are_16_digits_with_the_first_bit_set() {
    let sum: Checksum = "c292ceffd2bc768a".parse().unwrap();
    assert_eq!(sum.raw(), 0xc292_ceff_d2bc_768a);
    assert_eq!(Checksum::from_raw(sum.raw()), Some(sum));
    assert_eq!(Checksum::from_raw(1), None);
    for bad in ["", "0000000000000000", "7fffffffffffffff", "C292CEFFD2BC768A", "+292ceffd2bc768a"]
    {
        bad.parse::<Checksum>().unwrap_err();
    }
}

#[test]
fn txids_are_16_digits_from_1_on() {
    assert_eq!(txid(0xb).to_string(), "000000000000000b");
    assert_eq!("000000000000000b".parse::<Txid>().unwrap(), txid(11));
    assert_eq!("ffffffffffffffff".parse::<Txid>().unwrap(), txid(u64::MAX));
    assert_eq!(Txid::new(0), None);
    assert_eq!(Txid::FIRST.next(), txid(2));
    for bad in
        ["", "b", "0000000000000000", "000000000000000B", "00000000000000000b", "+00000000000000b"]
    {
        bad.parse::<Txid>().unwrap_err();
    }
}

#[test]
fn file_names_are_read_strictly_and_sort_as_their_txids() {
    let text = "0000000000000002-000000000000000b.ltx";
    let name: FileName = text.parse().unwrap();
    assert_eq!(name, FileName { min: txid(2), max: txid(11) });
    assert_eq!(name.to_string(), text);
    assert_eq!(header(1, 2, 11).file_name(), name);
    assert!(!name.is_snapshot() && header(1, 1, 11).file_name().is_snapshot());
    let mut names: Vec<FileName> =
        [(2, 3), (1, 9), (1, 10)].map(|(min, max)| header(1, min, max).file_name()).into();
    let mut texts: Vec<String> = names.iter().map(FileName::to_string).collect();
    names.sort();
    texts.sort();
    assert_eq!(names.iter().map(FileName::to_string).collect::<Vec<_>>(), texts);
    for bad in [
        "",
        "0000000000000002-000000000000000b",
        "0000000000000002-000000000000000b.ltx.tmp",
        "0000000000000002-000000000000000B.ltx",
        "000000000000000b-0000000000000002.ltx",
        "0000000000000000-0000000000000002.ltx",
        "2-b.ltx",
        " 0000000000000002-000000000000000b.ltx",
    ] {
        bad.parse::<FileName>().unwrap_err();
    }
}
