//! The name under which each database is stored.
//!
//! Invariant: two databases never share a name. What the configuration says comes first, then what
//! was kept; a name that has to be found gives way to both. Where file stems collide it is the
//! shortest end of the path that no other has; where parents cannot tell two files apart, their
//! extensions do, or a number.

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
    let fixed: Vec<Option<String>> = requests.iter().map(fixed_name).collect();
    let mut derived = derive(requests, &fixed)?;
    let mut names = Vec::with_capacity(requests.len());
    for (index, (request, fixed)) in requests.iter().zip(&fixed).enumerate() {
        let name = fixed.clone().or_else(|| derived.remove(&index)).unwrap_or_default();
        if !is_valid_name(&name) {
            return Err(NameError::Invalid { name, path: request.path.clone() });
        }
        names.push(name);
    }
    refuse_shared(requests, &names)?;
    Ok(names)
}

/// The name that does not depend on other databases, if there is one.
fn fixed_name(request: &NameRequest) -> Option<String> {
    let prefix = request.prefix.as_ref().map(|prefix| prefix.trim_matches('/').to_owned());
    prefix.or_else(|| request.kept.clone())
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

/// A name for each request that has none, by index.
fn derive(
    requests: &[NameRequest],
    fixed: &[Option<String>],
) -> Result<HashMap<usize, String>, NameError> {
    let mut taken: HashSet<String> = fixed.iter().flatten().cloned().collect();
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
                let name = below(&requests[*index], &end.join("/"));
                let free = shared.get(end) == Some(&1) && taken.insert(name.clone());
                if free {
                    names.insert(*index, name);
                }
                !free
            });
        }
    }
    // The whole path may be the end of another one: a number tells these apart.
    for index in open {
        let end = below(&requests[index], &segments(&requests[index].path, true)?.join("/"));
        let mut name = end.clone();
        for number in 2.. {
            if taken.insert(name.clone()) {
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

/// A derived name behind the prefix of the pattern that the path matches.
fn below(request: &NameRequest, name: &str) -> String {
    let below = request.below.as_deref().unwrap_or_default().trim_matches('/');
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
mod tests {
    use proptest::prelude::*;

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
    fn what_parents_cannot_tell_apart_extensions_or_numbers_do() {
        let paths = ["/app.sqlite", "/y/y/app.sqlite", "/y/app.db"].map(|path| request(path, None));
        let names = assign_names(&paths).unwrap();
        assert_eq!(names, ["app.sqlite", "y/y/app", "app.db"]);
        let kept =
            |(request, name): (NameRequest, String)| NameRequest { kept: Some(name), ..request };
        let kept = paths.into_iter().zip(names).map(kept);
        let all: Vec<_> = kept.chain([request("/app.db", None)]).collect();
        assert_eq!(assign_names(&all).unwrap()[3], "app.db-2");
        let requests = [request("/a/app.db", None), request("/a/app.sqlite", None)];
        assert_eq!(assign_names(&requests).unwrap(), ["app.db", "app.sqlite"]);
        let first = NameRequest { kept: Some("app".to_owned()), ..request("/a/app.db", None) };
        let requests = [first, request("/a/app.sqlite", None)];
        assert_eq!(assign_names(&requests).unwrap(), ["app", "app.sqlite"]);
    }

    #[test]
    fn d06_a_derived_name_gives_way_to_names_that_are_taken() {
        let requests = [
            request("/data/main.db", Some("app")),
            request("/data/app.db", None),
            NameRequest { kept: Some("log".to_owned()), ..request("/old/x.db", None) },
            request("/data/log.db", None),
        ];
        let names = assign_names(&requests).unwrap();
        assert_eq!(names, ["app", "data/app", "log", "data/log"]);
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

    /// Paths that collide often: few folders, few stems, few extensions.
    fn paths() -> impl Strategy<Value = Vec<String>> {
        let path = "(/[xy]){0,3}/(app|log)\\.(db|sqlite)";
        proptest::collection::btree_set(path, 0..12)
            .prop_map(|set| set.into_iter().collect::<Vec<_>>())
            .prop_shuffle()
    }

    proptest! {
        #[test]
        fn d06_every_database_has_a_name_of_its_own_that_stays(
            paths in paths(), old in 0_usize..12, below in proptest::option::of("[xy]"),
        ) {
            let requests = |paths: &[String]| -> Vec<NameRequest> {
                let request = |path: &String| NameRequest {
                    below: below.clone(),
                    ..request(path, None)
                };
                paths.iter().map(request).collect()
            };
            let old = old.min(paths.len());
            let first = assign_names(&requests(&paths[..old])).unwrap();
            let mut all = requests(&paths);
            for (request, name) in all.iter_mut().zip(&first) {
                request.kept = Some(name.clone());
            }
            let names = assign_names(&all).unwrap();
            prop_assert_eq!(&names[..old], &first[..]);
            let distinct: HashSet<_> = names.iter().collect();
            prop_assert_eq!(distinct.len(), names.len());
        }
    }
}
