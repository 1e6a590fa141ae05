//! Holds requests to an endpoint back while it fails.

use std::time::Duration;

/// Thresholds of the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Whether requests are ever held back.
    pub enabled: bool,
    /// Failures in a row that open the breaker.
    pub threshold: u32,
    /// How long nothing is sent before one request probes the endpoint.
    pub cooldown: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { enabled: true, threshold: 10, cooldown: Duration::from_secs(15) }
    }
}
