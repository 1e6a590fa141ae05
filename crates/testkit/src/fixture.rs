//! Files that other programs wrote, kept in `tests/fixtures` of the repository.

use std::fs;
use std::path::{Path, PathBuf};

/// A directory of `tests/fixtures`. It is read-only by agreement: tests that write take a copy.
#[derive(Clone, Debug)]
pub struct Fixture {
    path: PathBuf,
}

impl Fixture {
    /// The fixture with the given directory name.
    ///
    /// # Panics
    /// If there is none, listing those there are.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let path = root().join(name);
        assert!(path.is_dir(), "no fixture {name:?}; there are {:?}", Self::names(""));
        Self { path }
    }

    /// Names of the fixtures that begin with `prefix`, sorted.
    ///
    /// # Panics
    /// If the directory of the fixtures cannot be read.
    #[must_use]
    pub fn names(prefix: &str) -> Vec<String> {
        let entries = fs::read_dir(root()).expect("the fixtures are part of the repository");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry of the fixtures").file_name())
            .filter_map(|name| name.into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort();
        names
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the program that made the fixture restores from it, as JSON.
    ///
    /// # Panics
    /// If the fixture has no `expected.json`.
    #[must_use]
    pub fn expected(&self) -> String {
        let path = self.path.join("expected.json");
        fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    }

    /// Copies the whole fixture into an existing directory.
    ///
    /// # Panics
    /// If a file cannot be copied.
    pub fn copy_to(&self, directory: &Path) {
        copy_tree(&self.path, directory).unwrap_or_else(|error| {
            panic!("cannot copy {} to {}: {error}", self.path.display(), directory.display())
        });
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            copy_tree(&entry.path(), &target)?;
        } else {
            // Bytes only: a copy is writable whatever the checkout is.
            fs::write(&target, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}
