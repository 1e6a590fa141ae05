//! The error of every store: what failed, on which object, why, and what may help.
//!
//! Invariant: the class comes from codes, statuses and error kinds, never from words; no text holds
//! a secret, a signed URL or a backtrace. What a server says is repeated in one short line only.

use std::fmt;
use std::io;

use walrust_engine::ErrorClass;

/// A request to a store failed.
pub struct StorageError(Box<Details>);

/// Boxed, because results of every request carry the room for it.
struct Details {
    operation: &'static str,
    url: String,
    key: Option<String>,
    class: ErrorClass,
    status: Option<u16>,
    code: Option<String>,
    reason: String,
    hint: Option<String>,
    missing_bucket: bool,
    source: Option<io::Error>,
}

impl StorageError {
    /// An error of any class. `key` is relative to `url`; empty for operations on a whole store.
    #[must_use]
    pub fn new(
        operation: &'static str,
        url: String,
        key: &str,
        class: ErrorClass,
        reason: impl fmt::Display,
    ) -> Self {
        Self(Box::new(Details {
            operation,
            url,
            key: (!key.is_empty()).then(|| key.to_owned()),
            class,
            status: None,
            code: None,
            reason: reason.to_string(),
            hint: None,
            missing_bucket: false,
            source: None,
        }))
    }

    /// An error that sending the same request again cannot help.
    #[must_use]
    pub fn permanent(
        operation: &'static str,
        url: String,
        key: &str,
        reason: impl fmt::Display,
    ) -> Self {
        Self::new(operation, url, key, ErrorClass::Permanent, reason)
    }

    /// A failure of the operating system while a store works on files or reads a body.
    pub(crate) fn from_io(
        operation: &'static str,
        url: String,
        key: &str,
        error: io::Error,
    ) -> Self {
        let class = class_of_io(error.kind());
        let mut this = Self::new(operation, url, key, class, &error);
        this.0.hint = hint_for_io(error.kind()).map(str::to_owned);
        this.0.source = Some(error);
        this
    }

    pub(crate) fn with_status(mut self, status: Option<u16>) -> Self {
        self.0.status = status;
        self
    }

    pub(crate) fn with_code(mut self, code: Option<&str>) -> Self {
        self.0.code = code.map(one_line);
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    pub(crate) fn with_missing_bucket(mut self) -> Self {
        self.0.missing_bucket = true;
        self
    }

    /// How the failure is to be answered.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.0.class
    }

    /// What was tried, as one lower-case word: `put`, `get`, `head`, `list`, `delete`, `open`, or
    /// `create` for a bucket.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The store: its URL without secrets.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// The object, relative to the URL; `None` if the whole store is concerned.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// HTTP status of the answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// Error code of the answer, such as `AccessDenied`, if there was one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// Whether the bucket is missing, not just an object in it. A HEAD request cannot tell.
    #[must_use]
    pub fn is_missing_bucket(&self) -> bool {
        self.0.missing_bucket
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { operation, url, key, reason, .. } = &*self.0;
        write!(f, "{operation} {url}")?;
        if let Some(key) = key {
            write!(f, "/{key}")?;
        }
        write!(f, ": {reason}")?;
        match (self.0.status, &self.0.code) {
            (Some(status), Some(code)) => write!(f, " ({status} {code})")?,
            (Some(status), None) => write!(f, " (HTTP status {status})")?,
            (None, Some(code)) => write!(f, " ({code})")?,
            (None, None) => {}
        }
        match &self.0.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageError")
            .field("class", &self.0.class)
            .field("message", &self.to_string())
            .finish()
    }
}

impl std::error::Error for StorageError {
    // The text of an `io::Error` is part of ours: only its own source is news.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().and_then(|error| error.source())
    }
}

/// The class of a failure of the operating system. What goes away by itself (a full disk, a server
/// of files that is gone) is transient; what needs a person is permanent.
pub(crate) fn class_of_io(kind: io::ErrorKind) -> ErrorClass {
    match kind {
        io::ErrorKind::NotFound => ErrorClass::NotFound,
        io::ErrorKind::AlreadyExists => ErrorClass::Precondition,
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::InvalidFilename
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::FileTooLarge
        | io::ErrorKind::Unsupported => ErrorClass::Permanent,
        _ => ErrorClass::Transient,
    }
}

fn hint_for_io(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::PermissionDenied => Some("check owner and mode of the directory"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("it goes on when there is room again")
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            Some("a file and a directory cannot have the same name")
        }
        _ => None,
    }
}

/// What a server sent, cut to a length that fits a log line and without control characters.
pub(crate) fn one_line(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut line: String =
        text.chars().map(|each| if each.is_control() { ' ' } else { each }).take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push_str("...");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_operation_object_reason_and_answer() {
        let error = StorageError::new(
            "put",
            "s3://bucket/prefix".into(),
            "app/1.ltx",
            ErrorClass::Auth,
            "access denied",
        )
        .with_status(Some(403))
        .with_code(Some("AccessDenied"))
        .with_hint("check the policy");
        assert_eq!(
            error.to_string(),
            "put s3://bucket/prefix/app/1.ltx: access denied (403 AccessDenied); check the policy"
        );
        assert_eq!((error.operation(), error.key()), ("put", Some("app/1.ltx")));
        assert_eq!((error.status(), error.code()), (Some(403), Some("AccessDenied")));
    }

    #[test]
    fn a_message_about_a_whole_store_ends_with_its_url() {
        let error = StorageError::permanent("list", "file:///d".into(), "", "no such directory");
        assert_eq!(error.to_string(), "list file:///d: no such directory");
        assert_eq!(error.key(), None);
    }

    #[test]
    fn a_full_disk_heals_by_itself_and_missing_permissions_do_not() {
        let class = |kind| {
            StorageError::from_io("put", "file:///d".into(), "k", io::Error::from(kind)).class()
        };
        assert_eq!(class(io::ErrorKind::StorageFull), ErrorClass::Transient);
        assert_eq!(class(io::ErrorKind::TimedOut), ErrorClass::Transient);
        assert_eq!(class(io::ErrorKind::PermissionDenied), ErrorClass::Permanent);
        assert_eq!(class(io::ErrorKind::NotFound), ErrorClass::NotFound);
    }

    #[test]
    fn text_of_a_server_stays_on_one_short_line() {
        let line = one_line(&"a\n".repeat(1000));
        assert!(line.len() < 210 && !line.contains('\n'), "{line}");
    }
}
