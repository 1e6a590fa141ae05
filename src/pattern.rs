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
    is_pattern(path).then(|| format!("not a pattern: {error}"))
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
            .map_err(|error| Error::Usage(format!("{text}: not a pattern: {error}")))?;
        Ok(Self { path: path.to_owned(), pattern })
    }

    /// Whether a path matches.
    pub(crate) fn matches(&self, path: &Path) -> bool {
        self.pattern.matches_with(&path.to_string_lossy(), OPTIONS)
    }

    /// All files that could match.
    pub(crate) fn walk(&self) -> impl Iterator<Item = walkdir::Result<DirEntry>> {
        let is_literal =
            |component: &Component<'_>| !component.as_os_str().to_string_lossy().contains(SPECIAL);
        let base: PathBuf = self.path.components().take_while(is_literal).collect();
        let rest = self.path.components().count() - base.components().count();
        let deep = self.path.components().any(|it| it.as_os_str() == OsStr::new("**"));
        let depth = if deep { usize::MAX } else { rest };
        let entries = WalkDir::new(base).max_depth(depth).into_iter();
        let entries = entries.filter_entry(|entry| {
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
}

fn is_state_directory(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let ends = ["-walrust", "-walrust-replica"];
    name.starts_with('.') && ends.iter().any(|end| name.ends_with(end))
}
