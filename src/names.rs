//! The names of the databases, as they were assigned.
//!
//! Invariant: a name that was found for a database stays for as long as the configuration says the
//! same of it, whoever else comes or goes: here while the process runs, and beyond that in the local
//! state of the database, where its actor keeps it. A name that the configuration gives is not kept,
//! so that it can be taken back.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use walrust_engine::{NameRequest, assign_names};
use walrust_sqlite::{KeptName, kept_name};

use crate::Error;
use crate::tenant::Tenant;

/// The names that were found, by path of the database.
#[derive(Debug, Default)]
pub(crate) struct Names(HashMap<PathBuf, KeptName>);

/// The name of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) name: String,
    /// What is kept of it, if it was found.
    pub(crate) kept: Option<KeptName>,
}

impl Names {
    /// The name of each database, in their order.
    ///
    /// # Errors
    /// If two databases would share a name, or a name cannot be part of an object key.
    pub(crate) fn assign(
        &mut self,
        tenants: &[Tenant],
        state: Option<&Path>,
    ) -> Result<Vec<Name>, Error> {
        let requests: Vec<_> = tenants.iter().map(|tenant| self.request(tenant, state)).collect();
        let names = assign_names(&requests)?;
        let name = |(request, name): (&NameRequest, String)| {
            let below = request.below.clone();
            let found = request.prefix.is_none();
            let kept = found.then(|| KeptName { name: name.clone(), below });
            Name { name, kept }
        };
        let names: Vec<_> = requests.iter().zip(names).map(name).collect();
        let found = requests.into_iter().zip(&names);
        let found = found.filter_map(|(request, name)| Some((request.path, name.kept.clone()?)));
        self.0 = found.collect();
        Ok(names)
    }

    fn request(&self, Tenant { section, below }: &Tenant, state: Option<&Path>) -> NameRequest {
        let (path, prefix) = (section.path.clone(), section.prefix.clone());
        let fits = |kept: &KeptName| prefix.is_none() && kept.below == *below;
        let before = self.0.get(&path).filter(|kept| fits(kept)).cloned();
        let kept = before.or_else(|| read(&path, state).filter(fits));
        NameRequest { path, prefix, below: below.clone(), kept: kept.map(|kept| kept.name) }
    }
}

/// The name in local state, which belongs to the file that links lead to.
fn read(path: &Path, state: Option<&Path>) -> Option<KeptName> {
    kept_name(&path.canonicalize().ok()?, state)
}

#[cfg(test)]
mod tests;
