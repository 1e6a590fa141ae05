//! Trees of Litestream: merging their files gives what Litestream made of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use walrust_ltx::{Decoder, FileName, Header, MergeOptions, Mode, Txid, merge};

use crate::fixtures::{image, sha256};
use crate::support::{Decoded, Pages, apply, decode, fixture_path, rolling, txid};

/// One tree, and how many of its files are not of level 0.
struct Tree {
    levels: &'static str,
    compacted: usize,
    snapshots: usize,
}

const TREES: [Tree; 4] = [
    Tree { levels: "litestream-replica-0517-ps512/replica/ltx", compacted: 10, snapshots: 3 },
    Tree {
        levels: "litestream-replica-0517-ps1024-autovacuum/replica/ltx",
        compacted: 10,
        snapshots: 3,
    },
    Tree { levels: "litestream-replica-upgrade-0515-0517/replica/ltx", compacted: 9, snapshots: 4 },
    Tree { levels: "litestream-replica-s3-layout/bucket/pre/fix/a", compacted: 6, snapshots: 4 },
];

type Level = BTreeMap<FileName, Vec<u8>>;

impl Tree {
    /// The files of all levels. The directory of a level is its number, padded or not.
    fn read(&self) -> BTreeMap<u32, Level> {
        let mut levels: BTreeMap<u32, Level> = BTreeMap::new();
        for level in fs::read_dir(fixture_path("..").join(self.levels)).unwrap() {
            let level = level.unwrap();
            let number = level.file_name().into_string().unwrap().parse().unwrap();
            for file in fs::read_dir(level.path()).unwrap() {
                let file = file.unwrap();
                let name: FileName = file.file_name().into_string().unwrap().parse().unwrap();
                levels.entry(number).or_default().insert(name, fs::read(file.path()).unwrap());
            }
        }
        levels
    }

    fn expected(&self) -> Expected {
        let (tree, _) = self.levels.split_once('/').unwrap();
        let path: PathBuf = fixture_path("..").join(tree).join("expected.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }
}

#[derive(Deserialize)]
struct Expected {
    #[serde(default)]
    per_txid: Vec<State>,
}

#[derive(Deserialize)]
struct State {
    txid: String,
    timestamp_ms: i64,
    commit: u32,
    image_sha256: String,
    rolling_checksum: String,
}

/// The files of level 0 from `min` to `max` merged, with no file between them missing.
fn merged(level_0: &Level, min: Txid, max: Txid) -> Decoded {
    let files: Vec<&Vec<u8>> = (min.get()..=max.get())
        .map(|number| &level_0[&FileName { min: txid(number), max: txid(number) }])
        .collect();
    let inputs = files.iter().map(|file| Decoder::new(file.as_slice(), Mode::Lenient).unwrap());
    let options = MergeOptions { without_checksums: true };
    let (file, ..) = merge(inputs.collect(), Vec::new(), options).unwrap();
    decode(&file, Mode::Strict).unwrap()
}

#[test]
fn every_file_is_read_and_has_the_name_that_its_header_tells() {
    for tree in &TREES {
        for (level, files) in tree.read() {
            for (name, file) in files {
                for mode in [Mode::Strict, Mode::Lenient] {
                    let decoded = decode(&file, mode).unwrap();
                    assert_eq!(decoded.header.file_name(), name, "level {level}");
                }
            }
        }
    }
}

#[test]
fn compacted_files_are_the_merge_of_their_sources() {
    for tree in &TREES {
        let levels = tree.read();
        let mut compacted = 0;
        for (level, files) in levels.range(1..9) {
            for (name, file) in files {
                let found = merged(&levels[&0], name.min, name.max);
                let expected = decode(file, Mode::Strict).unwrap();
                assert_eq!(found.header, expected.header, "level {level}, {name}");
                assert_eq!(found.pages, expected.pages, "level {level}, {name}");
                compacted += 1;
            }
        }
        assert_eq!(compacted, tree.compacted, "{}", tree.levels);
    }
}

#[test]
fn snapshots_are_the_state_at_their_last_transaction() {
    for tree in &TREES {
        let levels = tree.read();
        let snapshots = &levels[&9];
        for (name, file) in snapshots {
            let found = merged(&levels[&0], name.min, name.max);
            let expected = decode(file, Mode::Strict).unwrap();
            assert_eq!(found.header.commit, expected.header.commit, "{name}");
            assert_eq!(found.pages, expected.pages, "{name}");
        }
        assert_eq!(snapshots.len(), tree.snapshots, "{}", tree.levels);
    }
}

#[test]
fn every_transaction_is_restored_by_applying_and_by_merging() {
    let mut states = 0;
    for tree in &TREES {
        let level_0 = &tree.read()[&0];
        let mut database = Pages::new();
        for state in tree.expected().per_txid {
            let last: Txid = state.txid.parse().unwrap();
            let file = decode(&level_0[&FileName { min: last, max: last }], Mode::Strict).unwrap();
            apply(&mut database, &file);
            let Header { commit, timestamp_ms, page_size, .. } = file.header;
            assert_eq!((commit, timestamp_ms), (state.commit, state.timestamp_ms), "{last}");
            let image = image(&database, commit, page_size.get());
            assert_eq!(sha256(&image), state.image_sha256, "{} at {last}", tree.levels);
            assert_eq!(rolling(&database).to_string(), state.rolling_checksum, "{last}");
            assert_eq!(merged(level_0, Txid::FIRST, last).pages, database, "{last}");
            states += 1;
        }
    }
    assert_eq!(states, 11 + 11 + 10);
}
