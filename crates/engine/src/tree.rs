//! Where the LTX files of one database lie in a bucket: our layout, and both of Litestream 0.5.
//!
//! Invariant: an object takes part in a restore only if its whole name is that of an LTX file in
//! the layout of its tree; everything else (temporary files, sidecars, other people's objects) is
//! ignored, as Litestream ignores it. No file belongs to two databases: a folder that Litestream would
//! call a level is a database of ours if it has a manifest, or one beside it that looks the same has.

use std::collections::BTreeSet;
use std::fmt;

use walrust_ltx::FileName;

/// The name of the index object of a database.
pub const MANIFEST: &str = "manifest.json";

/// How the files of a database are laid out below its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layout {
    /// `<min>-<max>.ltx` beside `manifest.json`.
    Walrust,
    /// Litestream 0.5 on S3: `<level as four hex digits>/<min>-<max>.ltx`.
    LitestreamS3,
    /// Litestream 0.5 in a directory: `ltx/<level>/<min>-<max>.ltx`.
    LitestreamFile,
}

impl Layout {
    /// The key of a file, relative to the place of its database. Our own layout has no levels.
    #[must_use]
    pub fn key(self, level: u8, file: FileName) -> String {
        match self {
            Self::Walrust => file.to_string(),
            Self::LitestreamS3 => format!("{level:04x}/{file}"),
            Self::LitestreamFile => format!("ltx/{level}/{file}"),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Walrust => "walrust",
            Self::LitestreamS3 => "litestream (S3 layout)",
            Self::LitestreamFile => "litestream (file layout)",
        })
    }
}

/// One LTX file in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Key of the object, relative to the storage URL.
    pub key: String,
    /// The TXIDs that its name promises.
    pub name: FileName,
    /// Litestream's compaction level; 0 in our layout.
    pub level: u8,
    /// Size of the object in bytes.
    pub size: u64,
}

/// All files of one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The layout they were found in.
    pub layout: Layout,
    /// The files, in the order of their keys.
    pub files: Vec<StoredFile>,
    /// Whether there is a `manifest.json`.
    pub has_manifest: bool,
}

impl Tree {
    /// Reads the tree of database `name` from a listing of `(key, size)` pairs.
    ///
    /// Our own layout wins over the others; without any LTX file the tree is an empty one of ours.
    #[must_use]
    pub fn read<'a>(name: &str, listing: impl IntoIterator<Item = (&'a str, u64)>) -> Self {
        let mut found: [Vec<StoredFile>; 3] = Default::default();
        let mut has_manifest = false;
        // Layouts in which what looks like a level is a database.
        let mut named = BTreeSet::new();
        for (key, size) in listing {
            let Some(rest) = key.strip_prefix(name).and_then(|rest| rest.strip_prefix('/')) else {
                continue;
            };
            has_manifest |= rest == MANIFEST;
            if let Some((folder, MANIFEST)) = rest.rsplit_once('/') {
                named
                    .extend(Level::of(folder).filter(|it| it.place.is_empty()).map(|it| it.layout));
            }
            let Some((layout, level, name)) = parse(rest) else { continue };
            let file = StoredFile { key: key.to_owned(), name, level, size };
            found[layout as usize].push(file);
        }
        for layout in named {
            found[layout as usize].clear();
        }
        let [walrust, s3, file] = found;
        let (layout, mut files) = if !walrust.is_empty() {
            (Layout::Walrust, walrust)
        } else if !s3.is_empty() {
            (Layout::LitestreamS3, s3)
        } else if !file.is_empty() {
            (Layout::LitestreamFile, file)
        } else {
            (Layout::Walrust, Vec::new())
        };
        files.sort_by(|a, b| a.key.cmp(&b.key));
        Self { layout, files, has_manifest }
    }
}

