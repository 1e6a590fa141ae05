//! Which certificates of servers are trusted.
//!
//! A bundle named by `AWS_CA_BUNDLE` or `SSL_CERT_FILE` replaces those of the system, as in other
//! AWS tools. Invariant: a bundle that cannot be used is an error before anything is sent. The TLS
//! connector would panic at the first request, or trust nobody and say so in every error.

use std::fs;
use std::path::{Path, PathBuf};

use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// A bundle of certificates that the environment names cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} names {}: {reason}", .path.display())]
pub struct BundleError {
    /// The variable of the environment.
    pub variable: &'static str,
    /// The file that it names.
    pub path: PathBuf,
    /// What is wrong with the file.
    pub reason: String,
}

/// The bundle that the environment names, and the variable that names it.
pub(super) fn named_bundle(
    environment: impl Fn(&str) -> Option<String>,
) -> Option<(&'static str, PathBuf)> {
    ["AWS_CA_BUNDLE", "SSL_CERT_FILE"].into_iter().find_map(|name| {
        let path = environment(name).filter(|value| !value.is_empty())?;
        Some((name, PathBuf::from(path)))
    })
}

/// The only certificates to trust, in DER, if the environment names a bundle of them; otherwise
/// those of the system are to be trusted. Blocking.
///
/// # Errors
/// If the bundle cannot be used.
pub fn trusted_certificates() -> Result<Option<Vec<Vec<u8>>>, BundleError> {
    let Some((variable, path)) = named_bundle(|name| std::env::var(name).ok()) else {
        return Ok(None);
    };
    let usable = usable(variable, &path)?;
    Ok(Some(usable.into_iter().map(|certificate| certificate.to_vec()).collect()))
}

/// Trust in the certificates of a file, and in no others. Blocking.
pub(super) fn only(variable: &'static str, path: &Path) -> Result<TlsContext, BundleError> {
    let mut store = TrustStore::empty();
    for certificate in usable(variable, path)? {
        store = store.with_pem_certificate(to_pem(&certificate));
    }
    TlsContext::builder().with_trust_store(store).build().map_err(|error| BundleError {
        variable,
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// The certificates of a file that rustls can use; at least one.
fn usable(
    variable: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, BundleError> {
    let unusable = |reason: String| BundleError { variable, path: path.to_owned(), reason };
    let pem = fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let mut usable = Vec::new();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(format!("not PEM: {error}")))?;
        // Bundles of systems hold a few that are too odd for rustls, which panics over them.
        match roots.add(certificate.clone()) {
            Ok(()) => usable.push(certificate),
            Err(error) => tracing::debug!(%error, "a certificate of the bundle is not used"),
        }
    }
    if usable.is_empty() {
        return Err(unusable("it holds no usable certificate".to_owned()));
    }
    Ok(usable)
}

fn to_pem(certificate: &[u8]) -> String {
    let base64 = aws_smithy_types::base64::encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}
