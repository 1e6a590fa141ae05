//! Files of Litestream and of the reference library: every number that the manifest tells.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use walrust_ltx::{
    Checksum, Decoder, Error, IndexTail, MergeOptions, Mode, PageIndex, decode_page_frame, merge,
};

use crate::support::{Pages, apply, decode, fixture, rolling};

#[derive(Deserialize)]
pub(crate) struct Manifest {
    files: Vec<File>,
    sequences: Vec<Sequence>,
    pub(crate) bad: Vec<Bad>,
}

#[derive(Deserialize)]
struct File {
    file: String,
    size: u64,
    variant: String,
    header: HeaderFields,
    pages: Vec<Page>,
    page_index: Option<Index>,
    trailer: TrailerFields,
}

#[derive(Deserialize)]
struct HeaderFields {
    flags: String,
    page_size: u32,
    commit: u32,
    min_txid: String,
    max_txid: String,
    timestamp_ms: i64,
    pre_apply_checksum: String,
    wal_offset: i64,
    wal_size: i64,
    wal_salt1: String,
    wal_salt2: String,
    node_id: String,
}

#[derive(Deserialize)]
struct Page {
    pgno: u32,
    offset: u64,
    frame_size: u64,
    sha256: String,
    page_checksum: String,
}

#[derive(Deserialize)]
struct Index {
    length: u64,
}

#[derive(Deserialize)]
struct TrailerFields {
    post_apply_checksum: String,
    file_checksum: String,
}

