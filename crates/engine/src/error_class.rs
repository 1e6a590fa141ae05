//! How a failed storage request is to be answered, decided once from codes and statuses.

use std::fmt;

/// The class of a failure; every retry, breaker and alarm decision looks at this and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The request may succeed if it is sent again: resets, timeouts, 5xx, 409 on a conditional
    /// write (another one is under way).
    Transient,
    /// The store asks for fewer requests: 429, 503 `SlowDown`.
    Throttled,
    /// Credentials are missing, wrong, expired, or lack a permission: 401, 403.
    Auth,
    /// The object or the bucket does not exist: 404.
    NotFound,
    /// A condition of a conditional request does not hold: 412.
    Precondition,
    /// Sending the same request again cannot help.
    Permanent,
}

impl ErrorClass {
    /// Whether sending the same request again may succeed without anybody's help.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Transient | Self::Throttled)
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::Auth => "auth",
            Self::NotFound => "not found",
            Self::Precondition => "precondition failed",
            Self::Permanent => "permanent",
        })
    }
}
