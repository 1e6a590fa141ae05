//! The local state of databases that patterns matched and that are gone.
//!
//! Invariant: only state of databases that a pattern of the configuration matches is found here. What
//! an entry names stays until the entry goes, and then it is no concern of this daemon any more.

use std::path::Path;

use walrust_sqlite::Orphan;

use crate::pattern::FilePattern;

/// All that there is, beside the places of the databases or in a directory for all of them.
pub(crate) fn orphans(patterns: &[FilePattern], state: Option<&Path>) -> Vec<Orphan> {
    let Some(directory) = state else {
        let deleted = patterns.iter().flat_map(FilePattern::deleted_databases);
        return deleted.filter_map(|database| Orphan::beside(&database)).collect();
    };
    let mut found = Orphan::all_in(directory).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot look for the local state of deleted databases");
        Vec::new()
    });
    found.retain(|orphan| patterns.iter().any(|pattern| pattern.matches(orphan.database())));
    found
}