#[derive(Deserialize)]
struct Sequence {
    name: String,
    apply: Vec<String>,
    page_size: u32,
    image_size: usize,
    image_sha256: String,
    rolling_checksum: String,
    image_file: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Bad {
    pub(crate) file: String,
    pub(crate) must_reject: String,
}

pub(crate) fn manifest() -> Manifest {
    serde_json::from_slice(&fixture("manifest.json")).unwrap()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn optional(checksum: Option<Checksum>) -> String {
    checksum.map_or_else(|| "0".repeat(16), |checksum| checksum.to_string())
}

impl Manifest {
    /// The files that are of version 3.
    fn readable(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| !file.file.starts_with("legacy-"))
    }
}

#[test]
fn every_field_and_page_is_read_as_the_manifest_says() {
    let manifest = manifest();
    assert_eq!(manifest.readable().count(), 16);
    for expected in manifest.readable() {
        let name = &expected.file;
        for mode in [Mode::Strict, Mode::Lenient] {
            let found = decode(&fixture(name), mode).unwrap_or_else(|e| panic!("{name}: {e}"));
            let fields = &expected.header;
            let header = &found.header;
            assert_eq!(header.tracking, fields.flags == "0x00000000", "{name}");
            assert_eq!(header.page_size.get(), fields.page_size, "{name}");
            assert_eq!(header.commit, fields.commit, "{name}");
            assert_eq!(header.min_txid.to_string(), fields.min_txid, "{name}");
            assert_eq!(header.max_txid.to_string(), fields.max_txid, "{name}");
            assert_eq!(header.timestamp_ms, fields.timestamp_ms, "{name}");
            assert_eq!(optional(header.pre_apply), fields.pre_apply_checksum, "{name}");
            assert_eq!(header.wal_offset, fields.wal_offset, "{name}");
            assert_eq!(header.wal_size, fields.wal_size, "{name}");
            assert_eq!(format!("{:08x}", header.wal_salt1), fields.wal_salt1, "{name}");
            assert_eq!(format!("{:08x}", header.wal_salt2), fields.wal_salt2, "{name}");
            assert_eq!(format!("{:016x}", header.node_id), fields.node_id, "{name}");
            assert_eq!(header.to_bytes(), fixture(name)[..100], "{name}");

            assert_eq!(found.pages.len(), expected.pages.len(), "{name}");
            for (page, (&pgno, bytes)) in expected.pages.iter().zip(&found.pages) {
                assert_eq!(pgno, page.pgno, "{name}");
                assert_eq!(sha256(bytes), page.sha256, "{name}, page {pgno}");
                let checksum = Checksum::of_page(pgno, bytes).to_string();
                assert_eq!(checksum, page.page_checksum, "{name}, page {pgno}");
            }
            let trailer = &expected.trailer;
            assert_eq!(optional(found.trailer.post_apply), trailer.post_apply_checksum, "{name}");
            assert_eq!(found.trailer.file_checksum.to_string(), trailer.file_checksum, "{name}");
        }
    }
}

#[test]
fn the_index_finds_every_page_from_the_end_of_the_file() {
    for expected in manifest().readable() {
        let name = &expected.file;
        let file = fixture(name);
        let length = expected.page_index.as_ref().unwrap().length;
        let need = usize::try_from(length).unwrap() + 24;
        let short = &file[file.len() - need + 1..];
        let answer = PageIndex::from_tail(short, expected.size).unwrap();
        assert_eq!(answer, IndexTail::NeedBytes(need as u64), "{name}");
        let tail = &file[file.len() - need..];
        let IndexTail::Complete(index) = PageIndex::from_tail(tail, expected.size).unwrap() else {
            panic!("{name}: the whole index was given");
        };
        assert_eq!(index.entries().len(), expected.pages.len(), "{name}");
        assert_eq!(optional(index.trailer().post_apply), expected.trailer.post_apply_checksum);
        let decoded = decode(&file, Mode::Strict).unwrap();
        let page_size = decoded.header.page_size;
        let mut page = vec![0; page_size.bytes()];
        for known in &expected.pages {
            let entry = index.get(known.pgno).unwrap();
            assert_eq!((entry.offset, entry.size), (known.offset, known.frame_size), "{name}");
            let start = usize::try_from(entry.offset).unwrap();
            let frame = &file[start..start + usize::try_from(entry.size).unwrap()];
            decode_page_frame(frame, page_size, known.pgno, &mut page).unwrap();
            assert_eq!(page, decoded.pages[&known.pgno], "{name}, page {}", known.pgno);
        }
        assert_eq!(index.get(0), None);
        assert_eq!(index.get(decoded.header.commit + 1), None);
    }
}

/// The database file of a sequence of files.
pub(crate) fn image(pages: &Pages, commit: u32, page_size: u32) -> Vec<u8> {
    let empty = vec![0; page_size as usize];
    (1..=commit).flat_map(|pgno| pages.get(&pgno).unwrap_or(&empty).clone()).collect()
}

fn check_image(sequence: &Sequence, database: &Pages, commit: u32) {
    let name = &sequence.name;
    let image = image(database, commit, sequence.page_size);
    assert_eq!(image.len(), sequence.image_size, "{name}");
    assert_eq!(sha256(&image), sequence.image_sha256, "{name}");
    assert_eq!(rolling(database).to_string(), sequence.rolling_checksum, "{name}");
    if let Some(file) = &sequence.image_file {
        assert_eq!(image, fixture(file), "{name}");
    }
}

#[test]
fn sequences_applied_in_order_give_the_database() {
    let manifest = manifest();
    assert_eq!(manifest.sequences.len(), 8);
    for sequence in &manifest.sequences {
        let mut database = Pages::new();
        let mut commit = 0;
        for name in &sequence.apply {
            let file = decode(&fixture(name), Mode::Strict).unwrap();
            if let Some(post_apply) = file.trailer.post_apply {
                assert_eq!(file.header.pre_apply.unwrap_or(Checksum::EMPTY), rolling(&database));
                apply(&mut database, &file);
                assert_eq!(post_apply, rolling(&database), "{name}");
            } else {
                apply(&mut database, &file);
            }
            commit = file.header.commit;
        }
        check_image(sequence, &database, commit);
    }
}

#[test]
fn sequences_merged_give_the_database() {
    for sequence in &manifest().sequences {
        let files: Vec<Vec<u8>> = sequence.apply.iter().map(|name| fixture(name)).collect();
        let inputs = files.iter().map(|file| Decoder::new(file.as_slice(), Mode::Strict).unwrap());
        let (file, header, summary) =
            merge(inputs.collect(), Vec::new(), MergeOptions::default()).unwrap();
        let merged = decode(&file, Mode::Strict).unwrap();
        assert_eq!((&merged.header, merged.trailer), (&header, summary.trailer));
        check_image(sequence, &merged.pages, header.commit);
    }
}

#[test]
fn merging_gives_what_the_reference_programs_gave() {
    let cases = [
        (vec!["ck-1-snapshot.ltx", "ck-2-grow.ltx", "ck-3-shrink.ltx"], "ck-compact-1-3.ltx"),
        (vec!["ck-2-grow.ltx", "ck-3-shrink.ltx"], "ck-compact-2-3.ltx"),
        (vec!["ls17-ps512-L0-2.ltx", "ls17-ps512-L0-3.ltx"], "ls17-ps512-L1-compacted.ltx"),
    ];
    for (names, expected) in cases {
        let files: Vec<Vec<u8>> = names.iter().map(|name| fixture(name)).collect();
        let inputs = files.iter().map(|file| Decoder::new(file.as_slice(), Mode::Lenient).unwrap());
        let (file, ..) = merge(inputs.collect(), Vec::new(), MergeOptions::default()).unwrap();
        let merged = decode(&file, Mode::Strict).unwrap();
        let expected = decode(&fixture(expected), Mode::Strict).unwrap();
        assert_eq!(merged.header, expected.header);
        assert_eq!(merged.pages, expected.pages);
        assert_eq!(merged.trailer.post_apply, expected.trailer.post_apply);
    }
}

#[test]
fn older_versions_are_named_and_refused() {
    let manifest = manifest();
    let legacy = manifest.files.iter().filter(|file| file.file.starts_with("legacy-"));
    let mut count = 0;
    for file in legacy {
        let expected = if file.variant.starts_with("v2") { 2 } else { 1 };
        for mode in [Mode::Strict, Mode::Lenient] {
            let error = decode(&fixture(&file.file), mode).unwrap_err();
            let Error::OldVersion { version, .. } = error else {
                panic!("{}: {error}", file.file);
            };
            assert_eq!(version, expected, "{}", file.file);
            assert!(error.to_string().contains(&format!("LTX version {version}")));
            assert!(!error.is_corruption() && !error.is_io());
        }
        count += 1;
    }
    assert_eq!(count, 3);
}
