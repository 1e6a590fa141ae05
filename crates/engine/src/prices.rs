//! What providers of object storage charge, as their pages say.
//!
//! Prices of the standard class, without free allowances, volume discounts, taxes and transfer. They
//! change: [`PRICES_AS_OF`] says when the table was made, and the pages have the last word.

use std::fmt;

/// When the table was made. Prices change: look at the page of the provider.
pub const PRICES_AS_OF: &str = "November 2026";

/// A provider with public prices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Amazon S3, us-east-1: <https://aws.amazon.com/s3/pricing/>.
    Aws,
    /// Backblaze B2, which charges listings more than uploads:
    /// <https://www.backblaze.com/cloud-storage/pricing>,
    /// <https://www.backblaze.com/cloud-storage/transaction-pricing>.
    Backblaze,
    /// Cloudflare R2: <https://developers.cloudflare.com/r2/pricing/>.
    Cloudflare,
    /// Google Cloud Storage, us-east1: <https://cloud.google.com/storage/pricing>.
    Google,
    /// Tigris: <https://www.tigrisdata.com/docs/pricing/>.
    Tigris,
}

/// Prices in US dollars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// 10^9 bytes stored for a month.
    pub storage_gb_month: f64,
    /// 1,000 uploads, or parts of one.
    pub put_per_1000: f64,
    /// 1,000 listings.
    pub list_per_1000: f64,
    /// 1,000 downloads, or descriptions of an object.
    pub get_per_1000: f64,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Aws, Self::Backblaze, Self::Cloudflare, Self::Google, Self::Tigris];

    /// The provider of an endpoint; without one, that is Amazon. `None` for any other host.
    #[must_use]
    pub fn of_endpoint(endpoint: Option<&str>) -> Option<Self> {
        let Some(endpoint) = endpoint else { return Some(Self::Aws) };
        let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
        let host = rest.split(['/', ':']).next().unwrap_or_default().to_ascii_lowercase();
        let is_below = |domain: &&str| {
            host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        Self::ALL.into_iter().find(|provider| provider.domains().iter().any(is_below))
    }

    fn domains(self) -> &'static [&'static str] {
        match self {
            Self::Aws => &["amazonaws.com", "amazonaws.com.cn"],
            Self::Backblaze => &["backblazeb2.com"],
            Self::Cloudflare => &["r2.cloudflarestorage.com"],
            Self::Google => &["storage.googleapis.com"],
            Self::Tigris => &["tigris.dev", "t3.storage.dev"],
        }
    }

    /// What it charges.
    #[must_use]
    pub fn prices(self) -> Prices {
        let prices = |storage_gb_month, put_per_1000, list_per_1000, get_per_1000| Prices {
            storage_gb_month,
            put_per_1000,
            list_per_1000,
            get_per_1000,
        };
        match self {
            Self::Aws => prices(0.023, 0.005, 0.005, 0.0004),
            Self::Backblaze => prices(0.006, 0.0, 0.004, 0.0004),
            Self::Cloudflare => prices(0.015, 0.0045, 0.0045, 0.00036),
            Self::Google => prices(0.020, 0.005, 0.005, 0.0004),
            Self::Tigris => prices(0.020, 0.005, 0.005, 0.0005),
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aws => "AWS S3",
            Self::Backblaze => "Backblaze B2",
            Self::Cloudflare => "Cloudflare R2",
            Self::Google => "Google Cloud Storage",
            Self::Tigris => "Tigris",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provider_follows_from_the_host() {
        let provider = |endpoint| Provider::of_endpoint(Some(endpoint));
        assert_eq!(Provider::of_endpoint(None), Some(Provider::Aws));
        for (endpoint, expected) in [
            ("https://fly.storage.tigris.dev", Provider::Tigris),
            ("https://t3.storage.dev/", Provider::Tigris),
            ("https://s3.eu-central-1.amazonaws.com", Provider::Aws),
            ("https://0123abcd.R2.cloudflarestorage.com:443/x", Provider::Cloudflare),
            ("https://s3.us-west-004.backblazeb2.com", Provider::Backblaze),
            ("https://storage.googleapis.com", Provider::Google),
        ] {
            assert_eq!(provider(endpoint), Some(expected), "{endpoint}");
        }
    }

    #[test]
    fn a_host_that_only_looks_like_a_provider_has_no_prices() {
        for endpoint in [
            "http://127.0.0.1:8333",
            "https://minio.example.com",
            "https://nottigris.dev",
            "https://amazonaws.com.example.org",
            "https://example.org/amazonaws.com",
        ] {
            assert_eq!(Provider::of_endpoint(Some(endpoint)), None, "{endpoint}");
        }
    }
}
