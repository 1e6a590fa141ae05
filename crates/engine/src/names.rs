//! The name under which each database is stored.
//!
//! Invariant: two databases never share a name; where the file stems collide, each gets the
//! shortest parent path that tells it from the others.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

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
    /// The path has no file name, or one that is not valid UTF-8.
    #[error("{} has no file name that can be used in a bucket; give it a prefix", .path.display())]
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

/// Assigns a name to each database, in the order of the requests.
///
/// # Errors
/// If two databases would share a name, or a name cannot be part of an object key.
pub fn assign_names(requests: &[NameRequest]) -> Result<Vec<String>, NameError> {
    let mut paths = HashSet::new();
    for request in requests {
        if !paths.insert(&request.path) {
            return Err(NameError::Duplicate { path: request.path.clone() });
        }
    }
    let mut derived = shortest_distinct(requests)?;
    let mut names = Vec::with_capacity(requests.len());
    for (index, request) in requests.iter().enumerate() {
        let name = match (&request.prefix, &request.kept) {
            (Some(prefix), _) => prefix.trim_matches('/').to_owned(),
            (None, Some(kept)) => kept.clone(),
            (None, None) => {
                let name = derived.remove(&index).unwrap_or_default();
                let below = request.below.as_deref().map(|below| below.trim_matches('/'));
                match below.filter(|below| !below.is_empty()) {
                    Some(below) => format!("{below}/{name}"),
                    None => name,
                }
            }
        };
        if !is_valid(&name) {
            return Err(NameError::Invalid { name, path: request.path.clone() });
        }
        names.push(name);
    }
    refuse_shared(requests, &names)?;
    Ok(names)
}

fn refuse_shared(requests: &[NameRequest], names: &[String]) -> Result<(), NameError> {
    let mut owner: HashMap<&str, &Path> = HashMap::new();
    for (request, name) in requests.iter().zip(names) {
        if let Some(first) = owner.insert(name, &request.path) {
            return Err(NameError::Shared {
                name: name.clone(),
                first: first.to_owned(),
                second: request.path.clone(),
            });
        }
    }
    Ok(())
}

/// The shortest end of each path that no other path has, by index of the request. Paths that are
/// named by the configuration are left out.
fn shortest_distinct(requests: &[NameRequest]) -> Result<HashMap<usize, String>, NameError> {
    let mut open = Vec::new();
    for (index, request) in requests.iter().enumerate().filter(|(_, it)| it.prefix.is_none()) {
        open.push((index, segments(&request.path)?));
    }
    let all: Vec<Vec<String>> = open.iter().map(|(_, segments)| segments.clone()).collect();
    let mut names = HashMap::new();
    for depth in 1.. {
        if open.is_empty() {
            break;
        }
        let mut shared: HashMap<&[String], u32> = HashMap::new();
        for segments in all.iter().filter(|segments| segments.len() >= depth) {
            *shared.entry(&segments[segments.len() - depth..]).or_default() += 1;
        }
        open.retain(|(index, segments)| {
            let tail = &segments[segments.len().saturating_sub(depth)..];
            // A path without further parents shares its name, which is found out later.
            let distinct = segments.len() <= depth || shared.get(tail) == Some(&1);
            if distinct {
                names.insert(*index, tail.join("/"));
            }
            !distinct
        });
    }
    Ok(names)
}

/// The normal components of a path, the last one without its extension.
fn segments(path: &Path) -> Result<Vec<String>, NameError> {
    let unnameable = || NameError::Unnameable { path: path.to_owned() };
    let stem = path.file_stem().and_then(|stem| stem.to_str()).ok_or_else(unnameable)?;
    let parents = path.parent().into_iter().flat_map(Path::components);
    let mut segments = Vec::new();
    for component in parents {
        if let Component::Normal(segment) = component {
            segments.push(segment.to_str().ok_or_else(unnameable)?.to_owned());
        }
    }
    segments.push(stem.to_owned());
    Ok(segments)
}

fn is_valid(name: &str) -> bool {
    name.split('/').all(|segment| {
        !segment.is_empty() && segment != "." && segment != ".." && !segment.contains('\0')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, prefix: Option<&str>) -> NameRequest {
        let prefix = prefix.map(str::to_owned);
        NameRequest { path: path.into(), prefix, below: None, kept: None }
    }

    #[test]
    fn d06_a_name_stays_when_others_come_and_go() {
        let kept = NameRequest { kept: Some("app".to_owned()), ..request("/srv/a/app.db", None) };
        let requests = [kept.clone(), request("/srv/b/app.db", None)];
        assert_eq!(assign_names(&requests).unwrap(), ["app", "b/app"]);
        // Its own prefix wins over what it was called before.
        let renamed = NameRequest { prefix: Some("other".to_owned()), ..kept.clone() };
        assert_eq!(assign_names(&[renamed]).unwrap(), ["other"]);
        let copy = NameRequest { kept: kept.kept.clone(), ..request("/copy/app.db", None) };
        assert!(matches!(assign_names(&[kept, copy]), Err(NameError::Shared { .. })));
    }

    #[test]
    fn d06_matches_of_one_pattern_have_names_of_their_own_below_its_prefix() {
        let below =
            |path| NameRequest { below: Some("tenants/".to_owned()), ..request(path, None) };
        let requests = [below("/srv/x/app.db"), below("/srv/y/app.db"), below("/srv/z/log.db")];
        assert_eq!(
            assign_names(&requests).unwrap(),
            ["tenants/x/app", "tenants/y/app", "tenants/log"]
        );
    }

    #[test]
    fn d01_ten_thousand_names_take_no_time_worth_mentioning() {
        let requests: Vec<_> =
            (0..10_000).map(|n| request(&format!("/srv/tenants/{n}/app.db"), None)).collect();
        let names = assign_names(&requests).unwrap();
        assert_eq!(names[77], "77/app");
    }

    #[test]
    fn a_prefix_wins_over_the_stem() {
        let requests = [request("/data/app.db", Some("production")), request("/data/log.db", None)];
        assert_eq!(assign_names(&requests).unwrap(), ["production", "log"]);
    }

    #[test]
    fn colliding_stems_get_the_shortest_distinguishing_parents() {
        let requests = [
            request("/srv/romneys/app.db", None),
            request("/srv/smiths/app.db", None),
            request("/srv/smiths/log.db", None),
        ];
        assert_eq!(assign_names(&requests).unwrap(), ["romneys/app", "smiths/app", "log"]);
    }

    #[test]
    fn extensions_do_not_tell_databases_apart() {
        let requests = [request("/a/app.db", None), request("/a/app.sqlite", None)];
        assert!(matches!(assign_names(&requests), Err(NameError::Shared { .. })));
    }

    #[test]
    fn two_databases_never_share_a_name() {
        let requests = [request("/a/x.db", Some("same")), request("/a/y.db", Some("same/"))];
        let error = assign_names(&requests).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/a/x.db") && text.contains("/a/y.db"), "{text}");
        let requests = [request("/a/x.db", None), request("/a/x.db", None)];
        assert!(matches!(assign_names(&requests), Err(NameError::Duplicate { .. })));
    }

    #[test]
    fn names_that_would_leave_the_bucket_prefix_are_refused() {
        for prefix in ["", "a//b", "..", "a/../b", "./a"] {
            let error = assign_names(&[request("/a/x.db", Some(prefix))]).unwrap_err();
            assert!(matches!(error, NameError::Invalid { .. }), "{prefix}");
        }
    }
}
