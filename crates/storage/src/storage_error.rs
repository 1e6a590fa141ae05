//! The error of every storage operation.
//!
//! Invariant: the class is decided where the cause is still typed (a code, a status, an error
//! kind), never from words; and the text never holds credentials or signed URLs.

use std::fmt;

use walrust_engine::ErrorClass;

/// A storage operation that failed.
///
/// It displays as one sentence: operation, object, cause and, where there is one, the remedy.
#[derive(Debug)]
pub struct StorageError(Box<Failure>);

/// Boxed, because results carry the error on every path that succeeds too.
#[derive(Debug)]
struct Failure {
    operation: &'static str,
    url: String,
    key: String,
    class: ErrorClass,
    reason: String,
    status: Option<u16>,
    code: Option<String>,
    hint: Option<String>,
    missing_bucket: bool,
}

impl StorageError {
    /// An error of `operation` on `key` (empty if it concerns no object) in the store at `url`.
    ///
    /// `reason` continues a sentence after a colon.
    pub fn new(
        operation: &'static str,
        url: String,
        key: &str,
        class: ErrorClass,
        reason: impl Into<String>,
    ) -> Self {
        Self(Box::new(Failure {
            operation,
            url,
            key: key.to_owned(),
            class,
            reason: reason.into(),
            status: None,
            code: None,
            hint: None,
            missing_bucket: false,
        }))
    }

    /// An error that the same request would meet again.
    pub fn permanent(
        operation: &'static str,
        url: String,
        key: &str,
        source: impl fmt::Display,
    ) -> Self {
        Self::new(operation, url, key, ErrorClass::Permanent, source.to_string())
    }

    /// Adds what the store answered: the HTTP status and the code in the body, if any.
    #[must_use]
    pub fn with_answer(mut self, status: u16, code: Option<String>) -> Self {
        self.0.status = Some(status);
        self.0.code = code;
        self
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Marks the error as that of a bucket which does not exist.
    #[must_use]
    pub fn with_missing_bucket(mut self) -> Self {
        self.0.missing_bucket = true;
        self
    }

    /// Puts the error into another class, where the operation knows more than the answer says.
    #[must_use]
    pub(crate) fn with_class(mut self, class: ErrorClass) -> Self {
        self.0.class = class;
        self
    }

    /// What can be done about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.0.class
    }

    /// Whether the bucket itself does not exist; implies [`ErrorClass::NotFound`].
    #[must_use]
    pub fn is_missing_bucket(&self) -> bool {
        self.0.missing_bucket
    }

    /// The operation, as in the methods of [`ObjectStore`](crate::ObjectStore).
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The store, without secrets.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// The key relative to the store, empty if the operation concerns no single object.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// The HTTP status, if there was an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The code in the store's answer, for example `SlowDown`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { operation, url, key, reason, status, code, hint, .. } = &*self.0;
        write!(f, "{operation} {url}")?;
        if !key.is_empty() {
            write!(f, "{}{key}", if url.ends_with('/') { "" } else { "/" })?;
        }
        write!(f, ": {reason}")?;
        match (status, code) {
            (Some(status), Some(code)) => write!(f, " ({status} {code})")?,
            (Some(status), None) => write!(f, " ({status})")?,
            (None, Some(code)) => write!(f, " ({code})")?,
            (None, None) => {}
        }
        match hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StorageError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_one_sentence() {
        let url = || "s3://bucket/prefix".to_owned();
        let error = StorageError::new("put", url(), "app/1.ltx", ErrorClass::Auth, "access denied")
            .with_answer(403, Some("AccessDenied".to_owned()))
            .with_hint("check the bucket policy");
        assert_eq!(
            error.to_string(),
            "put s3://bucket/prefix/app/1.ltx: access denied (403 AccessDenied); \
             check the bucket policy"
        );
        let error = StorageError::permanent("list", "file:///".to_owned(), "a", "no");
        assert_eq!(error.to_string(), "list file:///a: no");
        let error = StorageError::permanent("list", url(), "", "no");
        assert_eq!(error.to_string(), "list s3://bucket/prefix: no");
    }
}
