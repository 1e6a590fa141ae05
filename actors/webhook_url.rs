//! Where a webhook is posted, and what of it may be shown.
//!
//! Invariant: nothing of it is shown but scheme, host and port, by no error either: the rest is often
//! the secret itself.

use std::fmt;

use reqwest::Url;

/// A URL that events can be posted to.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(Url);

/// Why events cannot be posted to a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an http:// or https:// URL that names a host: {0}")]
pub struct WebhookUrlError(String);

impl WebhookUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// If events cannot be posted to it.
    pub fn parse(text: &str) -> Result<Self, WebhookUrlError> {
        let url = Url::parse(text).map_err(|error| WebhookUrlError(error.to_string()))?;
        match url.scheme() {
            "http" | "https" => Ok(Self(url)),
            _ => Err(WebhookUrlError("it has another scheme".to_owned())),
        }
    }

    /// Scheme, host and port.
    #[must_use]
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// Whether there is more to it than its origin.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.0.as_str().trim_end_matches('/') != self.origin()
    }

    pub(crate) fn into_url(self) -> Url {
        self.0
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebhookUrl").field(&self.origin()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e04_only_scheme_host_and_port_are_shown() {
        for (text, origin) in [
            ("https://example.com", "https://example.com"),
            ("https://example.com/", "https://example.com"),
            ("HTTP://Example.COM:8080", "http://example.com:8080"),
            ("http://[::1]:9", "http://[::1]:9"),
        ] {
            let url = WebhookUrl::parse(text).unwrap();
            assert_eq!((url.origin().as_str(), url.has_more()), (origin, false), "{text}");
        }
        for text in [
            "https://example.com?token",
            "https://example.com#token",
            "https://example.com/token",
            "https://token@example.com",
            "https://user:token@example.com/",
            "https:\\\\example.com\\token",
        ] {
            let url = WebhookUrl::parse(text).unwrap();
            assert_eq!((url.origin().as_str(), url.has_more()), ("https://example.com", true));
            assert!(!format!("{url:?}").contains("token"), "{url:?}");
        }
    }

    #[test]
    fn e04_what_cannot_be_posted_to_is_refused_without_repeating_it() {
        for text in [
            "token",
            "",
            "https://",
            "http:///",
            "https://exa mple.com/token",
            "https://example.com:token/",
            "https://example.com:99999/token",
            "ftp://example.com/token",
            "file:///token",
        ] {
            let error = WebhookUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains("https://") && !error.contains("token"), "{text}: {error}");
        }
    }
}
