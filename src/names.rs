//! The names of the databases, as they were assigned.
//!
//! Invariant: a name that was found for a database stays for as long as the configuration says the
//! same of it, whoever else comes or goes: here while the process runs, and beyond that in the local
//! state of the database, where its actor keeps it. If the file of a database that a pattern matches is
//! gone, its name is given to no other for as long as the process or local state knows it. A name that the configuration gives is not kept, so that it can be taken back. A database
//! whose kept name cannot be read has none until it can be: another one would begin a second history.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use walrust_engine::{Assignment, Displaced, NameRequest, assign_names, possible_names};
use walrust_sqlite::{DatabaseError, KeptName, kept_name};

use crate::Error;
use crate::pattern::FilePattern;
use crate::tenant::Tenant;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The names of the databases that are there, by path.
    assigned: HashMap<PathBuf, Name>,
    /// The names that were found for databases that patterns match and that are gone, by path.
    gone: HashMap<PathBuf, Gone>,
}

/// The name of a database that is gone.
#[derive(Debug)]
struct Gone {
    kept: KeptName,
    /// When that was known last.
    known: Instant,
}

/// The name of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) name: String,
    /// What is kept of it, if it was found.
    pub(crate) kept: Option<KeptName>,
}

impl Names {
    /// The name of each database, in their order; or why it is not known what it was stored under
    /// before.
    ///
    /// # Errors
    /// If two databases would share a name, or a name cannot be part of an object key.
    pub(crate) fn assign(
        &mut self,
        tenants: &[Tenant],
        patterns: &[FilePattern],
        state: Option<&Path>,
    ) -> Result<Vec<Result<Name, DatabaseError>>, Error> {
        let mut reserved = self.reserved(tenants, patterns);
        let (mut requests, mut known) = (Vec::new(), Vec::new());
        for tenant in tenants {
            known.push(match self.request(tenant, state) {
                Ok(request) => {
                    requests.push(request);
                    Ok(())
                }
                Err(error) => {
                    let Tenant { section, below } = tenant;
                    reserved.extend(possible_names(&section.path, below.as_deref()));
                    Err(error)
                }
            });
        }
        let Assignment { names, displaced } = assign_names(&requests, &reserved)?;
        for Displaced { path, kept, owner } in &displaced {
            let (path, owner) = (path.display(), owner.display());
            tracing::warn!(
                %path, name = kept, %owner,
                "the name of this database is used by another one; it gets a new name and starts a \
                 new history under it. Set a prefix to choose the name"
            );
        }
        let names: Vec<_> = requests.iter().zip(names).map(name_of).collect();
        let paths = requests.into_iter().map(|request| request.path);
        self.remember(paths.zip(names.iter().cloned()), patterns);
        let mut names = names.into_iter();
        let mut next = || names.next().expect("one for each request");
        Ok(known.into_iter().map(|known| known.map(|()| next())).collect())
    }

    /// Gives the name of a database that is gone to nobody else.
    pub(crate) fn reserve(&mut self, path: &Path, kept: KeptName) {
        if !self.assigned.contains_key(path) {
            self.gone.insert(path.to_owned(), Gone { kept, known: Instant::now() });
        }
    }

    /// The name of a database that is gone may be given to others.
    pub(crate) fn forget(&mut self, path: &Path) {
        self.gone.remove(path);
    }

    /// Forgets what has not been known for a while: the local state is gone as well.
    pub(crate) fn forget_after(&mut self, while_gone: Duration) {
        self.gone.retain(|_, gone| gone.known.elapsed() < while_gone);
    }

    /// Whether a database is there.
    pub(crate) fn is_assigned(&self, path: &Path) -> bool {
        self.assigned.contains_key(path)
    }

    /// The names of databases that are gone, which are given to nobody else.
    fn reserved(&self, tenants: &[Tenant], patterns: &[FilePattern]) -> HashSet<String> {
        let there: HashSet<&Path> = tenants.iter().map(|it| it.section.path.as_path()).collect();
        let assigned = self.assigned.iter();
        let leaving = assigned.filter_map(|(path, name)| Some((path, name.kept.as_ref()?)));
        let gone = self.gone.iter().map(|(path, gone)| (path, &gone.kept)).chain(leaving);
        let gone =
            gone.filter(|(path, _)| !there.contains(path.as_path()) && matches(patterns, path));
        gone.map(|(_, kept)| kept.name.clone()).collect()
    }

    fn remember(&mut self, names: impl Iterator<Item = (PathBuf, Name)>, patterns: &[FilePattern]) {
        let before = std::mem::replace(&mut self.assigned, names.collect());
        for (path, name) in before {
            if let Some(kept) = name.kept {
                self.reserve(&path, kept);
            }
        }
        self.gone.retain(|path, _| !self.assigned.contains_key(path) && matches(patterns, path));
    }

    fn request(
        &self,
        Tenant { section, below }: &Tenant,
        state: Option<&Path>,
    ) -> Result<NameRequest, DatabaseError> {
        let (path, prefix) = (section.path.clone(), section.prefix.clone());
        let fits = |kept: &KeptName| prefix.is_none() && kept.below == *below;
        let assigned = self.assigned.get(&path);
        let before = assigned.and_then(|name| name.kept.as_ref());
        let before = before.or_else(|| self.gone.get(&path).map(|gone| &gone.kept));
        let kept = match before.filter(|kept| fits(kept)) {
            Some(kept) => Some(kept.clone()),
            None if prefix.is_some() => None,
            None => read(&path, state)?.filter(fits),
        };
        let kept = kept.map(|kept| kept.name);
        let name = prefix.as_deref().map(|prefix| prefix.trim_matches('/')).or(kept.as_deref());
        let in_use = assigned.is_some_and(|assigned| Some(assigned.name.as_str()) == name);
        Ok(NameRequest { path, prefix, below: below.clone(), kept, in_use })
    }
}

fn matches(patterns: &[FilePattern], path: &Path) -> bool {
    patterns.iter().any(|pattern| pattern.matches(path))
}

fn name_of((request, name): (&NameRequest, String)) -> Name {
    let found = request.prefix.is_none();
    let kept = found.then(|| KeptName { name: name.clone(), below: request.below.clone() });
    Name { name, kept }
}

/// The name in local state, which belongs to the file that links lead to. One that is not there at
/// the moment may be about to be replaced.
fn read(path: &Path, state: Option<&Path>) -> Result<Option<KeptName>, DatabaseError> {
    let there = path.canonicalize().or_else(|error| match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if is_missing(&error) => Ok(parent.canonicalize()?.join(name)),
        _ => Err(error),
    });
    match there {
        Ok(path) => kept_name(&path, state),
        Err(error) if is_missing(&error) => Ok(None),
        Err(source) => {
            let operation = "look at the database";
            Err(DatabaseError::Io { operation, path: path.to_owned(), source })
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
