//! The files of local state: copied, damaged, and put back as a crash leaves them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

/// A part of local state.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Position,
    Redo,
    Table,
    NewTable,
    Stamp,
    /// One of the staged files, counted from the oldest.
    Staged(u8),
    /// The note beside one of them.
    Note(u8),
}

/// What happens to a file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Damage {
    Remove,
    Empty,
    Halve,
    /// The second half becomes zeros.
    Zero,
    FlipBit(u16),
}

impl Part {
    pub(crate) fn any() -> BoxedStrategy<Self> {
        prop_oneof![
            1 => Just(Self::Position),
            1 => Just(Self::Redo),
            1 => Just(Self::Table),
            1 => Just(Self::NewTable),
            1 => Just(Self::Stamp),
            4 => (0..3_u8).prop_map(Self::Staged),
            2 => (0..3_u8).prop_map(Self::Note),
        ]
        .boxed()
    }

    fn find(self, files: &LocalState) -> Option<PathBuf> {
        let named = |name: &str| files.0.keys().find(|path| path.ends_with(name)).cloned();
        let nth = |suffix: &str, n: u8| {
            let with_suffix = |path: &&PathBuf| path.to_string_lossy().ends_with(suffix);
            files.0.keys().filter(with_suffix).nth(n.into()).cloned()
        };
        match self {
            Self::Position => named("position.json"),
            Self::Redo => named("pages.redo"),
            Self::Table => named("pages.crc64"),
            Self::NewTable => named("pages.crc64.new"),
            Self::Stamp => named("file.json"),
            Self::Staged(n) => nth(".ltx", n),
            Self::Note(n) => nth(".wal.json", n),
        }
    }
}

impl Damage {
    pub(crate) fn any() -> BoxedStrategy<Self> {
        prop_oneof![
            Just(Self::Remove),
            Just(Self::Empty),
            Just(Self::Halve),
            Just(Self::Zero),
            any::<u16>().prop_map(Self::FlipBit),
        ]
        .boxed()
    }

    fn apply(self, bytes: &mut Vec<u8>) -> bool {
        let half = bytes.len() / 2;
        match self {
            Self::Remove => return false,
            Self::Empty => bytes.clear(),
            Self::Halve => bytes.truncate(half),
            Self::Zero => bytes[half..].fill(0),
            Self::FlipBit(bit) => {
                let bits = (bytes.len() * 8).max(1);
                let bit = usize::from(bit) % bits;
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
            }
        }
        true
    }
}

/// The bytes of all files of local state, by their paths.
#[derive(Clone, Debug, Default)]
pub(crate) struct LocalState(BTreeMap<PathBuf, Vec<u8>>);

impl LocalState {
    pub(crate) fn read(directory: &Path) -> Self {
        let mut files = BTreeMap::new();
        for directory in [directory.to_owned(), directory.join("staging")] {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for entry in entries {
                let path = entry.expect("an entry of local state").path();
                let lock = path.ends_with("lock") || path.ends_with("writer");
                if path.is_file() && !lock {
                    let bytes = fs::read(&path).expect("a file of local state");
                    files.insert(path, bytes);
                }
            }
        }
        Self(files)
    }

    /// Damages one part, if it is there.
    pub(crate) fn damage(directory: &Path, part: Part, damage: Damage) {
        let mut files = Self::read(directory);
        let Some(path) = part.find(&files) else { return };
        let bytes = files.0.get_mut(&path).expect("it was found there");
        match damage.apply(bytes) {
            true => fs::write(&path, bytes).expect("local state can be written"),
            false => fs::remove_file(&path).expect("local state can be removed"),
        }
    }

    /// Undoes what an operation that began with this state did from a certain point on. The page
    /// table is changed in place, so at its point half of it is new.
    pub(crate) fn undo_from(&self, directory: &Path, point: u8) {
        let after = Self::read(directory);
        let new_table = |files: &Self| files.0.keys().any(|path| path.ends_with("pages.crc64.new"));
        let renamed = new_table(self) && !new_table(&after);
        for path in self.0.keys().chain(after.0.keys()) {
            let (old, new) = (self.0.get(path), after.0.get(path));
            let rank = rank(path, renamed, new.is_none());
            if old == new || rank < point {
                continue;
            }
            match (old, new) {
                (Some(old), Some(new)) if rank == point && path.ends_with("pages.crc64") => {
                    let half = new.len() / 2;
                    let torn = [&new[..half], old.get(half..).unwrap_or_default()].concat();
                    let torn = if renamed { old.clone() } else { torn };
                    fs::write(path, torn).expect("local state can be written");
                }
                (Some(old), _) => fs::write(path, old).expect("local state can be written"),
                (None, _) => fs::remove_file(path).expect("local state can be removed"),
            }
        }
    }
}

/// The order in which the files of local state are written.
fn rank(path: &Path, renamed: bool, removed: bool) -> u8 {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match name {
        "pages.redo" => 0,
        "pages.crc64" | "pages.crc64.new" if renamed => 1,
        "pages.crc64.new" => 0,
        "position.json" => 2,
        "pages.crc64" => 3,
        "file.json" => 6,
        // A note is written after its file, and removed before it.
        _ if name.ends_with(".wal.json") => {
            if removed {
                4
            } else {
                5
            }
        }
        _ => {
            if removed {
                5
            } else {
                4
            }
        }
    }
}
