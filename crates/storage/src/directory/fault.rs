//! What goes wrong with files, in the classes of storage errors.

use std::io;
use std::path::Path;

use walrust_engine::ErrorClass;

use crate::StorageError;

/// A failed step of an operation; [`Fault::of`] makes the error of the operation from it.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) class: ErrorClass,
    reason: String,
}

impl Fault {
    pub(super) fn new(class: ErrorClass, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into() }
    }

    /// An answer of the file system on `path`.
    pub(super) fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(class(error.kind()), format!("cannot {what} {}: {error}", path.display()))
    }

    /// The same for a path that is read: one whose parent is a file leads to no object.
    pub(super) fn reading(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory => Self::new(ErrorClass::NotFound, "no such object"),
            _ => Self::io("read", path, error),
        }
    }

    /// Makes the error of an operation.
    pub(super) fn of(self, operation: &'static str, url: String, key: &str) -> StorageError {
        StorageError::new(operation, url, key, self.class, self.reason)
    }
}

/// A full or failing disk may recover; permissions and misplaced files need somebody's hand.
fn class(kind: io::ErrorKind) -> ErrorClass {
    match kind {
        io::ErrorKind::NotFound => ErrorClass::NotFound,
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::InvalidFilename
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::Unsupported => ErrorClass::Permanent,
        _ => ErrorClass::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_recovers_and_a_forbidden_directory_does_not() {
        assert_eq!(class(io::ErrorKind::StorageFull), ErrorClass::Transient);
        assert_eq!(class(io::ErrorKind::QuotaExceeded), ErrorClass::Transient);
        assert_eq!(class(io::ErrorKind::PermissionDenied), ErrorClass::Permanent);
        assert_eq!(class(io::ErrorKind::ReadOnlyFilesystem), ErrorClass::Permanent);
    }
}
