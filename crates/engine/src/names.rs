//! The name under which each database is stored.
//!
//! Invariant: two databases never share a name, and a name that has to be found is never one that
//! another database had. What the configuration says comes first, then what was kept; a name that has
//! to be found gives way to both. Where file stems collide it is the shortest end of the path that no
//! other has; where parents cannot tell two files apart, their extensions do, or a number. No new name
//! looks like a level of a tree of Litestream, which readers would take its files for.
//!
//! Only the configuration can ask for what is impossible. Two databases that keep one name (one is a
//! copy, or was away while the other got its name) do not stand in the way of any other: the one that
//! uses the name goes on with it.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use crate::tree::looks_like_level;

/// A database as it was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRequest {
    /// Absolute path of the database file.
    pub path: PathBuf,
    /// The name that the configuration gives it, if any.
    pub prefix: Option<String>,
    /// What comes before a derived name: the prefix of the pattern that the path matches.
    pub below: Option<String>,
    /// The name that it was stored under before: it stays, whoever comes or goes.
    pub kept: Option<String>,
    /// Whether it is being stored under its name, configured or kept, right now.
    pub in_use: bool,
}

/// The names of some databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// One for each request, in their order.
    pub names: Vec<String>,
    /// The databases that were stored under another name before, which belongs to somebody else now.
    pub displaced: Vec<Displaced>,
}

/// A database whose kept name belongs to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Displaced {
    /// Path of the database.
    pub path: PathBuf,
    /// The name that it was stored under before.
    pub kept: String,
    /// Path of the database that has this name.
    pub owner: PathBuf,
}

/// Why names could not be assigned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Two databases would be stored under one name.
    #[error(
        "{} and {} would both be stored as {name:?}; give one of them another prefix",
        .first.display(), .second.display()
    )]
    Shared {
        /// The name.
        name: String,
        /// One database.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A name cannot be part of an object key.
    #[error(
        "{name:?} (for {}) cannot be a name in a bucket: \
         use non-empty segments without \"..\", separated by single slashes", .path.display()
    )]
    Invalid {
        /// The name.
        name: String,
        /// The database it was meant for.
        path: PathBuf,
    },
    /// A name looks like a level of a tree of Litestream.
    #[error(
        "{name:?} (for {}) is what Litestream calls the levels of its trees (000N, ltx/N), and would be \
         taken for one; choose another prefix", .path.display()
    )]
    LooksLikeLevel {
        /// The name.
        name: String,
        /// The database it was meant for.
        path: PathBuf,
    },
    /// The path has no file name, or one that is not valid UTF-8.
    #[error(
        "{} has no file name that can be used in a bucket; rename it, or replicate it through a symbolic \
         link whose name can", .path.display()
    )]
    Unnameable {
        /// The path.
        path: PathBuf,
    },
    /// One file is configured twice.
    #[error("{} is configured twice", .path.display())]
    Duplicate {
        /// The path.
        path: PathBuf,
    },
}

/// Assigns a name to each database. No name that has to be found is one of `reserved`: the names of
/// databases that are gone.
///
/// # Errors
/// If two databases would share a name, or a name cannot be part of an object key.
pub fn assign_names(
    requests: &[NameRequest],
    reserved: &HashSet<String>,
) -> Result<Assignment, NameError> {
    let mut paths = HashSet::new();
    for request in requests {
        if !paths.insert(&request.path) {
            return Err(NameError::Duplicate { path: request.path.clone() });
        }
    }
    for request in requests {
        let prefix = request.prefix.as_deref().map(|prefix| prefix.trim_matches('/'));
        if let Some(name) = prefix.filter(|name| looks_like_level(name)) {
            let (name, path) = (name.to_owned(), request.path.clone());
            return Err(NameError::LooksLikeLevel { name, path });
        }
    }
    let mut fixed: Vec<Option<String>> = requests.iter().map(fixed_name).collect();
    let displaced = displace(requests, &mut fixed)?;
    let mut derived = derive(requests, &fixed, reserved)?;
    let mut names = Vec::with_capacity(requests.len());
    for (index, (request, fixed)) in requests.iter().zip(fixed).enumerate() {
        let name = fixed.or_else(|| derived.remove(&index)).unwrap_or_default();
        if !is_valid_name(&name) {
            return Err(NameError::Invalid { name, path: request.path.clone() });
        }
        names.push(name);
    }
    Ok(Assignment { names, displaced })
}

/// All names that could be found for a database, whatever others there are.
#[must_use]
pub fn possible_names(path: &Path, below: Option<&str>) -> Vec<String> {
    let segments = [false, true].map(|with_extension| segments(path, with_extension));
    let segments = segments.into_iter().flatten();
    let ends = segments.flat_map(|segments| {
        (0..segments.len()).map(|start| segments[start..].join("/")).collect::<Vec<_>>()
    });
    ends.map(|end| below_prefix(below, &end)).collect()
}

