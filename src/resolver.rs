//! Finds the databases of a configuration and their names, and remembers both from one look to the
//! next.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use walrust_actors::Settings;
use walrust_sqlite::{DatabaseError, Orphan, OrphanFate};

use crate::Error;
use crate::config::{Config, DatabaseSection};
use crate::names::Names;
use crate::orphans::orphans;
use crate::pattern::{FilePattern, is_pattern};
use crate::settings::{self, Typed, is_same_file};
use crate::tenant::Tenant;
use crate::tenants::Tenants;

/// See the module.
#[derive(Debug, Default)]
pub struct Resolver {
    tenants: Tenants,
    names: Names,
    /// Local state that stays although its database is gone; to tell it once is enough.
    told: HashSet<PathBuf>,
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
        let sections = settings::sections(config, typed)?;
        let found = self.look(&sections)?;
        for orphan in orphans(&patterns(&sections)?, config.state.dir.as_deref()) {
            self.reserve(&orphan);
        }
        self.settings(found, &sections, config, typed)
    }

    /// The databases of some entries that are there now.
    ///
    /// # Errors
    /// If a pattern cannot be understood.
    pub(crate) fn look(&mut self, sections: &[DatabaseSection]) -> Result<Vec<Tenant>, Error> {
        self.tenants.look(sections)
    }

    /// The settings of the tree, with these databases, which were found for these entries.
    ///
    /// # Errors
    /// If a webhook or a name cannot be used.
    pub(crate) fn settings(
        &mut self,
        found: Vec<Tenant>,
        sections: &[DatabaseSection],
        config: &Config,
        typed: &Typed,
    ) -> Result<Resolution, Error> {
        let patterns = patterns(sections)?;
        let names = self.names.assign(&found, &patterns, config.state.dir.as_deref())?;
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

    /// Removes the local state of databases that patterns matched and that have been gone for a while,
    /// and gives their names back.
    ///
    /// # Errors
    /// If a pattern cannot be understood.
    pub(crate) fn remove_orphans(
        &mut self,
        sections: &[DatabaseSection],
        state: Option<&Path>,
        while_gone: Duration,
    ) -> Result<(), Error> {
        self.names.forget_after(while_gone);
        for orphan in orphans(&patterns(sections)?, state) {
            let (path, state) = (orphan.database(), orphan.state().display());
            // It may be about to be replaced: it goes when its pattern has missed it for good.
            if self.names.is_assigned(path) {
                continue;
            }
            self.reserve(&orphan);
            match orphan.remove_after(while_gone, SystemTime::now()) {
                Ok(OrphanFate::Removed) => {
                    self.names.forget(path);
                    let path = path.display();
                    tracing::info!(%path, %state, "removed the local state of a deleted database");
                }
                Ok(OrphanFate::Staged(files)) => {
                    if self.told.insert(orphan.state().to_owned()) {
                        let path = path.display();
                        tracing::warn!(
                            %path, %state, files,
                            "keeping the local state of a deleted database: some of its files may not be \
                             in storage. If they are needed, copy the .ltx files of its directory `staging` \
                             to the files of the database in storage, and restore the database from there; \
                             after that, and if they are not needed, remove the directory"
                        );
                    }
                }
                Ok(OrphanFate::Waiting | OrphanFate::Adopted) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot remove the local state of a deleted database; trying again later");
                }
            }
        }
        Ok(())
    }

    fn reserve(&mut self, orphan: &Orphan) {
        match orphan.kept_name() {
            Ok(Some(kept)) => self.names.reserve(orphan.database(), kept),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "cannot read the name of a deleted database"),
        }
    }
}

fn patterns(sections: &[DatabaseSection]) -> Result<Vec<FilePattern>, Error> {
    let paths = sections.iter().map(|section| section.path.as_path());
    paths.filter(|path| is_pattern(path)).map(FilePattern::new).collect()
}
