//! Finds the databases of a configuration and their names, and remembers both from one look to the
//! next.

use std::path::{Path, PathBuf};

use walrust_actors::Settings;
use walrust_sqlite::DatabaseError;

use crate::Error;
use crate::config::{Config, DatabaseSection};
use crate::names::Names;
use crate::settings::{self, Typed, is_same_file};
use crate::tenant::Tenant;
use crate::tenants::Tenants;

/// See the module.
#[derive(Debug, Default)]
pub struct Resolver {
    tenants: Tenants,
    names: Names,
}

/// What a configuration comes to.
#[derive(Debug)]
pub struct Resolution {
    /// The settings of the tree.
    pub settings: Settings,
    /// The databases that are not among them.
    pub left_out: Vec<LeftOut>,
}

/// A database that cannot be replicated at the moment, since it is not known what it was stored under
/// before.
#[derive(Debug)]
pub struct LeftOut {
    /// Path of the database.
    pub path: PathBuf,
    /// Why.
    pub error: DatabaseError,
}

impl Resolution {
    /// The settings, of a configuration that leaves no database out at this path.
    ///
    /// # Errors
    /// Why the database at the path is left out.
    pub(crate) fn with(self, path: &Path) -> Result<Settings, Error> {
        match self.left_out.into_iter().find(|left_out| is_same_file(&left_out.path, path)) {
            Some(left_out) => Err(left_out.error.into()),
            None => Ok(self.settings),
        }
    }
}

impl Resolver {
    /// The settings of the tree, with the databases that are there now.
    ///
    /// # Errors
    /// If a pattern, a webhook or a name cannot be used.
    pub fn resolve(&mut self, config: &Config, typed: &Typed) -> Result<Resolution, Error> {
        let found = self.look(&settings::sections(config, typed)?)?;
        self.settings(found, config, typed)
    }

    /// The databases of some entries that are there now.
    ///
    /// # Errors
    /// If a pattern cannot be understood.
    pub(crate) fn look(&mut self, sections: &[DatabaseSection]) -> Result<Vec<Tenant>, Error> {
        self.tenants.look(sections)
    }

    /// The settings of the tree, with these databases.
    ///
    /// # Errors
    /// If a webhook or a name cannot be used.
    pub(crate) fn settings(
        &mut self,
        found: Vec<Tenant>,
        config: &Config,
        typed: &Typed,
    ) -> Result<Resolution, Error> {
        let names = self.names.assign(&found, config.state.dir.as_deref())?;
        let (mut named, mut left_out) = (Vec::new(), Vec::new());
        for (tenant, name) in found.into_iter().zip(names) {
            match name {
                Ok(name) => named.push((tenant, name)),
                Err(error) => left_out.push(LeftOut { path: tenant.section.path, error }),
            }
        }
        let settings = settings::of_tenants(named, config, typed)?;
        Ok(Resolution { settings, left_out })
    }
}
