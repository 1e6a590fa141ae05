//! The databases that patterns name, as they come and go.
//!
//! Invariants: a match stays a match while its file is there, and goes only when a look at every
//! directory of its pattern succeeded twice without it: a directory that cannot be read for a moment
//! retires nobody. A file that may be replicated by now is not opened: closing it would drop the locks
//! that SQLite has on it in this process. Sidecar files of SQLite, and walrust's own, never match. Directories that are
//! symbolic links are not entered, so there are no loops.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};
use walkdir::{DirEntry, WalkDir};

use crate::Error;
use crate::config::DatabaseSection;

/// `*` and `?` stay within one file name; files whose names begin with a dot have to be named so.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// What a SQLite database begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Whether a path is a pattern. A file that exists under exactly this name is none.
#[must_use]
pub fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '[']) && !path.exists()
}

/// What the patterns have matched so far.
#[derive(Debug, Default)]
pub struct Tenants {
    /// How often in a row each match was missed, by pattern.
    matches: BTreeMap<PathBuf, BTreeMap<PathBuf, u32>>,
    /// The databases of the last look, and the files that links of theirs lead to.
    last: HashSet<PathBuf>,
    /// What was reported already: it is once enough.
    reported: HashSet<PathBuf>,
}

impl Tenants {
    /// The databases of some entries: those that name a file, and one for each match of those that
    /// are patterns. Of a file that several entries name the first counts, and a file before a
    /// pattern.
    ///
    /// # Errors
    /// If a pattern cannot be understood.
    pub fn look(&mut self, sections: &[DatabaseSection]) -> Result<Vec<Tenant>, Error> {
        let (patterns, files): (Vec<_>, Vec<_>) =
            sections.iter().partition(|section| is_pattern(&section.path));
        self.matches.retain(|path, _| patterns.iter().any(|section| section.path == *path));
        let mut tenants: Vec<Tenant> = files
            .into_iter()
            .map(|section| Tenant { section: section.clone(), below: None })
            .collect();
        let mut known: HashSet<PathBuf> =
            tenants.iter().map(|tenant| tenant.section.path.clone()).collect();
        self.last.extend(known.iter().flat_map(|path| [path.clone(), resolved(path)]));
        for section in patterns {
            for path in self.matches_of(&section.path)? {
                if known.insert(path.clone()) {
                    let below = section.prefix.clone();
                    let section = DatabaseSection { path, prefix: None, ..section.clone() };
                    tenants.push(Tenant { section, below });
                }
            }
        }
        self.last = known.iter().flat_map(|path| [path.clone(), resolved(path)]).collect();
        Ok(tenants)
    }

    fn matches_of(&mut self, path: &Path) -> Result<Vec<PathBuf>, Error> {
        let text = path.to_string_lossy();
        let pattern = Pattern::new(&text)
            .map_err(|error| Error::Usage(format!("{text}: not a pattern: {error}")))?;
        let (mut found, mut whole) = (HashSet::new(), true);
        for entry in walk(path) {
            match entry {
                Ok(entry) => {
                    if self.is_database(&entry, &pattern) {
                        found.insert(entry.into_path());
                    }
                }
                Err(error) => {
                    whole = false;
                    let place = error.path().unwrap_or(path).to_owned();
                    if self.reported.insert(place.clone()) {
                        let path = place.display();
                        tracing::warn!(%path, %error, "cannot look for databases here");
                    }
                }
            }
        }
        let matches = self.matches.entry(path.to_owned()).or_default();
        for (known, missed) in matches.iter_mut() {
            *missed = if found.contains(known) { 0 } else { *missed + u32::from(whole) };
        }
        matches.retain(|_, missed| *missed < 2);
        matches.extend(found.into_iter().map(|path| (path, 0)));
        Ok(matches.keys().cloned().collect())
    }

    /// Whether an entry of a directory is a database that a pattern names.
    fn is_database(&mut self, entry: &DirEntry, pattern: &Pattern) -> bool {
        let path = entry.path();
        if !pattern.matches_path_with(path, OPTIONS) || is_sidecar(path) {
            return false;
        }
        if self.last.contains(path) || self.last.contains(&resolved(path)) {
            return path.is_file();
        }
        let mut start = [0; MAGIC.len()];
        let mut read = || {
            if !path.is_file() {
                return Ok(0);
            }
            File::open(path)?.read(&mut start)
        };
        match read() {
            // Somebody has created it and written nothing yet.
            Ok(0) => false,
            // That it cannot be read is for its status to say.
            Err(_) => true,
            Ok(_) if start == *MAGIC => true,
            Ok(_) => {
                if self.reported.insert(path.to_owned()) {
                    let path = path.display();
                    tracing::warn!(%path, "matches a pattern and is no SQLite database");
                }
                false
            }
        }
    }
}

/// Where links lead; the path itself if nowhere.
fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// One database of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Its entry, with its own path.
    pub section: DatabaseSection,
    /// The prefix of the pattern that it matches.
    pub below: Option<String>,
}

/// All files that could match a pattern.
fn walk(pattern: &Path) -> impl Iterator<Item = walkdir::Result<DirEntry>> {
    let is_literal = |component: &Component<'_>| {
        !component.as_os_str().to_string_lossy().contains(['*', '?', '['])
    };
    let base: PathBuf = pattern.components().take_while(is_literal).collect();
    let rest = pattern.components().count() - base.components().count();
    let deep = pattern.components().any(|component| component.as_os_str() == OsStr::new("**"));
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

fn is_sidecar(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ["-wal", "-shm", "-journal"].iter().any(|end| name.ends_with(end))
}

fn is_state_directory(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.') && name.ends_with("-walrust")
}

#[cfg(test)]
mod tests;
