//! What keeps the daemon from doing all that was configured, as `walrust status` shows it.

use std::path::PathBuf;

use crate::resolver::LeftOut;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// Why the configuration file that was read last is not applied.
    pub file: Option<String>,
    /// Why the databases that patterns match now are not those that are replicated.
    pub databases: Option<String>,
    /// Databases that are not replicated, and why.
    pub left_out: Vec<(PathBuf, String)>,
}

impl Problems {
    /// The same with other databases that are left out.
    pub(crate) fn with_left_out(self, left_out: &[LeftOut]) -> Self {
        let left_out = left_out.iter().map(|it| (it.path.clone(), it.error.to_string()));
        Self { left_out: left_out.collect(), ..self }
    }

    /// Why the configuration is not applied, in one sentence.
    #[must_use]
    pub fn config_error(&self) -> Option<String> {
        let errors: Vec<&str> =
            self.file.iter().chain(&self.databases).map(String::as_str).collect();
        (!errors.is_empty()).then(|| errors.join("; "))
    }
}
