//! Which certificates of servers are trusted.
//!
//! A bundle named by `AWS_CA_BUNDLE` or `SSL_CERT_FILE` replaces those of the system, as in other
//! AWS tools. Invariant: a bundle that cannot be used is an error when the store is opened. The TLS
//! connector would panic at the first request, or trust nobody and say so in every error.

use std::fs;
use std::path::Path;

use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Trust in the certificates of a file, and in no others. Blocking.
pub(super) fn only(variable: &str, path: &Path) -> Result<TlsContext, String> {
    let unusable = |why: String| format!("{variable} names {}: {why}", path.display());
    let pem = fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let mut usable = TrustStore::empty();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(format!("not PEM: {error}")))?;
        // Bundles of systems hold a few that are too odd for rustls, which panics over them.
        match roots.add(certificate.clone()) {
            Ok(()) => usable = usable.with_pem_certificate(to_pem(&certificate)),
            Err(error) => tracing::debug!(%error, "a certificate of the bundle is not used"),
        }
    }
    if roots.is_empty() {
        return Err(unusable("it holds no usable certificate".to_owned()));
    }
    TlsContext::builder()
        .with_trust_store(usable)
        .build()
        .map_err(|error| unusable(error.to_string()))
}

fn to_pem(certificate: &[u8]) -> String {
    let base64 = aws_smithy_types::base64::encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}
