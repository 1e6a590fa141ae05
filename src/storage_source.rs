//! Which storage is meant: what was typed, else what the configuration says.

use std::sync::Arc;

use walrust_storage::{ObjectStore, S3Options, StorageUrl, check_endpoint};

use crate::Error;
use crate::config::{ConditionalWrites, Config};

/// What was typed of the storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StorageSource {
    /// Its URL.
    pub(crate) bucket: Option<String>,
    /// The endpoint of an S3-compatible store.
    pub(crate) endpoint: Option<String>,
}

impl StorageSource {
    /// Opens the storage.
    ///
    /// # Errors
    /// If none is named, or the URL or the endpoint cannot be used.
    pub(crate) async fn open(&self, config: &Config) -> Result<Arc<dyn ObjectStore>, Error> {
        open_url(self.url(config)?, self.endpoint.as_deref(), config).await
    }

    /// The URL that was typed, else the one of the configuration.
    ///
    /// # Errors
    /// If there is neither.
    pub(crate) fn url<'a>(&'a self, config: &'a Config) -> Result<&'a str, Error> {
        self.bucket.as_deref().or(config.s3.bucket.as_deref()).ok_or_else(|| {
            Error::Usage(
                "no storage given; use -b URL, or set bucket in [s3] of the configuration file"
                    .to_owned(),
            )
        })
    }
}

/// Opens the storage at a URL. `endpoint` wins over that of the configuration.
///
/// # Errors
/// If the URL or the endpoint cannot be used.
pub(crate) async fn open_url(
    url: &str,
    endpoint: Option<&str>,
    config: &Config,
) -> Result<Arc<dyn ObjectStore>, Error> {
    let url: StorageUrl = url.parse()?;
    if let Some(Err(problem)) = endpoint.map(check_endpoint) {
        return Err(Error::Usage(problem));
    }
    let options = S3Options {
        endpoint: endpoint.map(str::to_owned).or_else(|| config.s3.endpoint.clone()),
        region: config.s3.region.clone(),
        path_style: config.s3.path_style,
        conditional_writes: config.s3.conditional_writes != Some(ConditionalWrites::Off),
        ..S3Options::default()
    };
    Ok(walrust_storage::open(&url, &options).await?)
}
