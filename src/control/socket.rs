//! Where the control socket is.
//!
//! Invariant: a socket that nobody has named lies in a directory that only this user can change, or in
//! one of the system's. So neither end talks to somebody else: whoever may write to the directory could
//! put another socket in its place.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::Error;

/// The environment variable that names the socket.
pub const SOCKET_VARIABLE: &str = "WALRUST_CONTROL_SOCKET";

/// The place of a control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    path: PathBuf,
    origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Somebody has named it, and knows who can write there.
    Named,
    /// It is in a directory of this user, which may not have these bits of its mode.
    User { forbidden: u32 },
    /// It is in a directory of the system.
    System,
}

impl Socket {
    /// The socket that somebody has named.
    #[must_use]
    pub fn named(path: PathBuf) -> Self {
        Self { path, origin: Origin::Named }
    }

    /// The socket that is used if nobody names one: in the directory that the system has for the
    /// sockets of this user, else in one for this user among the temporary files.
    #[must_use]
    pub fn of_user() -> Self {
        let user = nix::unistd::geteuid();
        match std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty()) {
            Some(directory) => {
                // The one that the system makes is private; if it can be entered, that does no harm.
                let origin = Origin::User { forbidden: 0o022 };
                Self { path: Path::new(&directory).join("walrust.sock"), origin }
            }
            None if user.is_root() => {
                Self { path: PathBuf::from("/run/walrust.sock"), origin: Origin::System }
            }
            None => {
                let directory = std::env::temp_dir().join(format!("walrust-{user}"));
                // We make it so, among directories of everybody.
                let origin = Origin::User { forbidden: 0o077 };
                Self { path: directory.join("walrust.sock"), origin }
            }
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether somebody has named it.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.origin == Origin::Named
    }

    /// Makes its directory if there is none.
    pub(super) fn prepare(&self) -> io::Result<()> {
        if let Some(directory) = self.directory()
            && !directory.exists()
        {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        self.check().map_err(io::Error::other)
    }

    /// Refuses a directory in which somebody else could have put another socket.
    pub(super) fn check(&self) -> Result<(), Error> {
        match (self.origin, self.directory()) {
            (Origin::User { forbidden }, Some(directory)) => check_private(directory, forbidden),
            _ => Ok(()),
        }
    }

    fn directory(&self) -> Option<&Path> {
        self.path.parent().filter(|directory| !directory.as_os_str().is_empty())
    }
}

/// Whether a directory belongs to this user, and is not open to others in this way. One that is not
/// there holds nothing.
fn check_private(directory: &Path, forbidden: u32) -> Result<(), Error> {
    let problem = match fs::symlink_metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => format!("cannot be looked at: {error}"),
        Ok(found) if !found.is_dir() => "is not a directory".to_owned(),
        Ok(found) if found.uid() != nix::unistd::geteuid().as_raw() => {
            format!("belongs to another user (UID {})", found.uid())
        }
        Ok(found) if found.mode() & forbidden != 0 => {
            format!("is open to other users (mode {:o})", found.mode() & 0o777)
        }
        Ok(_) => return Ok(()),
    };
    Err(Error::SocketDirectory { directory: directory.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn e05_only_a_directory_of_ours_alone_is_trusted() {
        let place = tempfile::tempdir().unwrap();
        let problem = |path: &Path| check_private(path, 0o077).unwrap_err().to_string();
        assert!(check_private(&place.path().join("missing"), 0o077).is_ok());
        let directory = place.path().join("walrust");
        fs::create_dir(&directory).unwrap();
        let set_mode =
            |mode| fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
        for mode in [0o777, 0o755, 0o710, 0o701] {
            set_mode(mode);
            assert!(problem(&directory).contains(&format!("mode {mode:o}")), "{mode:o}");
        }
        for (mode, forbidden) in [(0o700, 0o077), (0o700, 0o022), (0o755, 0o022)] {
            set_mode(mode);
            assert!(check_private(&directory, forbidden).is_ok(), "{mode:o}");
        }
        assert!(check_private(&directory, 0o044).is_err());
        let link = place.path().join("link");
        symlink(&directory, &link).unwrap();
        assert!(problem(&link).contains("not a directory"));
        // Somebody else's, whoever runs this test.
        let foreign = match nix::unistd::geteuid().is_root() {
            true => {
                chown(&directory, Some(12_345), None).unwrap();
                directory.as_path()
            }
            false => Path::new("/"),
        };
        let problem = problem(foreign);
        assert!(
            problem.contains("another user") && problem.contains("--control-socket"),
            "{problem}"
        );
    }
}
