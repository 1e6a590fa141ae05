//! One database of the configuration: named by an entry, or matched by the pattern of one.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::config::DatabaseSection;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Its entry, with its own path.
    pub section: DatabaseSection,
    /// The prefix of the pattern that it matches.
    pub below: Option<String>,
}

/// A number that tells which databases there are: another one means that some came or went.
pub(crate) fn fingerprint(tenants: &[Tenant]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for Tenant { section, below } in tenants {
        (&section.path, below).hash(&mut hasher);
    }
    hasher.finish()
}
