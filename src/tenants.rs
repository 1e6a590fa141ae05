//! The databases that patterns name, as they come and go.
//!
//! Invariants: a match stays a match while its file is there, and goes only when a look at every
//! directory of its pattern succeeded twice without it: a directory that cannot be read for a moment
//! retires nobody. One file is one database, whatever leads to it, and the path that was first stays.
//! A file that may be replicated is never opened here: closing it would drop the locks that SQLite
//! has on it in this process. Sidecar files of SQLite, and walrust's own, never match.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use walkdir::DirEntry;

use crate::Error;
use crate::config::DatabaseSection;
use crate::pattern::{FilePattern, is_pattern};
use crate::tenant::Tenant;

/// What a SQLite database begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Device and inode.
type FileId = (u64, u64);

/// What the patterns have matched so far.
#[derive(Debug, Default)]
pub struct Tenants {
    matches: BTreeMap<PathBuf, BTreeMap<PathBuf, Match>>,
    /// The path of each file that is or was a database. Files that are gone stay in it: a file that
    /// was only renamed may still be open, and inodes are used again.
    owners: HashMap<FileId, PathBuf>,
    /// Files that match and are no databases, as they were when they were opened.
    refused: HashMap<PathBuf, (FileId, u64, Option<SystemTime>)>,
    /// Places that cannot be read; to report each once is enough.
    unreadable: HashSet<PathBuf>,
}

/// A file that a pattern matches.
#[derive(Clone, Copy, Debug)]
struct Match {
    file: FileId,
    is_link: bool,
    /// Looks in a row that did not find it.
    missed: u32,
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
        for section in &files {
            if let Ok(metadata) = fs::metadata(&section.path) {
                self.owners.insert(id(&metadata), section.path.clone());
            }
        }
        let mut matches = Vec::new();
        for section in patterns {
            let found = self.matches_of(&section.path)?;
            matches.extend(found.into_iter().map(|(path, found)| (section, path, found)));
        }
        self.find_owners(&files, &matches);
        let mut known: HashSet<PathBuf> =
            files.iter().map(|section| section.path.clone()).collect();
        let mut tenants: Vec<Tenant> = files
            .into_iter()
            .map(|section| Tenant { section: section.clone(), below: None })
            .collect();
        for (section, path, found) in matches {
            let is_alias = self.owners.get(&found.file).is_some_and(|owner| *owner != path);
            if !is_alias && known.insert(path.clone()) {
                let below = section.prefix.clone();
                let section = DatabaseSection { path, prefix: None, ..section.clone() };
                tenants.push(Tenant { section, below });
            }
        }
        Ok(tenants)
    }

    /// Gives each file that has no path, or one that leads elsewhere by now, one of those that lead
    /// to it.
    fn find_owners(
        &mut self,
        files: &[&DatabaseSection],
        matches: &[(&DatabaseSection, PathBuf, Match)],
    ) {
        let named = files.iter().map(|section| section.path.as_path());
        let named = named.filter_map(|path| Some((path, id(&fs::metadata(path).ok()?))));
        let found = || matches.iter().filter(|(_, _, found)| found.missed == 0);
        let leads_to: HashMap<&Path, FileId> =
            found().map(|(_, path, found)| (path.as_path(), found.file)).chain(named).collect();
        // A link gives way to the file, wherever it stands in the alphabet.
        for links in [false, true] {
            for (_, path, found) in found().filter(|(_, _, found)| found.is_link == links) {
                let owner = self.owners.entry(found.file).or_insert_with(|| path.clone());
                if leads_to.get(owner.as_path()) != Some(&found.file) {
                    owner.clone_from(path);
                }
            }
        }
    }

    fn matches_of(&mut self, path: &Path) -> Result<BTreeMap<PathBuf, Match>, Error> {
        let pattern = FilePattern::new(path)?;
        let (mut found, mut whole) = (BTreeMap::new(), true);
        for entry in pattern.walk() {
            match entry {
                Ok(entry) => {
                    if let Some(file) = self.database(&entry, &pattern, path) {
                        let is_link = entry.path_is_symlink();
                        found.insert(entry.into_path(), Match { file, is_link, missed: 0 });
                    }
                }
                Err(error) => {
                    whole = false;
                    let place = error.path().unwrap_or(path).to_owned();
                    if self.unreadable.insert(place.clone()) {
                        let path = place.display();
                        tracing::warn!(%path, %error, "cannot look for databases here");
                    }
                }
            }
        }
        for (path, known) in self.matches.remove(path).unwrap_or_default() {
            let missed = known.missed + u32::from(whole);
            if missed < 2 {
                found.entry(path).or_insert(Match { missed, ..known });
            }
        }
        self.matches.insert(path.to_owned(), found.clone());
        Ok(found)
    }

    /// The file of an entry of a directory, if it is a database that a pattern names.
    fn database(
        &mut self,
        entry: &DirEntry,
        pattern: &FilePattern,
        given: &Path,
    ) -> Option<FileId> {
        let path = entry.path();
        if !pattern.matches(path) || is_sidecar(path) {
            return None;
        }
        let metadata = fs::metadata(path).ok().filter(Metadata::is_file)?;
        let file = id(&metadata);
        let is_known = self.matches.get(given).is_some_and(|known| known.contains_key(path));
        if is_known || self.owners.contains_key(&file) {
            return Some(file);
        }
        // Somebody has created it and written nothing yet.
        if metadata.len() == 0 {
            return None;
        }
        let stamp = (file, metadata.len(), metadata.modified().ok());
        if self.refused.get(path) == Some(&stamp) {
            return None;
        }
        let problem = if path.to_str().is_none() {
            "a database whose name is not UTF-8 cannot be stored under it: name it in an entry"
        } else if is_sqlite(path) {
            self.refused.remove(path);
            return Some(file);
        } else {
            "matches a pattern and is no SQLite database"
        };
        if self.refused.insert(path.to_owned(), stamp).is_none() {
            tracing::warn!(path = %path.display(), "{problem}");
        }
        None
    }
}

/// Whether a file begins as a database does. That one cannot be read is for its status to say.
fn is_sqlite(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    match read {
        Ok(()) => start == *MAGIC,
        Err(error) => error.kind() != std::io::ErrorKind::UnexpectedEof,
    }
}

fn id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

fn is_sidecar(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ["-wal", "-shm", "-journal"].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests;