/// The name that does not depend on other databases, if there is one.
fn fixed_name(request: &NameRequest) -> Option<String> {
    let prefix = request.prefix.as_ref().map(|prefix| prefix.trim_matches('/').to_owned());
    prefix.or_else(|| request.kept.clone())
}

/// Takes fixed names from the databases that cannot have theirs.
fn displace(
    requests: &[NameRequest],
    fixed: &mut [Option<String>],
) -> Result<Vec<Displaced>, NameError> {
    let is_configured = |request: &NameRequest| request.prefix.is_some();
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|index| {
        let request = &requests[*index];
        (!is_configured(request), !request.in_use, &request.path)
    });
    let mut owners: HashMap<String, usize> = HashMap::new();
    let mut displaced = Vec::new();
    for index in order {
        let Some(name) = fixed[index].clone() else { continue };
        let Some(&owner) = owners.get(&name) else {
            owners.insert(name, index);
            continue;
        };
        let (owner, request) = (&requests[owner], &requests[index]);
        // A prefix that takes the name of a database from it is a mistake, unless the prefix was there
        // first.
        let gives_way =
            !is_configured(request) && (!is_configured(owner) || owner.in_use && !request.in_use);
        if !gives_way {
            let (first, second) = (owner.path.clone(), request.path.clone());
            return Err(NameError::Shared { name, first, second });
        }
        fixed[index] = None;
        let (path, owner) = (request.path.clone(), owner.path.clone());
        displaced.push(Displaced { path, kept: name, owner });
    }
    Ok(displaced)
}

/// A name for each request that has none, by index.
fn derive(
    requests: &[NameRequest],
    fixed: &[Option<String>],
    reserved: &HashSet<String>,
) -> Result<HashMap<usize, String>, NameError> {
    let mut taken: HashSet<String> = fixed.iter().flatten().chain(reserved).cloned().collect();
    let mut open: Vec<usize> =
        (0..requests.len()).filter(|index| fixed[*index].is_none()).collect();
    let mut names = HashMap::new();
    for with_extension in [false, true] {
        if open.is_empty() {
            break;
        }
        let ends = requests.iter().zip(fixed).map(|(request, fixed)| {
            match segments(&request.path, with_extension) {
                Err(_) if fixed.is_some() => Ok(Vec::new()),
                segments => segments,
            }
        });
        let ends = ends.collect::<Result<Vec<_>, _>>()?;
        let deepest = open.iter().map(|index| ends[*index].len()).max().unwrap_or_default();
        for depth in 1..=deepest {
            // Files with a kept name count as well: a new name should look different from theirs.
            let rivals = requests.iter().zip(&ends).filter(|(request, _)| request.prefix.is_none());
            let mut shared: HashMap<&[String], u32> = HashMap::new();
            for end in rivals.filter_map(|(_, segments)| last(segments, depth)) {
                *shared.entry(end).or_default() += 1;
            }
            open.retain(|index| {
                let Some(end) = last(&ends[*index], depth) else { return true };
                let name = below_prefix(requests[*index].below.as_deref(), &end.join("/"));
                let free = !looks_like_level(&name)
                    && shared.get(end) == Some(&1)
                    && taken.insert(name.clone());
                if free {
                    names.insert(*index, name);
                }
                !free
            });
        }
    }
    // The whole path may be the end of another one: a number tells these apart.
    for index in open {
        let NameRequest { path, below, .. } = &requests[index];
        let end = below_prefix(below.as_deref(), &segments(path, true)?.join("/"));
        let mut name = end.clone();
        for number in 2.. {
            if !looks_like_level(&name) && taken.insert(name.clone()) {
                break;
            }
            name = format!("{end}-{number}");
        }
        names.insert(index, name);
    }
    Ok(names)
}

fn last(segments: &[String], depth: usize) -> Option<&[String]> {
    segments.len().checked_sub(depth).map(|start| &segments[start..])
}

/// A derived name after the prefix of the pattern that the path matches.
fn below_prefix(below: Option<&str>, name: &str) -> String {
    let below = below.unwrap_or_default().trim_matches('/');
    if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") }
}

/// The normal components of a path, the last one with or without its extension.
fn segments(path: &Path, with_extension: bool) -> Result<Vec<String>, NameError> {
    let unnameable = || NameError::Unnameable { path: path.to_owned() };
    let name = if with_extension { path.file_name() } else { path.file_stem() };
    let name = name.and_then(|name| name.to_str()).ok_or_else(unnameable)?;
    let parents = path.parent().into_iter().flat_map(Path::components);
    let mut segments = Vec::new();
    for component in parents {
        if let Component::Normal(segment) = component {
            segments.push(segment.to_str().ok_or_else(unnameable)?.to_owned());
        }
    }
    segments.push(name.to_owned());
    Ok(segments)
}

/// Whether a name can be part of an object key.
#[must_use]
pub fn is_valid_name(name: &str) -> bool {
    name.split('/').all(|segment| {
        !segment.is_empty() && segment != "." && segment != ".." && !segment.contains('\0')
    })
}

#[cfg(test)]
mod tests;