/// The trees of all databases in a listing of a whole bucket, by name.
#[must_use]
pub fn all_trees(mut listing: Vec<(&str, u64)>) -> Vec<(String, Tree)> {
    listing.sort_unstable();
    let names = database_names(listing.iter().map(|(key, _)| *key));
    let trees = names.into_iter().map(|name| {
        let prefix = format!("{name}/");
        let begin = listing.partition_point(|(key, _)| *key < prefix.as_str());
        let objects = &listing[begin..];
        let end = objects.partition_point(|(key, _)| key.starts_with(&prefix));
        let tree = Tree::read(&name, objects[..end].iter().copied());
        (name, tree)
    });
    trees.collect()
}

/// The key of an LTX file of ours.
#[must_use]
pub fn object_key(name: &str, file: FileName) -> String {
    format!("{name}/{file}")
}

/// The key of the index object of a database.
#[must_use]
pub fn manifest_key(name: &str) -> String {
    format!("{name}/{MANIFEST}")
}

/// The names of all databases in a listing of a whole bucket, sorted, each once.
#[must_use]
pub fn database_names<'a>(keys: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let objects = keys.into_iter().filter_map(|key| key.rsplit_once('/'));
    let objects: Vec<(&str, &str)> = objects.collect();
    let manifests = objects.iter().filter(|(_, object)| *object == MANIFEST);
    let named = manifests.filter_map(|(folder, _)| Level::of(folder));
    let named: BTreeSet<(&str, Layout)> = named.map(|level| (level.place, level.layout)).collect();
    let name = |(folder, object): (&'a str, &'a str)| {
        if object == MANIFEST {
            return Some(folder);
        }
        object.parse::<FileName>().ok()?;
        match Level::of(folder) {
            Some(level) if !named.contains(&(level.place, level.layout)) => {
                (!level.place.is_empty()).then_some(level.place)
            }
            _ => Some(folder),
        }
    };
    let names: BTreeSet<&str> = objects.into_iter().filter_map(name).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// A folder that may be a level of a tree of Litestream.
struct Level<'a> {
    /// Where the tree is.
    place: &'a str,
    layout: Layout,
    number: u8,
}

impl<'a> Level<'a> {
    fn of(folder: &'a str) -> Option<Self> {
        let (place, last) = folder.rsplit_once('/').unwrap_or(("", folder));
        let digit = |text: &str| match text.as_bytes() {
            [digit @ b'0'..=b'9'] => Some(digit - b'0'),
            _ => None,
        };
        if let Some(number) = last.strip_prefix("000").and_then(digit) {
            return Some(Self { place, layout: Layout::LitestreamS3, number });
        }
        let number = digit(last)?;
        let (place, above) = place.rsplit_once('/').unwrap_or(("", place));
        (above == "ltx").then_some(Self { place, layout: Layout::LitestreamFile, number })
    }
}

/// Whether a folder of this name looks like a level of a tree of Litestream.
pub(crate) fn looks_like_level(name: &str) -> bool {
    Level::of(name).is_some()
}

