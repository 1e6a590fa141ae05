//! Where the deliveries to one receiver go, and what signs them.
//!
//! Nothing shows more of the URL than its origin: paths and queries of webhooks are often the secret
//! itself.

use std::fmt;

use reqwest::Url;

use crate::settings::{Secret, WebhookSettings};
use crate::webhook_url::{WebhookUrl, WebhookUrlError};

/// See the module.
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) secret: Option<Secret>,
    /// What logs call it.
    pub(super) origin: String,
}

impl Target {
    pub(super) fn new(settings: &WebhookSettings) -> Result<Self, WebhookUrlError> {
        let url = WebhookUrl::parse(&settings.url)?;
        let (origin, secret) = (url.origin(), settings.secret.clone());
        Ok(Self { url: url.into_url(), secret, origin })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.origin).finish()
    }
}
