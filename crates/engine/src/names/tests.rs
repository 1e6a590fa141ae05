use proptest::prelude::*;

use super::*;

fn request(path: &str, prefix: Option<&str>) -> NameRequest {
    let prefix = prefix.map(str::to_owned);
    NameRequest { path: path.into(), prefix, below: None, kept: None, in_use: false }
}

fn kept(path: &str, name: &str) -> NameRequest {
    NameRequest { kept: Some(name.to_owned()), ..request(path, None) }
}

fn names_of(requests: &[NameRequest]) -> Result<Vec<String>, NameError> {
    assign_names(requests, &HashSet::new()).map(|assignment| assignment.names)
}

#[test]
fn d06_a_name_stays_when_others_come_and_go() {
    let before = kept("/srv/a/app.db", "app");
    let requests = [before.clone(), request("/srv/b/app.db", None)];
    assert_eq!(names_of(&requests).unwrap(), ["app", "b/app"]);
    // Its own prefix wins over what it was called before.
    let renamed = NameRequest { prefix: Some("other".to_owned()), ..before };
    assert_eq!(names_of(&[renamed]).unwrap(), ["other"]);
}

#[test]
fn d06_of_two_that_keep_one_name_the_one_that_uses_it_goes_on_and_nobody_is_refused() {
    let (first, second) = (kept("/srv/a/app.db", "app"), kept("/srv/b/app.db", "app"));
    let other = request("/srv/c/log.db", None);
    // Nobody is known to use it: the first by path.
    let requests = [second.clone(), other.clone(), first.clone()];
    let assigned = assign_names(&requests, &HashSet::new()).unwrap();
    assert_eq!(assigned.names, ["b/app", "log", "app"]);
    let [Displaced { path, kept: name, owner }] = assigned.displaced.as_slice() else {
        panic!("{assigned:?}");
    };
    assert_eq!((path, name.as_str(), owner), (&second.path, "app", &first.path));
    let using = NameRequest { in_use: true, ..second };
    let assigned = assign_names(&[first, other, using], &HashSet::new()).unwrap();
    assert_eq!(assigned.names, ["a/app", "log", "app"]);
}

#[test]
fn d06_a_prefix_that_takes_a_name_is_refused_unless_it_was_there_first() {
    let before = kept("/srv/a/app.db", "app");
    let claim = request("/srv/b/x.db", Some("app"));
    let using = |request: &NameRequest| NameRequest { in_use: true, ..request.clone() };
    for requests in [[before.clone(), claim.clone()], [using(&before), claim.clone()]] {
        let text = names_of(&requests).unwrap_err().to_string();
        assert!(text.contains("/srv/a/app.db") && text.contains("/srv/b/x.db"), "{text}");
    }
    // What comes back while the prefix is in use.
    assert_eq!(names_of(&[before, using(&claim)]).unwrap(), ["a/app", "app"]);
}

#[test]
fn d06_the_name_of_a_database_that_is_gone_is_not_given_away() {
    let reserved = HashSet::from(["app".to_owned(), "x/b/app".to_owned()]);
    let requests = [request("/srv/b/app.db", None), request("/srv/b/log.db", None)];
    assert_eq!(assign_names(&requests, &reserved).unwrap().names, ["b/app", "log"]);
    let below = NameRequest { below: Some("x".to_owned()), ..requests[0].clone() };
    assert_eq!(assign_names(&[below], &reserved).unwrap().names, ["x/app"]);
    // It comes back, or the configuration says so.
    for request in [kept("/srv/a/app.db", "app"), request("/srv/b/y.db", Some("app"))] {
        assert_eq!(assign_names(&[request], &reserved).unwrap().names, ["app"]);
    }
}

#[test]
fn every_name_that_could_be_found_is_foreseen() {
    let possible = possible_names(Path::new("/srv/b/app.db"), Some("x/"));
    let expected = ["x/srv/b/app", "x/b/app", "x/app", "x/srv/b/app.db", "x/b/app.db", "x/app.db"];
    assert_eq!(possible, expected);
}

#[test]
fn d06_matches_of_one_pattern_have_names_of_their_own_below_its_prefix() {
    let below = |path| NameRequest { below: Some("tenants/".to_owned()), ..request(path, None) };
    let requests = [below("/srv/x/app.db"), below("/srv/y/app.db"), below("/srv/z/log.db")];
    assert_eq!(names_of(&requests).unwrap(), ["tenants/x/app", "tenants/y/app", "tenants/log"]);
}

