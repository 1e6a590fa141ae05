//! Finds the databases of a configuration and their names, and remembers both from one look to the
//! next.

use walrust_actors::Settings;

use crate::Error;
use crate::config::{Config, DatabaseSection};
use crate::names::Names;
use crate::settings::{self, Typed};
use crate::tenant::Tenant;
use crate::tenants::Tenants;

/// See the module.
#[derive(Debug, Default)]
pub struct Resolver {
    tenants: Tenants,
    names: Names,
}

impl Resolver {
    /// The settings of the tree, with the databases that are there now.
    ///
    /// # Errors
    /// If a pattern, a webhook or a name cannot be used.
    pub fn resolve(&mut self, config: &Config, typed: &Typed) -> Result<Settings, Error> {
        let found = self.look(&settings::sections(config, typed)?)?;
        self.settings(&found, config, typed)
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
        found: &[Tenant],
        config: &Config,
        typed: &Typed,
    ) -> Result<Settings, Error> {
        let names = self.names.assign(found, config.state.dir.as_deref())?;
        settings::of_tenants(found, names, config, typed)
    }
}
