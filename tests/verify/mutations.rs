//! Random changes to a bucket: `verify` passes none of which a restore suffers.

use std::collections::BTreeMap;
use std::fs;

use walrust_storage::Metadata;
use walrust_testkit::Prng;

use super::verify;
use crate::small_history::{HEAD, NAME, SmallHistory};
use crate::storage::Storage;

/// Changes to each kind of bucket.
const MUTATIONS: usize = 100;

/// What the bucket has to tell what is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bucket {
    /// Everything.
    Whole,
    /// No SHA-256 beside the objects.
    WithoutMetadata,
    /// That, and no manifest.
    FilesOnly,
}

/// A bucket with a history, and what comes out of it.
struct Bench {
    history: SmallHistory,
    other: SmallHistory,
    bucket: Bucket,
    keys: Vec<String>,
    states: BTreeMap<u64, Vec<u8>>,
    prng: Prng,
}

impl Bench {
    fn new(bucket: Bucket, seed: u64) -> Self {
        let mut history = SmallHistory::new();
        let other = SmallHistory::of("of the other", Storage::directory());
        if bucket != Bucket::Whole {
            history.forget_metadata();
        }
        let mut keys = history.keys();
        if bucket == Bucket::FilesOnly {
            keys.retain(|key| *key != history.manifest());
        }
        let prng = Prng::new(seed);
        let mut bench = Self { history, other, bucket, keys, states: BTreeMap::new(), prng };
        bench.repair();
        for txid in 1..=HEAD {
            let state = bench.restored(&["--txid", &txid.to_string()]);
            bench.states.insert(txid, state.expect("a sound history"));
        }
        let code = if bucket == Bucket::FilesOnly { 1 } else { 0 };
        assert_eq!(verify(&bench.history, &[]).code, Some(code));
        bench
    }

    fn repair(&self) {
        let storage = &self.history.storage;
        for key in storage.keys("") {
            if !self.keys.contains(&key) {
                storage.delete(&key);
            }
        }
        self.history.repair();
        if self.bucket == Bucket::FilesOnly {
            storage.delete(&self.history.manifest());
        }
    }

    /// What a restore gives; `None` if it fails.
    fn restored(&self, more: &[&str]) -> Option<Vec<u8>> {
        let output = self.history.walrust.file("restored.db");
        let outcome = self.history.walrust.restore(NAME, &output, more);
        let restored = (outcome.code == Some(0)).then(|| fs::read(&output).expect("an output"));
        if restored.is_some() {
            fs::remove_file(&output).expect("an output");
        }
        restored
    }

    /// Whether every state still comes back.
    fn all_come_back(&self) -> bool {
        let comes_back = |(txid, state): (&u64, &Vec<u8>)| {
            self.restored(&["--txid", &txid.to_string()]).as_ref() == Some(state)
        };
        self.restored(&[]).as_ref() == self.states.get(&HEAD) && self.states.iter().all(comes_back)
    }

    fn pick(&mut self) -> String {
        let index = self.prng.between(0, self.keys.len() as u64 - 1);
        self.keys[index as usize].clone()
    }

    /// Changes something, and says what.
    fn mutate(&mut self) -> String {
        let key = self.pick();
        let bytes = self.history.bytes(&key).to_vec();
        let metadata = self.history.metadata(&key).clone();
        let last = bytes.len() as u64 - 1;
        match self.prng.between(0, 8) {
            0..=2 => {
                let (at, bit) = (self.prng.between(0, last), self.prng.between(0, 7));
                let mut bytes = bytes;
                bytes[at as usize] ^= 1 << bit;
                self.history.storage.write(&key, &bytes, &metadata);
                format!("bit {bit} of byte {at} of {key} flipped")
            }
            3 => {
                let length = self.prng.between(0, last);
                self.history.storage.write(&key, &bytes[..length as usize], &metadata);
                format!("{key} cut to {length} bytes")
            }
            // The end of a history that no index tells of is nowhere.
            4 if self.bucket == Bucket::FilesOnly && key == self.history.key(6, 6) => self.mutate(),
            4 => {
                self.history.storage.delete(&key);
                format!("{key} deleted")
            }
            5 => {
                let with = self.pick();
                let (other, beside) = (self.history.bytes(&with), self.history.metadata(&with));
                self.history.storage.write(&key, other, beside);
                self.history.storage.write(&with, &bytes, &metadata);
                format!("{key} and {with} swapped")
            }
            6 => {
                let (min, more) = (self.prng.between(1, 8), self.prng.between(0, 3));
                let copy = format!("{NAME}/{min:016x}-{:016x}.ltx", min + more);
                self.history.storage.write(&copy, &bytes, &metadata);
                format!("{key} copied to {copy}")
            }
            7 => {
                let foreign = self.other.bytes(&key);
                let metadata =
                    if self.prng.between(0, 1) == 0 { Metadata::new() } else { metadata };
                self.history.storage.write(&key, foreign, &metadata);
                format!("{key} of another history")
            }
            _ => {
                let (min, more) = (self.prng.between(1, 8), self.prng.between(0, 3));
                let key = format!("{NAME}/{min:016x}-{:016x}.ltx", min + more);
                let junk: Vec<u8> = (0..200).map(|_| self.prng.between(0, 255) as u8).collect();
                self.history.storage.write(&key, &junk, &Metadata::new());
                format!("junk as {key}")
            }
        }
    }
}

fn mutate(bucket: Bucket, seed: u64) {
    let mut bench = Bench::new(bucket, seed);
    let mut harmful = 0;
    for _ in 0..MUTATIONS {
        let what = bench.mutate();
        let code = verify(&bench.history, &[]).code;
        if code != Some(2) {
            assert!(matches!(code, Some(0 | 1)), "{what}: exit {code:?}");
            assert!(bench.all_come_back(), "{bucket:?}, seed {seed}: {what}: exit {code:?}");
        } else {
            harmful += 1;
        }
        bench.repair();
    }
    assert!(harmful > MUTATIONS / 2, "only {harmful} did any harm");
    assert!(bench.all_come_back());
}

#[test]
fn c04_a_hundred_random_changes() {
    mutate(Bucket::Whole, 1);
}

#[test]
fn c04_a_hundred_other_random_changes() {
    mutate(Bucket::Whole, 2);
}

#[test]
fn c04_a_hundred_random_changes_without_hashes() {
    mutate(Bucket::WithoutMetadata, 3);
}

#[test]
fn c04_a_hundred_other_random_changes_without_hashes() {
    mutate(Bucket::WithoutMetadata, 4);
}

#[test]
fn c04_a_hundred_random_changes_to_files_that_prove_themselves() {
    mutate(Bucket::FilesOnly, 5);
}