#[test]
fn d01_ten_thousand_names_take_no_time_worth_mentioning() {
    let requests: Vec<_> =
        (0..10_000).map(|n| request(&format!("/srv/tenants/{n}/app.db"), None)).collect();
    let names = names_of(&requests).unwrap();
    assert_eq!(names[77], "77/app");
}

#[test]
fn a_prefix_wins_over_the_stem() {
    let requests = [request("/data/app.db", Some("production")), request("/data/log.db", None)];
    assert_eq!(names_of(&requests).unwrap(), ["production", "log"]);
}

#[test]
fn colliding_stems_get_the_shortest_distinguishing_parents() {
    let requests = [
        request("/srv/romneys/app.db", None),
        request("/srv/smiths/app.db", None),
        request("/srv/smiths/log.db", None),
    ];
    assert_eq!(names_of(&requests).unwrap(), ["romneys/app", "smiths/app", "log"]);
}

#[test]
fn what_parents_cannot_tell_apart_extensions_or_numbers_do() {
    let paths = ["/app.sqlite", "/y/y/app.sqlite", "/y/app.db"].map(|path| request(path, None));
    let names = names_of(&paths).unwrap();
    assert_eq!(names, ["app.sqlite", "y/y/app", "app.db"]);
    let with_name =
        |(request, name): (NameRequest, String)| NameRequest { kept: Some(name), ..request };
    let named = paths.into_iter().zip(names).map(with_name);
    let all: Vec<_> = named.chain([request("/app.db", None)]).collect();
    assert_eq!(names_of(&all).unwrap()[3], "app.db-2");
    let requests = [request("/a/app.db", None), request("/a/app.sqlite", None)];
    assert_eq!(names_of(&requests).unwrap(), ["app.db", "app.sqlite"]);
    let requests = [kept("/a/app.db", "app"), request("/a/app.sqlite", None)];
    assert_eq!(names_of(&requests).unwrap(), ["app", "app.sqlite"]);
}

#[test]
fn d06_a_derived_name_gives_way_to_names_that_are_taken() {
    let requests = [
        request("/data/main.db", Some("app")),
        request("/data/app.db", None),
        kept("/old/x.db", "log"),
        request("/data/log.db", None),
    ];
    let names = names_of(&requests).unwrap();
    assert_eq!(names, ["app", "data/app", "log", "data/log"]);
}

#[test]
fn two_databases_never_share_a_name() {
    let requests = [request("/a/x.db", Some("same")), request("/a/y.db", Some("same/"))];
    let error = names_of(&requests).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("/a/x.db") && text.contains("/a/y.db"), "{text}");
    let requests = [request("/a/x.db", None), request("/a/x.db", None)];
    assert!(matches!(names_of(&requests), Err(NameError::Duplicate { .. })));
}

#[test]
fn names_that_would_leave_the_bucket_prefix_are_refused() {
    for prefix in ["", "a//b", "..", "a/../b", "./a"] {
        let error = names_of(&[request("/a/x.db", Some(prefix))]).unwrap_err();
        assert!(matches!(error, NameError::Invalid { .. }), "{prefix}");
    }
}

/// Paths that collide often: few folders, few stems, few extensions.
#[test]
fn no_name_looks_like_a_level_of_litestream() {
    let below = |path| NameRequest { below: Some("t".to_owned()), ..request(path, None) };
    let requests = [below("/srv/0001.db"), below("/srv/0010.db"), below("/srv/0009")];
    assert_eq!(names_of(&requests).unwrap(), ["t/0001.db", "t/0010", "t/srv/0009-2"]);
    let ltx = |path| NameRequest { below: Some("t/ltx".to_owned()), ..request(path, None) };
    assert_eq!(names_of(&[ltx("/srv/7.db")]).unwrap(), ["t/ltx/srv/7"]);
    for prefix in ["0003", "a/0003/", "a/ltx/3"] {
        let refused = names_of(&[request("/a.db", Some(prefix))]).unwrap_err();
        assert!(matches!(refused, NameError::LooksLikeLevel { .. }), "{refused}");
    }
    // One that was stored under such a name stays there.
    assert_eq!(names_of(&[kept("/srv/0001.db", "0001")]).unwrap(), ["0001"]);
}

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
        let first = names_of(&requests(&paths[..old])).unwrap();
        let mut all = requests(&paths);
        for (request, name) in all.iter_mut().zip(&first) {
            request.kept = Some(name.clone());
        }
        let names = names_of(&all).unwrap();
        prop_assert_eq!(&names[..old], &first[..]);
        let distinct: HashSet<_> = names.iter().collect();
        prop_assert_eq!(distinct.len(), names.len());
    }
}
