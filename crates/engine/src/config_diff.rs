//! What differs between two sets of settings, by name.
//!
//! Invariant: adding, removing and changing what the difference names, and nothing else, turns the
//! old set into the new one.

use std::collections::BTreeMap;

/// Names whose settings differ, each ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff<K> {
    /// Only in the new set.
    pub add: Vec<K>,
    /// Only in the old set.
    pub remove: Vec<K>,
    /// In both, with different settings.
    pub change: Vec<K>,
}

/// Compares two sets.
#[must_use]
pub fn diff<K: Ord + Clone, V: PartialEq>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Diff<K> {
    let only_in = |one: &BTreeMap<K, V>, other: &BTreeMap<K, V>| {
        one.keys().filter(|name| !other.contains_key(name)).cloned().collect()
    };
    let changed = new.iter().filter(|(name, now)| old.get(name).is_some_and(|it| it != *now));
    Diff {
        add: only_in(new, old),
        remove: only_in(old, new),
        change: changed.map(|(name, _)| name.clone()).collect(),
    }
}
