//! Where the deliveries to one receiver go, and what signs them.
//!
//! Nothing shows more of the URL than its origin: paths and queries of webhooks are often the secret
//! itself.

use std::fmt;

use reqwest::Url;

use crate::settings::{Secret, WebhookSettings};

/// The URL of a webhook is of no use.
#[derive(Debug, thiserror::Error)]
#[error("the URL of the webhook at {origin} cannot be used: {reason}")]
pub(super) struct UrlError {
    origin: String,
    reason: String,
}

/// See the module.
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) secret: Option<Secret>,
    /// What logs call it.
    pub(super) origin: String,
}

impl Target {
    pub(super) fn new(settings: &WebhookSettings) -> Result<Self, UrlError> {
        let origin = settings.origin();
        let unusable = |reason: String| UrlError { origin: origin.clone(), reason };
        let url = Url::parse(&settings.url).map_err(|error| unusable(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(unusable("it is neither http:// nor https://".to_owned()));
        }
        Ok(Self { url, secret: settings.secret.clone(), origin })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.origin).finish()
    }
}
