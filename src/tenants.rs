//! The databases that patterns name, as they come and go.
//!
//! Invariants: a match stays a match while its file is there, and goes only when a look at every
//! directory of its pattern succeeded twice without it: a directory that cannot be read for a moment
//! retires nobody. One file is one database, whatever leads to it, and the path that was first stays.
//! A file that may be replicated is never opened here: closing it would drop the locks that SQLite
//! has on it in this process. Sidecar files of SQLite, and walrust's own, never match. What is
//! remembered is bounded by what there was lately.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Display;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::Error;
use crate::config::DatabaseSection;
use crate::pattern::{FilePattern, is_pattern};
use crate::tenant::Tenant;

/// What a SQLite database begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Whole looks after which a file that is gone is forgotten: by then nobody has it open any more.
const FORGOTTEN_AFTER: u32 = 60;

/// Device and inode.
type FileId = (u64, u64);

/// What the patterns have matched so far.
#[derive(Debug, Default)]
pub struct Tenants {
    matches: BTreeMap<PathBuf, BTreeMap<PathBuf, Match>>,
    /// Each file that is or was a database. Files that are gone stay in it for a while: a file that was
    /// only renamed may still be open, and inodes are used again.
    owners: HashMap<FileId, Owner>,
    /// Files that match and are no databases, as they were when they were opened.
    refused: HashMap<PathBuf, (FileId, u64, Option<SystemTime>)>,
    /// Places that cannot be read; to report each once is enough.
    unreadable: HashSet<PathBuf>,
}

/// A file that is or was a database.
#[derive(Debug)]
struct Owner {
    /// The path under which it is one.
    path: PathBuf,
    /// Whole looks in a row that did not find it.
    unseen: u32,
}

/// What one look at everything has come upon.
#[derive(Debug, Default)]
struct Look {
    databases: HashSet<FileId>,
    refused: HashSet<PathBuf>,
    unreadable: HashSet<PathBuf>,
    /// A directory could not be read.
    is_partial: bool,
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
        let mut look = Look::default();
        for section in &files {
            if let Ok(metadata) = fs::metadata(&section.path) {
                let owner = Owner { path: section.path.clone(), unseen: 0 };
                self.owners.insert(id(&metadata), owner);
                look.databases.insert(id(&metadata));
            }
        }
        let mut matches = Vec::new();
        for section in patterns {
            let found = self.matches_of(&section.path, &mut look)?;
            matches.extend(found.into_iter().map(|(path, found)| (section, path, found)));
        }
        self.find_owners(&files, &matches);
        self.forget(look);
        let mut known: HashSet<PathBuf> =
            files.iter().map(|section| section.path.clone()).collect();
        let mut tenants: Vec<Tenant> = files
            .into_iter()
            .map(|section| Tenant { section: section.clone(), below: None })
            .collect();
        for (section, path, found) in matches {
            let is_alias = self.owners.get(&found.file).is_some_and(|owner| owner.path != path);
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
                let owner = || Owner { path: path.clone(), unseen: 0 };
                let owner = self.owners.entry(found.file).or_insert_with(owner);
                if leads_to.get(owner.path.as_path()) != Some(&found.file) {
                    owner.path.clone_from(path);
                }
            }
        }
    }

    fn matches_of(
        &mut self,
        path: &Path,
        look: &mut Look,
    ) -> Result<BTreeMap<PathBuf, Match>, Error> {
        let pattern = FilePattern::new(path)?;
        let known = self.matches.remove(path).unwrap_or_default();
        let (mut found, mut whole) = (BTreeMap::new(), true);
        for entry in pattern.walk() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    whole = false;
                    self.report_unreadable(error.path().unwrap_or(path), &error, look);
                    continue;
                }
            };
            let is_link = entry.path_is_symlink();
            let path = entry.into_path();
            if !pattern.matches(&path) || is_sidecar(&path) {
                continue;
            }
            let before = known.get(&path);
            match self.database(&path, before.is_some(), look) {
                Ok(Some(file)) => {
                    look.databases.insert(file);
                    found.insert(path, Match { file, is_link, missed: 0 });
                }
                Ok(None) => {}
                Err(error) => {
                    self.report_unreadable(&path, &error, look);
                    found.extend(before.map(|before| (path, *before)));
                }
            }
        }
        for (path, known) in known {
            let missed = known.missed + u32::from(whole);
            if missed < 2 {
                found.entry(path).or_insert(Match { missed, ..known });
            }
        }
        look.is_partial |= !whole;
        self.matches.insert(path.to_owned(), found.clone());
        Ok(found)
    }

    fn report_unreadable(&self, place: &Path, error: &impl Display, look: &mut Look) {
        if look.unreadable.insert(place.to_owned()) && !self.unreadable.contains(place) {
            let path = place.display();
            tracing::warn!(%path, %error, "cannot look for databases here");
        }
    }

    /// Forgets what the last look has not come upon, unless it may only not have got there.
    fn forget(&mut self, look: Look) {
        if !look.is_partial {
            for (file, owner) in &mut self.owners {
                owner.unseen = if look.databases.contains(file) { 0 } else { owner.unseen + 1 };
            }
            self.owners.retain(|_, owner| owner.unseen < FORGOTTEN_AFTER);
            self.refused.retain(|path, _| look.refused.contains(path));
        }
        self.unreadable = look.unreadable;
    }

    /// The file at a path that a pattern matches, if it is a database.
    ///
    /// # Errors
    /// If it cannot be looked at.
    fn database(
        &mut self,
        path: &Path,
        is_known: bool,
        look: &mut Look,
    ) -> io::Result<Option<FileId>> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => return Ok(None),
            // Somebody was faster, or it is a link to nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let file = id(&metadata);
        if is_known || self.owners.contains_key(&file) {
            return Ok(Some(file));
        }
        // Somebody has created it and written nothing yet.
        if metadata.len() == 0 {
            return Ok(None);
        }
        let stamp = (file, metadata.len(), metadata.modified().ok());
        if self.refused.get(path) == Some(&stamp) {
            look.refused.insert(path.to_owned());
            return Ok(None);
        }
        let problem = if path.to_str().is_none() {
            "ignored, because its name is not UTF-8; rename it, or make a symbolic link to it whose name is"
        } else if is_sqlite(path) {
            self.refused.remove(path);
            return Ok(Some(file));
        } else {
            "ignored, because it matches a pattern but is not a SQLite database"
        };
        look.refused.insert(path.to_owned());
        if self.refused.insert(path.to_owned(), stamp).is_none() {
            tracing::warn!(path = %path.display(), "{problem}");
        }
        Ok(None)
    }
}

/// Whether a file begins as a database does. That one cannot be read is for its status to say.
fn is_sqlite(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    match read {
        Ok(()) => start == *MAGIC,
        Err(error) => error.kind() != io::ErrorKind::UnexpectedEof,
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
