//! The name under which each database is stored.
//!
//! Invariant: two databases never share a name; where the file stems collide, each gets the
//! shortest parent path that tells it from the others.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// A database as it was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRequest {
    /// Absolute path of the database file.
    pub path: PathBuf,
    /// The name that the configuration gives it, if any.
    pub prefix: Option<String>,
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
    for (index, request) in requests.iter().enumerate() {
        if requests[..index].iter().any(|earlier| earlier.path == request.path) {
            return Err(NameError::Duplicate { path: request.path.clone() });
        }
    }
    let derived: Vec<&NameRequest> = requests.iter().filter(|r| r.prefix.is_none()).collect();
    let mut names = Vec::with_capacity(requests.len());
    for request in requests {
        let name = match &request.prefix {
            Some(prefix) => prefix.trim_matches('/').to_owned(),
            None => shortest_distinct(&request.path, &derived)?,
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

fn shortest_distinct(path: &Path, all: &[&NameRequest]) -> Result<String, NameError> {
    let own = segments(path)?;
    for depth in 1..=own.len() {
        let tail = &own[own.len() - depth..];
        let shared = all
            .iter()
            .filter(|other| other.path != path)
            .any(|other| segments(&other.path).is_ok_and(|other| other.ends_with(tail)));
        if !shared {
            return Ok(tail.join("/"));
        }
    }
    Ok(own.join("/"))
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
        NameRequest { path: path.into(), prefix: prefix.map(str::to_owned) }
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
