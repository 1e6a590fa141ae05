//! The client of the SDK and its settings.
//!
//! # Retries
//! None: the uploader's policy decides, and retries of the SDK would multiply with it.
//!
//! # Timeouts
//! Connecting may take 5 s. A request without a body may take 30 s until the answer begins; each
//! 64 KiB of a body that is sent add a second. A body that stands still for 20 s, in either
//! direction, is an error, however long it takes in all.
//!
//! # Checksums
//! Only where S3 demands them. By default the SDK sends every body as `aws-chunked` with a trailing
//! CRC, which several stores refuse or, worse, store as content. Bodies are protected by the
//! signature instead, which covers their SHA-256.

use std::path::PathBuf;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    self, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, ConnectorBuilder};

use super::options::{S3Credentials, S3Options, Settings, check_endpoint};
use super::trust;

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);
const STALLED: Duration = Duration::from_secs(20);
/// The slowest upload that is waited for, bytes per second.
const SLOWEST: u64 = 64 * 1024;
const DEFAULT_REGION: &str = "us-east-1";

/// Makes the client and tells its endpoint, if that is not AWS. Connects nothing yet; reads
/// environment, profile and certificates.
pub(super) async fn connect(options: &S3Options) -> Result<(Client, Option<String>), String> {
    let settings = Settings::resolve(options, |name| std::env::var(name).ok())?;
    connect_with(options, settings).await
}

async fn connect_with(
    options: &S3Options,
    settings: Settings,
) -> Result<(Client, Option<String>), String> {
    let https = match settings.certificates {
        Some((variable, path)) => {
            let bundle = path.clone();
            let read = tokio::task::spawn_blocking(move || trust::only(variable, &bundle)).await;
            // Only looked at here: whoever connects without TLS need not keep hundreds of them.
            read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            Some(https_client(variable, path))
        }
        // The client that the SDK brings along trusts what the system trusts.
        None => None,
    };
    let region = RegionProviderChain::first_try(settings.region.map(Region::new))
        .or_else(ProfileFileRegionProvider::new())
        .or_else(DEFAULT_REGION);
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).region(region);
    if let Some(https) = &https {
        loader = loader.http_client(https.clone());
    }
    if let Some(credentials) = &options.credentials {
        loader = loader.credentials_provider(static_credentials(credentials));
    }
    let shared = loader.load().await;

    let mut config = config::Builder::from(&shared)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts(0))
        .stalled_stream_protection(
            StalledStreamProtectionConfig::enabled().grace_period(STALLED).build(),
        )
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    // Not given to the loader: requests for credentials do not go to this endpoint.
    let endpoint = settings.endpoint.or_else(|| shared.endpoint_url().map(str::to_owned));
    if let Some(endpoint) = &endpoint {
        check_endpoint(endpoint)?;
        config = config.endpoint_url(endpoint);
        if endpoint.starts_with("http://") {
            config = config.http_client(http_client());
        }
    }
    config = config.force_path_style(options.path_style.unwrap_or(endpoint.is_some()));
    Ok((Client::from_conf(config.build()), endpoint))
}

/// Settings for one request that sends a body of this many bytes.
pub(super) fn sending(bytes: u64) -> config::Builder {
    config::Config::builder().timeout_config(timeouts(bytes))
}

fn timeouts(bytes: u64) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(ANSWER + Duration::from_secs(bytes / SLOWEST))
        .build()
}

fn static_credentials(credentials: &S3Credentials) -> Credentials {
    let S3Credentials { access_key, secret_key, session_token } = credentials;
    Credentials::new(access_key, secret_key, session_token.clone(), None, "walrust")
}

/// As the client that the SDK brings along, with trust in the certificates of a bundle alone. It is
/// read when a connector is made; one that has become unusable since makes every request over TLS fail.
fn https_client(variable: &'static str, bundle: PathBuf) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = ConnectorBuilder::default().proxy_config(ProxyConfig::from_env());
        builder.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            builder.set_sleep_impl(components.sleep_impl());
        }
        match trust::only(variable, &bundle) {
            Ok(trust) => {
                builder.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(trust).build()
            }
            Err(error) => {
                tracing::error!(%error, "no server can be trusted");
                builder.build_http()
            }
        }
    })
}

/// For endpoints without TLS: reads no certificates and works on systems that have none.
fn http_client() -> SharedHttpClient {
    Builder::new().build_with_connector_fn(|settings, components| {
        let mut builder = ConnectorBuilder::default().proxy_config(ProxyConfig::from_env());
        builder.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            builder.set_sleep_impl(components.sleep_impl());
        }
        builder.build_http()
    })
}

#[cfg(test)]
mod tests;