/// Layout, level and name of a file, by its key relative to the place of its database.
fn parse(rest: &str) -> Option<(Layout, u8, FileName)> {
    let Some((folder, file)) = rest.rsplit_once('/') else {
        return Some((Layout::Walrust, 0, rest.parse().ok()?));
    };
    let level = Level::of(folder).filter(|level| level.place.is_empty())?;
    Some((level.layout, level.number, file.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "0000000000000001-0000000000000001.ltx";
    const NEXT: &str = "0000000000000002-000000000000000a.ltx";

    fn listing(keys: &[String]) -> Vec<(&str, u64)> {
        keys.iter().map(|key| (key.as_str(), 7)).collect()
    }

    #[test]
    fn our_layout_is_read_and_junk_is_ignored() {
        let keys = [
            format!("app/{FIRST}"),
            format!("app/{NEXT}"),
            format!("app/{NEXT}.tmp"),
            format!("app/{}", NEXT.to_uppercase()),
            "app/manifest.json".to_owned(),
            format!("apple/{FIRST}"),
            format!("app/nested/{FIRST}"),
        ];
        let tree = Tree::read("app", listing(&keys));
        assert_eq!(tree.layout, Layout::Walrust);
        assert!(tree.has_manifest);
        let found: Vec<_> = tree.files.iter().map(|file| file.key.as_str()).collect();
        assert_eq!(found, [&keys[0], &keys[1]]);
    }

    #[test]
    fn both_layouts_of_litestream_are_recognised_with_their_levels() {
        let s3 = [format!("db/0000/{NEXT}"), format!("db/0009/{FIRST}"), format!("db/000a/{NEXT}")];
        let tree = Tree::read("db", listing(&s3));
        assert_eq!(tree.layout, Layout::LitestreamS3);
        assert_eq!(tree.files.iter().map(|file| file.level).collect::<Vec<_>>(), [0, 9]);
        let files = [format!("db/ltx/0/{NEXT}"), format!("db/ltx/9/{FIRST}")];
        let tree = Tree::read("db", listing(&files));
        assert_eq!(tree.layout, Layout::LitestreamFile);
        assert_eq!(tree.files.iter().map(|file| file.level).collect::<Vec<_>>(), [0, 9]);
    }

    #[test]
    fn keys_are_read_as_they_are_made() {
        for layout in [Layout::Walrust, Layout::LitestreamS3, Layout::LitestreamFile] {
            for level in [0, 9] {
                let key = format!("db/{}", layout.key(level, NEXT.parse().unwrap()));
                let tree = Tree::read("db", [(key.as_str(), 7)]);
                assert_eq!(tree.layout, layout);
                let expected = if layout == Layout::Walrust { 0 } else { level };
                assert_eq!(tree.files[0].level, expected, "{key}");
            }
        }
    }

    #[test]
    fn each_database_of_a_listing_has_its_own_tree() {
        let keys = [
            format!("app/{FIRST}"),
            format!("app/{NEXT}"),
            "app/manifest.json".to_owned(),
            format!("app/nested/{FIRST}"),
            format!("app-2/{FIRST}"),
            format!("app.db/{FIRST}"),
            format!("peer/0009/{FIRST}"),
            format!("other/ltx/0/{FIRST}"),
            "nothing/readme.txt".to_owned(),
        ];
        let listing: Vec<_> = listing(&keys).into_iter().rev().collect();
        let trees = all_trees(listing.clone());
        let names: Vec<_> = trees.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["app", "app-2", "app.db", "app/nested", "other", "peer"]);
        for (name, tree) in &trees {
            assert_eq!(*tree, Tree::read(name, listing.iter().copied()), "{name}");
        }
    }

    #[test]
    fn names_of_all_databases_are_found_in_a_listing() {
        let keys = [
            format!("app/{FIRST}"),
            "app/manifest.json".to_owned(),
            format!("smiths/app/{FIRST}"),
            format!("peer/0009/{FIRST}"),
            format!("other/ltx/0/{FIRST}"),
            "readme.txt".to_owned(),
            FIRST.to_owned(),
        ];
        let names = database_names(keys.iter().map(String::as_str));
        assert_eq!(names, ["app", "other", "peer", "smiths/app"]);
    }

    #[test]
    fn databases_that_are_named_like_levels_are_no_levels() {
        let keys = [
            format!("tenants/0001/{FIRST}"),
            "tenants/0001/manifest.json".to_owned(),
            // It has lost its manifest, or has none yet.
            format!("tenants/0002/{FIRST}"),
            format!("0007/{FIRST}"),
            "0007/manifest.json".to_owned(),
            format!("shop/ltx/3/{FIRST}"),
            "shop/ltx/3/manifest.json".to_owned(),
            format!("peer/0009/{FIRST}"),
            format!("peer/ltx/0/{FIRST}"),
        ];
        let names = database_names(keys.iter().map(String::as_str));
        assert_eq!(names, ["0007", "peer", "shop/ltx/3", "tenants/0001", "tenants/0002"]);
        let files = |name: &str| Tree::read(name, listing(&keys)).files.len();
        for name in ["0007", "shop/ltx/3", "tenants/0001", "tenants/0002", "peer"] {
            assert_eq!(files(name), 1, "{name}");
        }
        for name in ["tenants", "shop", "shop/ltx", ""] {
            assert_eq!(files(name), 0, "{name}");
        }
    }
}
