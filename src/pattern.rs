//! Paths that are patterns: `*` and `?` within a name, `[...]`, and `**` for any directories.
//!
//! Invariant: a file that exists under exactly this name is no pattern, whatever characters it has.
//! Directories that are symbolic links are not entered, so there are no loops.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};
use walkdir::{DirEntry, WalkDir};

use crate::Error;

/// `*` and `?` stay within one file name; files whose names begin with a dot have to be named so.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// The characters that make a pattern of a path.
const SPECIAL: [char; 3] = ['*', '?', '['];

/// Whether a path is a pattern. A file that exists under exactly this name is none.
pub(crate) fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(SPECIAL) && !path.exists()
}

/// What stands in the way of using a path as a pattern, if anything does.
pub(crate) fn pattern_error(path: &Path) -> Option<String> {
    let error = Pattern::new(&path.to_string_lossy()).err()?;
    is_pattern(path).then(|| format!("not a valid pattern: {error}"))
}

/// A pattern that files can be compared with.
#[derive(Debug)]
pub(crate) struct FilePattern {
    path: PathBuf,
    pattern: Pattern,
}

impl FilePattern {
    /// The pattern at a path.
    ///
    /// # Errors
    /// If it cannot be understood.
    pub(crate) fn new(path: &Path) -> Result<Self, Error> {
        let text = path.to_string_lossy();
        let pattern = Pattern::new(&text)
            .map_err(|error| Error::Usage(format!("{text}: not a valid pattern: {error}")))?;
        Ok(Self { path: path.to_owned(), pattern })
    }

    /// Whether a path matches.
    pub(crate) fn matches(&self, path: &Path) -> bool {
        self.pattern.matches_with(&path.to_string_lossy(), OPTIONS)
    }

    /// All files that could match.
    pub(crate) fn walk(&self) -> impl Iterator<Item = walkdir::Result<DirEntry>> {
        let entries = self.entries().filter_entry(|entry| {
            !(entry.file_type().is_dir() && is_state_directory(entry.file_name()))
        });
        // What vanished while it was looked at is as good as not there.
        let gone = |error: &walkdir::Error| {
            error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        };
        entries.filter(move |entry| match entry {
            Ok(entry) => !entry.file_type().is_dir(),
            Err(error) => !gone(error),
        })
    }

    /// The databases that match and are not there, while their local state is.
    pub(crate) fn deleted_databases(&self) -> Vec<PathBuf> {
        let mut deleted = Vec::new();
        let mut entries = self.entries();
        while let Some(entry) = entries.next() {
            // What cannot be read is told by whoever looks for databases.
            let Ok(entry) = entry else { continue };
            if entry.file_type().is_dir() && is_state_directory(entry.file_name()) {
                entries.skip_current_dir();
                let database = database_of_state(entry.path());
                deleted.extend(database.filter(|path| self.matches(path) && !path.exists()));
            }
        }
        deleted
    }

    /// Everything down to where a match may be.
    fn entries(&self) -> walkdir::IntoIter {
        let is_literal =
            |component: &Component<'_>| !component.as_os_str().to_string_lossy().contains(SPECIAL);
        let base: PathBuf = self.path.components().take_while(is_literal).collect();
        let rest = self.path.components().count() - base.components().count();
        let deep = self.path.components().any(|it| it.as_os_str() == OsStr::new("**"));
        let depth = if deep { usize::MAX } else { rest };
        WalkDir::new(base).max_depth(depth).into_iter()
    }
}

fn is_state_directory(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let ends = ["-walrust", "-walrust-replica"];
    name.starts_with('.') && ends.iter().any(|end| name.ends_with(end))
}

/// The database that a state directory lies beside.
fn database_of_state(state: &Path) -> Option<PathBuf> {
    let name = state.file_name()?.to_str()?.strip_prefix('.')?.strip_suffix("-walrust")?;
    Some(state.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn d07_databases_are_known_by_the_state_that_they_left() {
        let directory = tempfile::Builder::new().prefix("pattern").tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for state in [
            "a/.one.db-walrust/staging/.within.db-walrust",
            "a/.there.db-walrust",
            "a/.two.db-walrust",
            "a/.other.sqlite-walrust",
            "a/.replica.db-walrust-replica",
            "a/b/.three.db-walrust",
        ] {
            fs::create_dir_all(path(state)).unwrap();
        }
        fs::write(path("a/there.db"), "").unwrap();
        let deleted = |pattern: &str| {
            let mut deleted = FilePattern::new(&path(pattern)).unwrap().deleted_databases();
            deleted.sort();
            deleted
        };
        assert_eq!(deleted("**/*.db"), ["a/b/three.db", "a/one.db", "a/two.db"].map(path));
        assert_eq!(deleted("*/*.db"), ["a/one.db", "a/two.db"].map(path));
    }
}
