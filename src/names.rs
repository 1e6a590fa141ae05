//! The names of the databases, as they were assigned.
//!
//! Invariant: a name that was found for a database stays for as long as the configuration says the
//! same of it, whoever else comes or goes: here while the process runs, and in the local state of the
//! database beyond that. A name that the configuration gives is not kept, so that it can be taken back.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use walrust_engine::{NameRequest, assign_names};
use walrust_sqlite::{KeptName, keep_name, kept_name};

use crate::Error;
use crate::tenants::Tenant;

/// The names that were found, by path of the database.
#[derive(Debug, Default)]
pub(crate) struct Names {
    assigned: HashMap<PathBuf, Assigned>,
    /// Where local state lives, if it is not beside each database.
    state: Option<PathBuf>,
}

#[derive(Debug)]
struct Assigned {
    kept: KeptName,
    /// It is in local state, or cannot be brought there.
    settled: bool,
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
    ) -> Result<Vec<String>, Error> {
        if self.state.as_deref() != state {
            self.state = state.map(Path::to_owned);
            self.assigned.values_mut().for_each(|assigned| assigned.settled = false);
        }
        let requests: Vec<_> = tenants.iter().map(|tenant| self.request(tenant)).collect();
        let names = assign_names(&requests)?;
        let mut assigned = HashMap::new();
        for (request, name) in requests.into_iter().zip(&names) {
            let NameRequest { path, prefix, below, kept } = request;
            if prefix.is_none() {
                // What local state has is there, and what this process assigned may be.
                let settled = match self.assigned.get(&path) {
                    Some(before) if before.kept.name == *name && before.kept.below == below => {
                        before.settled
                    }
                    _ => kept.is_some(),
                };
                let kept = KeptName { name: name.clone(), below };
                assigned.insert(path, Assigned { kept, settled });
            }
        }
        self.assigned = assigned;
        Ok(names)
    }

    fn request(&self, Tenant { section, below }: &Tenant) -> NameRequest {
        let (path, prefix) = (section.path.clone(), section.prefix.clone());
        let kept = if prefix.is_some() {
            None
        } else {
            let before = self.assigned.get(&path).map(|assigned| &assigned.kept);
            let before = before.filter(|kept| kept.below == *below).cloned();
            before.or_else(|| self.read(&path).filter(|kept| kept.below == *below))
        };
        NameRequest { path, prefix, below: below.clone(), kept: kept.map(|kept| kept.name) }
    }

    /// The name in local state, which belongs to the file that links lead to.
    fn read(&self, path: &Path) -> Option<KeptName> {
        kept_name(&path.canonicalize().ok()?, self.state.as_deref())
    }

    /// Brings names that are not there yet to local state, `limit` at most; whether some are left.
    pub(crate) fn keep_some(&mut self, limit: usize) -> bool {
        let open = self.assigned.iter().filter(|(_, assigned)| !assigned.settled);
        // Of a file that is missing there is no state either.
        let open = open.map(|(path, _)| path).filter(|path| path.exists());
        let open: Vec<_> = open.take(limit).cloned().collect();
        for path in &open {
            self.keep(path);
        }
        open.len() == limit
    }

    /// Brings the name of one database to local state.
    pub(crate) fn keep(&mut self, path: &Path) {
        let Some(assigned) = self.assigned.get_mut(path) else { return };
        let Ok(file) = path.canonicalize() else { return };
        if std::mem::replace(&mut assigned.settled, true) {
            return;
        }
        if let Err(error) = keep_name(&file, self.state.as_deref(), &assigned.kept) {
            // Where nothing can be written the name follows from the path at each start.
            tracing::debug!(path = %path.display(), %error, "cannot keep the name of a database");
        }
    }
}

#[cfg(test)]
mod tests;
